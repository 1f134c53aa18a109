"""Base class of models: hyperparameters, their checks, and defaults for methods that the library calls."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from dimenet_tf.basis import BesselBasis, GaussianBasis, SphericalBasis
from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.graph import NEEDS, Graph, GraphStore
from dimenet_tf.layers.activations import activation_counter, cluster
from dimenet_tf.layers.output import AtomOutputs
from dimenet_tf.layers.pictures import Diagram, Picture, layers_diagram, radial_curves, spherical_disks


def check_numbers(values: Mapping[str, object], may_be_zero: Container[str], section: str = "") -> None:
    """Raise a UserError for a number that is not finite, is negative, or is zero where zero is not allowed."""
    for key, value in values.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        if not math.isfinite(value) or value < 0 or (value == 0 and key not in may_be_zero):
            bound = "at least" if key in may_be_zero else "greater than"
            raise UserError(f"{section}{key} = {value} must be {bound} 0")


WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", list: "a list"}
WORDS |= {Mapping: "a mapping", type(None): "None"}


def check_type(key: str, value: object, types: tuple[type, ...]) -> object:
    """Return a value of one of several types; tuples become lists, and text such as "1e-3" a float if that is allowed.

    Raises
    ------
    UserError
        For a value of another type, with its key.

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


MOST_NEIGHBORS = 32  # of an atom in the graph by which activations are counted
CUTOFF_TOLERANCE = 1e-6  # relative; a cutoff may have been stored in float32
MISFIT = "the graph was not made for this model (make it with model.graph_store(N, Z, R))"


