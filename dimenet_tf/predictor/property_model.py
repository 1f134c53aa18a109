"""Keras models from atoms to named properties: a model with its head, units, reference values and domain."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.graph import (
    Graph,
    GraphStore,
    build_graph_tensorflow,
    find_edges_tensorflow,
    graph_signature,
    ingraph,
)
from dimenet_tf.models import PRECISIONS, build_model, find_model, policy_of
from dimenet_tf.predictor.admission import Admission
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.predictor.weights import save_weights
from dimenet_tf.properties.heads import Head, check_energy
from dimenet_tf.properties.prediction import Array, Prediction
from dimenet_tf.runs.catalog import DESCRIPTION, WEIGHTS, describe_predictor

FORMAT = 2  # 1 had sums of scalars only, see `Head.from_config`
# no tensor decides an `if` here, and AutoGraph's rewriting of Python takes a third of a trace's time
plain_tensorflow = tf.autograph.experimental.do_not_convert


Kind = TypeVar("Kind", bound="PropertyModel")


class PropertyModel(tf.keras.Model):
    """Model, head and units: raw atomic numbers and positions -> properties and forces.

    `predictor({"Z": Z, "R": R})` is TensorFlow from atoms to named properties, for layers around it and for export.
    `compute(graph)` is its core, which is also what is trained.

    Parameters
    ----------
    model_name, hyperparameters : as `build_model`
    head : turns the atoms' scalars and vectors into properties; how many of each the model gives follows from it
    elements : atomic numbers that the training data contained; others are refused
    dtype : "float32", "float64", "mixed_bfloat16" (float32 with the wide dense layers in bfloat16), or "tensorfloat32"
        (float32 whose matrix products NVIDIA cards compute in TensorFloat-32, see `dimenet_tf.models.precision`)
    energy : the target whose negative gradient are the forces; None for a predictor without forces
    domain : what it was trained on; None where that is not recorded

    Raises
    ------
    UserError
        If `energy` is not a target, is not predicted by a sum or mean head, or is not in eV.
    """

    def __init__(
        self,
        model_name: str,
        hyperparameters: Mapping,
        head: Head,
        elements: Sequence[int],
        dtype: str = "float32",
        energy: str | None = None,
        domain: Domain | None = None,
    ) -> None:
        check_choice("precision", dtype, PRECISIONS)
        # of positions, forces and weights; dense layers may have another one. Keras must not cast positions before they
        # are relative to their centroid
        super().__init__(dtype=tf.keras.mixed_precision.Policy(policy_of(dtype)).variable_dtype, autocast=False)
        if energy is not None:
            check_energy(head, energy)
        self.precision = dtype
        self.model_name = find_model(model_name)
        self.model = build_model(model_name, dtype=dtype, **hyperparameters)
        self.head = head
        self.elements = sorted(int(z) for z in elements)
        self.energy = energy
        self.domain = domain
        self.built = True  # the model has its weights
        self._kept_per_edge = functools.cache(self.model.kept_per_edge)  # looks at every layer, asked for at each call
        signature = graph_signature(self.dtype, self.model.needs)
        self.graph_function = tf.function(self._compute_with_domain, input_signature=[signature])
        self._curvature = tf.function(self._curvature_along, input_signature=[signature, signature.positions])

    def __repr__(self) -> str:
        what = describe_predictor(self.model_name, self.units, self.elements)
        return f"Predictor({what}; {self.count_params()} parameters; {self.precision})"

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> dict[str, tf.Tensor]:
        if not isinstance(inputs, Mapping) or not {"Z", "R"} <= set(inputs):
            raise UserError(
                "a call of a predictor takes {'Z': (B, A), 'R': (B, A, 3)}, got "
                f"{list(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__}. "
                "Molecules in other forms are predicted by predictor.predict(molecules)"
            )
        if tf.convert_to_tensor(inputs["Z"]).shape.rank == 1:
            raise UserError(
                "a call of a predictor takes molecules along the first axis, 'Z': (B, A) and 'R': (B, A, 3), got 'Z': "
                f"{tf.convert_to_tensor(inputs['Z']).shape}. predictor.predict takes one molecule, too"
            )
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Mapping[str, tf.Tensor], max_atoms: int = 1000) -> dict[str, tf.Tensor]:
        """Predict zero-padded molecules with TensorFlow alone.

        Parameters
        ----------
        inputs : {"Z": (B, A) int32, "R": (B, A, 3), Angstrom}, padded with Z = 0 after each molecule's atoms
        max_atoms : of a molecule

        Returns
        -------
        dict from each property's name to (B,) float64, (B, 3) of vectors and (B, 3, 3) of tensors, and "forces"
        (B, A, 3), zero for padding, where there are forces; "in_domain" (B,) bool, see `Domain`, where it is recorded

        Raises
        ------
        tf.errors.InvalidArgumentError
            For molecules that cannot be predicted; names them and the reason.
        """
        return self._predict_padded(inputs, max_atoms)  # Keras reads the signature of `call`, which decorators hide

    @plain_tensorflow
    def _predict_padded(self, inputs: Mapping[str, tf.Tensor], max_atoms: int) -> dict[str, tf.Tensor]:
        padded = tf.cast(inputs["Z"], tf.int32)
        Z, R, num_atoms = ingraph.unpad(padded, tf.convert_to_tensor(inputs["R"]))
        graph = self.make_graph(Z, R, num_atoms, max_atoms)
        prediction = self._compute_with_domain(graph)
        named = self.named(prediction)
        if self.energy is not None:
            named["forces"] = ingraph.pad(prediction.forces, padded)
        if self.domain is not None:
            named["in_domain"] = prediction.in_domain
        return named

    def make_graph(
        self,
        Z: tf.Tensor,
        R: tf.Tensor,
        num_atoms: tf.Tensor,
        max_atoms: int | None = None,
        edges: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> Graph:
        """Check and center molecules and find their neighbors, with TensorFlow alone.

        Parameters
        ----------
        Z, R : (atoms,) int32, (atoms, 3) in any dtype, Angstrom
        num_atoms : (molecules,) int32
        max_atoms : larger molecules are refused; None for no limit
        edges : sources and targets, where a client has them

        Raises
        ------
        tf.errors.InvalidArgumentError
            For molecules that cannot be predicted; names them and the reason.
        """
        Z, R, num_atoms = ingraph.check_atoms(Z, R, num_atoms, self.elements, max_atoms)
        if self.domain is not None and self.domain.has_undetermined:
            molecules = tf.size(num_atoms)
            molecule = tf.repeat(tf.range(molecules), num_atoms)
            unknown = "the training data do not determine the reference energies of its composition: molecule"
            bad = self.domain.undetermined(Z, molecule, molecules)
            Z, R, num_atoms = ingraph.after([ingraph.refuse(bad, unknown)], Z, R, num_atoms)
        R = tf.cast(ingraph.center(R, num_atoms), self.dtype)
        if edges is None:
            found = find_edges_tensorflow(R, num_atoms, self.model.cutoff)
        else:
            found = ingraph.sort_edges(*edges, R, num_atoms, self.model.cutoff)
        R = ingraph.check_distances(Z, R, num_atoms, found, self.model.cutoff)
        return build_graph_tensorflow(Z, R, num_atoms, found, self.model.cutoff, self.model.needs)

    def named(self, prediction: Prediction) -> dict[str, Array]:
        """Return the properties by name, forces as they are."""
        named = self.head.columns.split(prediction.values)
        return named if self.energy is None else {**named, "forces": prediction.forces}

    def predict_graph(self, graph: Graph) -> Prediction:
        """Predict the molecules of a graph by `compute` as a `tf.function`, which is traced once for all sizes.

        Raises
        ------
        UserError
            For a graph that does not fit the model (see `Hyperparameters.check_graph`).
        """
        self.model.check_graph(graph)
        return self.graph_function(graph.only(self.model.needs))

    @plain_tensorflow
    def _compute_with_domain(self, graph: Graph) -> Prediction:
        """Compute a graph that was checked before, and whether its molecules lie in the domain."""
        graph = graph._replace(cutoff=self.model.cutoff)  # a constant saves an assertion
        prediction = self.compute(graph)
        return prediction if self.domain is None else prediction._replace(in_domain=self.domain.contains(graph))

    @plain_tensorflow
    def compute(self, graph: Graph) -> Prediction:
        """Predict the molecules of a graph."""
        if self.energy is None or self.model.direct_forces:
            outputs = self.model(graph)
            shares = self.head.shares(outputs, graph)
            none = tf.zeros([0, 3], self.dtype)
            forces = none if self.energy is None else self.head.direct_forces(outputs, self.energy)
            return Prediction(*self.head.values(shares, graph), forces)
        positions = tf.convert_to_tensor(graph.positions)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(positions)
            graph = graph._replace(positions=positions)
            shares = self.head.shares(self.model(graph), graph)
            energy = shares[self.energy]  # alone, so that nothing else is gone back through
        gradient = tape.gradient(energy, positions, unconnected_gradients="zero")  # of the sum over atoms and molecules
        return Prediction(*self.head.values(shares, graph), forces=-tf.convert_to_tensor(gradient))

    def _curvature_along(self, graph: Graph, direction: tf.Tensor) -> tf.Tensor:
        """Return the Hessian of the energy times a direction, (atoms, 3)."""
        positions = tf.convert_to_tensor(graph.positions)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(positions)
            slope = -tf.reduce_sum(self.compute(graph._replace(positions=positions)).forces * direction)
        return tf.convert_to_tensor(tape.gradient(slope, positions, unconnected_gradients="zero"))

    @property
    def admission(self) -> Admission:
        """Check that molecules pass before they are predicted."""
        return Admission(self.elements, self.model.cutoff, self.domain)

    @property
    def units(self) -> dict[str, str]:
        """Unit of every property by name."""
        forces = {} if self.energy is None else {"forces": "eV/Ang"}
        return {**dict(zip(self.head.targets, self.head.units)), **forces}

    def graph_store(self, N: np.ndarray, Z: np.ndarray, R: np.ndarray) -> GraphStore:
        """Find the neighbors of molecules given as flat arrays (see `Hyperparameters.graph_store`)."""
        return self.model.graph_store(N, Z, R)

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save in Keras' format, to be read by `tf.keras.models.load_model`: `predictor.save("my.keras")`."""
        if Path(filepath).suffix != ".keras":
            raise UserError(f"{filepath}: Keras' format is saved as NAME.keras, a SavedModel is written by `export`")
        super().save(filepath, *args, **kwargs)

    def get_config(self) -> dict:
        """Return everything but weights; `from_config` and `tf.keras.models.load_model` make a predictor of it."""
        return {
            "model": {"name": self.model_name, **self._model_config()},
            "dtype": self.precision,
            "elements": self.elements,
            "energy": self.energy,
            "domain": None if self.domain is None else self.domain.get_config(),
            "head": self.head.get_config(),
        }

    @classmethod
    def from_config(cls: type[Kind], config: Mapping, custom_objects: Mapping | None = None) -> Kind:
        hyperparameters = dict(config["model"])
        return cls(
            hyperparameters.pop("name"),
            hyperparameters,
            Head.from_config(config["head"]),
            config["elements"],
            config["dtype"],
            config.get("energy"),  # older files have neither
            Domain.from_config(config["domain"]) if config.get("domain") else None,
        )

    def to_folder(self, folder: str | Path) -> None:
        """Write the predictor: `predictor.json` (everything but weights) and `weights.h5`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.model, folder / WEIGHTS)
        (folder / DESCRIPTION).write_text(json.dumps({"format": FORMAT, **self.get_config()}, indent=1))

    def _model_config(self) -> dict:
        return {k: v for k, v in self.model.get_config().items() if k not in ("name", "dtype")}
