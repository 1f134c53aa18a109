"""A model's constructor arguments are its configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from dimenet_tf.errors import UserError
from dimenet_tf.graph import NEEDS, Graph, GraphStore
from dimenet_tf.layers.output import AtomOutputs

MAY_BE_ZERO = ("envelope_exponent", "num_after_skip", "num_before_skip", "num_dense_output", "num_vectors", "seed")


def check_numbers(values: Mapping[str, object], may_be_zero: Container[str], section: str = "") -> None:
    """Raise a UserError that names the key for a number that is not finite or negative, or zero where it may not be."""
    for key, value in values.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        if not math.isfinite(value) or value < 0 or (value == 0 and key not in may_be_zero):
            bound = "at least" if key in may_be_zero else "greater than"
            raise UserError(f"{section}{key} = {value} must be {bound} 0")


WORDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false", list: "a list"}
WORDS |= {Mapping: "a mapping", type(None): "None"}


def check_type(key: str, value: object, types: tuple[type, ...]) -> object:
    """Return a value of one of some types: numbers in text (YAML reads 1e-3 as text) as floats, tuples as lists.

    Raises
    ------
    UserError
        For a value of another type; names the key.

    Examples
    --------
    >>> check_type("cutoff", 5, (float,)), check_type("learning_rate", "1e-3", (float,))
    (5.0, 0.001)
    """
    expected = " or ".join(dict.fromkeys(WORDS[t] for t in types if t is not tuple))
    if isinstance(value, np.generic):
        value = value.item()
    if bool not in types and isinstance(value, bool):
        raise UserError(f"{key} = {value} must be {expected}")
    if float in types and isinstance(value, (int, str)):
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, types):
        raise UserError(f"{key} = {value!r} must be {expected}")
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


CUTOFF_TOLERANCE = 1e-6  # relative; a cutoff may have been stored in float32
MISFIT = "the graph was not made for this model (make it with model.graph_store(N, Z, R))"


class Hyperparameters:
    """Keeps a model's constructor arguments as attributes and as its Keras configuration."""

    cutoff: float
    needs: frozenset[str]  # names of the optional arrays of a `Graph` that the model takes
    name: str
    dtype: str
    dtype_policy: tf.keras.mixed_precision.Policy
    # hyperparameters that change what weights mean, but not their shapes
    meaning: tuple[str, ...] = ("cutoff", "envelope_exponent", "radial_basis", "conventions", "extensive")
    direct_forces = False  # whether `AtomOutputs.forces` are there
    has_scale_factors = False  # whether there are `ScaleFactor` layers, which are fitted before training

    def set_hyperparameters(self, arguments: dict) -> None:
        """Store the named arguments of the constructor; `arguments` is its `locals()`."""
        self._hyperparameters = {key: arguments[key] for key in hyperparameters(type(self))}
        check_numbers(self._hyperparameters, MAY_BE_ZERO)
        for key, value in self._hyperparameters.items():
            setattr(self, key, value)

    @property
    def cutoffs(self) -> list[float]:
        """Distances at which two atoms begin to act on each other, Angstrom; the last one is the longest."""
        return [self.cutoff]

    @property
    def discontinuity(self) -> str:
        """Why the model's energies jump and what to do about it, one line; empty where they do not."""
        return ""

    def shared_weights(self) -> list[tuple[tf.Variable, int]]:
        """Return weights that several blocks use, and how many do: their gradients are divided by it in training."""
        return []

    @classmethod
    def suited_to(cls, hyperparameters: Mapping[str, Any], neighbors: Callable[[], float]) -> dict[str, Any]:
        """Return hyperparameters that are better than the defaults for some molecules, and change no number.

        Parameters
        ----------
        hyperparameters : of the model
        neighbors : returns the mean number of neighbors of an atom
        """
        return {}

    def kept_per_edge(self, neighbors: float) -> float:
        """Return about how many numbers a training step without forces keeps of each edge, for the memory forecast.

        Parameters
        ----------
        neighbors : of an atom, on average
        """
        raise NotImplementedError

    def make_weights(self) -> None:
        """Make the model's weights: Keras does when a model sees its first input, here water."""
        positions = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        self(self.graph_store([3], [8, 1, 1], positions).batch([0]))

    def graph_store(self, N: ArrayLike, Z: ArrayLike, R: ArrayLike) -> GraphStore:
        """Find the neighbors of molecules, with the cutoff, index arrays and dtype of this model.

        Parameters
        ----------
        N : (molecules,) int, atoms of each molecule
        Z : (sum N,) int, atomic numbers
        R : (sum N, 3) float, positions in Angstrom

        Returns
        -------
        GraphStore
            `batch` gives graphs that this model takes.

        Examples
        --------
        >>> import dimenet_tf
        >>> model = dimenet_tf.build_model("dimenet_pp", num_targets=3)
        >>> N, Z = [3, 2], [8, 1, 1, 1, 1]  # water and hydrogen
        >>> R = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0, 0, 0], [0.74, 0, 0]]
        >>> store = model.graph_store(N, Z, R)
        >>> model(store.batch([0, 1])).scalars.shape
        TensorShape([5, 3])
        """
        return GraphStore(N, Z, R, self.cutoff, self.needs, self.dtype)

    def __call__(self, graph: Graph, *args: Any, **kwargs: Any) -> AtomOutputs:
        self.check_graph(graph)  # before Keras, which may cast the positions
        return super().__call__(graph, *args, **kwargs)  # type: ignore[misc]  # of `tf.keras.Model`, the next base

    def check_graph(self, graph: Graph) -> None:
        """Raise a UserError for a graph that was not made for this model.

        A cutoff that is known only when a `tf.function` runs is checked there by an assertion.

        Raises
        ------
        UserError
            For positions of another dtype, optional arrays that are needed but were not made, another cutoff, or an
            object of another type.
        """
        if not isinstance(graph, Graph):
            raise UserError(
                f"{type(self).__name__} takes a Graph (model.graph_store(N, Z, R).batch([0])), got "
                f"{type(graph).__name__}. A trained predictor takes molecules: predictor.predict(molecules)"
            )
        dtype, cutoff = graph.positions.dtype, graph.cutoff
        if dtype != self.dtype:
            raise UserError(f"{MISFIT}: expected {self.dtype} positions, received {tf.as_dtype(dtype).name}")
        for name in self.needs:
            if isinstance(getattr(graph, NEEDS[name][0]), tuple):
                raise UserError(f"{MISFIT}: expected {' and '.join(NEEDS[name])}, received none")
        if not isinstance(cutoff, (float, np.ndarray)):
            cutoff = tf.get_static_value(cutoff)
        if cutoff is None:
            near = tf.abs(graph.cutoff - self.cutoff) <= CUTOFF_TOLERANCE * self.cutoff
            tf.debugging.Assert(near, [f"{MISFIT}: expected a cutoff of {self.cutoff:.9g}, received", graph.cutoff])
        elif abs(cutoff - self.cutoff) > CUTOFF_TOLERANCE * self.cutoff:
            raise UserError(f"{MISFIT}: expected a cutoff of {self.cutoff:.9g}, received {cutoff:.9g} (Angstrom)")

    def get_config(self) -> dict:
        return {**self._hyperparameters, "name": self.name, "dtype": self.dtype_policy.name}

    def get_build_config(self) -> dict:
        return {"input": "graph"}

    def build_from_config(self, config: dict) -> None:
        self.make_weights()


def hyperparameters(model_class: type) -> dict[str, object]:
    """Return the hyperparameters of a model class with their defaults."""
    constructor = model_class.__init__  # type: ignore[misc]  # of this very class
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