class Hyperparameters:
    """Base class of all models, in addition to `tf.keras.Model`.

    It checks the constructor's arguments, stores them as attributes and as the Keras configuration, and has defaults
    for all methods that the rest of the library calls. A model overrides those that differ.
    """

    name: str
    dtype: str
    dtype_policy: tf.keras.mixed_precision.Policy
    layers: list[tf.keras.layers.Layer]
    cutoff: float

    needs: frozenset[str] = frozenset()
    """Names of the optional arrays of a `Graph` that the model uses."""
    choices: Mapping[str, Iterable[str]] = {}
    """Allowed values of the hyperparameters that are names."""
    may_be_zero: tuple[str, ...] = ("envelope_exponent", "num_after_skip", "num_before_skip", "num_dense_output")
    """Numbers that may be zero; all others must be greater than zero."""
    meaning: tuple[str, ...] = ("cutoff", "envelope_exponent", "radial_basis", "conventions", "extensive")
    """Hyperparameters that change the meaning of the weights without changing their shapes."""
    direct_forces = False
    """Whether the model returns `AtomOutputs.forces`."""
    max_neighbors = 0
    """Nearest neighbors of an atom that the model uses; 0 for all within the cutoff."""
    has_scale_factors = False
    """Whether the model has `ScaleFactor` layers, which are fitted before training."""
    small: Mapping[str, Any] = {}
    """Hyperparameters of a small model for tests."""
    variants: tuple[Mapping[str, Any], ...] = ({},)
    """Hyperparameters that select other code; the contract tests cover each of these sets."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})  # of `tf.keras.Model`, the next base

    def set_hyperparameters(self, arguments: dict) -> None:
        """Check and store the named arguments of the constructor; `arguments` is its `locals()`."""
        self._hyperparameters = {key: arguments[key] for key in hyperparameters(type(self))}
        check_numbers(self._hyperparameters, self.zero_allowed())
        for key, allowed in self.choices.items():
            check_choice(key, arguments[key], tuple(allowed))
        for key, value in self._hyperparameters.items():
            setattr(self, key, value)

    @classmethod
    def zero_allowed(cls) -> tuple[str, ...]:
        """Return the names of the numbers that may be zero."""
        return (*cls.may_be_zero, "num_vectors", "max_neighbors", "seed")

    @classmethod
    def gives_vectors(cls, hyperparameters: Mapping[str, Any]) -> bool:
        """Return whether a model with these hyperparameters can return vectors."""
        return "num_vectors" in inspect.signature(cls.__init__).parameters

    @property
    def cutoffs(self) -> list[float]:
        """Distances at which two atoms begin to interact, in Angstrom and ascending order."""
        return sorted({self.cutoff, self.far_cutoff or self.cutoff})

    @property
    def far_cutoff(self) -> float | None:
        """Distance up to which pairs of atoms are far edges, in Angstrom; None for a model without such edges."""
        return None

    @property
    def discontinuity(self) -> str:
        """Reason why the model's energies jump, with the remedy, in one line; empty if they are continuous."""
        return ""

    def shared_weights(self) -> list[tuple[tf.Variable, int]]:
        """Return weights shared by several blocks, with the number by which training divides their gradients."""
        return []

    @classmethod
    def suited_to(cls, hyperparameters: Mapping[str, Any], neighbors: Callable[[], float]) -> dict[str, Any]:
        """Return hyperparameters that are faster than the defaults for some molecules. They do not change results.

        Parameters
        ----------
        hyperparameters : hyperparameters of the model
        neighbors : function that returns the mean number of neighbors of an atom
        """
        return {}

    def kept_per_edge(self, neighbors: float) -> float:
        """Estimate the numbers that a training step without forces stores per edge, for the memory forecast.

        They are counted in a traced training step on a cluster of atoms, which takes seconds the first time. A model
        that has a formula overrides this method.

        Parameters
        ----------
        neighbors : mean number of neighbors of an atom
        """
        counted = min(max(round(neighbors), 1), MOST_NEIGHBORS)
        kind: Any = type(self)
        count = _activation_counter(kind, json.dumps(self.get_config(), sort_keys=True))
        positions = cluster(counted, self.cutoff)
        graph = self.graph_store([len(positions)], [6] * len(positions), positions).batch([0])
        return int(count(graph)) / len(graph.edge_source) * max(neighbors / MOST_NEIGHBORS, 1.0)  # linear beyond

    def make_weights(self) -> None:
        """Create the weights by calling the model on a water molecule."""
        positions = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        self(self.graph_store([3], [8, 1, 1], positions).batch([0]))

    def graph_store(
        self, N: ArrayLike, Z: ArrayLike, R: ArrayLike, cell: ArrayLike | None = None, pbc: ArrayLike | None = None
    ) -> GraphStore:
        """Find the neighbors of molecules or crystals, with the cutoffs, index arrays and dtype of this model.

        Parameters
        ----------
        N : (molecules,) int, atoms of each molecule
        Z : (sum N,) int, atomic numbers
        R : (sum N, 3) float, positions in Angstrom
        cell : (molecules, 3, 3) float, Angstrom, rows are lattice vectors, zero for molecules; None for molecules alone
        pbc : (molecules, 3) bool, the periodic directions; by default those whose lattice vector is not zero

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
        return GraphStore(N, Z, R, self.cutoff, self.needs, self.dtype, cell, pbc, self.far_cutoff)

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
        dtype = graph.positions.dtype
        if dtype != self.dtype:
            raise UserError(f"{MISFIT}: expected {self.dtype} positions, received {tf.as_dtype(dtype).name}")
        for name in sorted(self.needs - graph.needs_met):
            raise UserError(f"{MISFIT}: expected {' and '.join(NEEDS[name])}, received none")
        _check_cutoff("cutoff", graph.cutoff, self.cutoff)
        if self.far_cutoff is not None:
            _check_cutoff("far cutoff", graph.far_cutoff, self.far_cutoff)

    def get_config(self) -> dict:
        return {**self._hyperparameters, "name": self.name, "dtype": self.dtype_policy.name}

    def get_build_config(self) -> dict:
        return {"input": "graph"}

    def build_from_config(self, config: dict) -> None:
        self.make_weights()

    def basis_pictures(self) -> dict[str, Picture]:
        """Return pictures of the basis functions by the names of their files, by default of all basis layers.

        Radial bases are drawn as in DimeNet, Fig. 3, two-dimensional ones as in Fig. 2. The name of a further basis of
        the same kind contains its cutoff.
        """
        pictures: dict[str, Picture] = {}
        for layer in self.layers:
            two_dimensional = isinstance(layer, SphericalBasis)
            if two_dimensional or isinstance(layer, (BesselBasis, GaussianBasis)):
                name = "basis_spherical" if two_dimensional else "basis_radial"
                name = f"{name}_{layer.cutoff:g}_Angstrom" if name in pictures else name
                pictures[name] = (
                    spherical_disks(layer) if two_dimensional else radial_curves(layer, layer.cutoff, layer.dtype)
                )
        return pictures

    def filter_pictures(self) -> dict[str, Picture]:
        """Return pictures of the learned filters by the names of their files; none if the model has no filters."""
        return {}

    def architecture(self) -> Diagram:
        """Return a diagram of the model, by default of its layers."""
        return layers_diagram(self.layers)


def _check_cutoff(name: str, cutoff: Any, expected: float) -> None:
    """Raise a UserError for another cutoff; assert it where it is known only when a `tf.function` runs."""
    known = cutoff if isinstance(cutoff, (float, np.ndarray)) else tf.get_static_value(cutoff)
    if known is None:
        near = tf.abs(cutoff - expected) <= CUTOFF_TOLERANCE * expected
        tf.debugging.Assert(near, [f"{MISFIT}: expected a {name} of {expected:.9g}, received", cutoff])
    elif abs(known - expected) > CUTOFF_TOLERANCE * expected:
        raise UserError(f"{MISFIT}: expected a {name} of {expected:.9g}, received {known:.9g} (Angstrom)")


@functools.lru_cache(maxsize=4)
def _activation_counter(kind: Any, config: str) -> Callable[[Graph], tf.Tensor]:
    model = kind.from_config(json.loads(config))
    model.make_weights()
    return activation_counter(model)


def hyperparameters(model_class: type) -> dict[str, Any]:
    """Return the hyperparameters of a model class with their defaults."""
    constructor = model_class.__init__  # type: ignore[misc]  # of this class
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
