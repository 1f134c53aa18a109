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
from dimenet_tf.layers.output import AtomOutputs
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
    periodic : whether it may predict periodic structures, if the domain is not recorded

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
        periodic: bool = False,
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
        self.periodic = periodic
        self.built = True  # the model has its weights
        self._kept_per_edge = functools.cache(self.model.kept_per_edge)  # looks at every layer, asked for at each call
        without, with_cells = (graph_signature(self.dtype, self.model.needs, cells) for cells in (False, True))
        self.graph_function = tf.function(self._compute_with_domain, input_signature=[without])
        self.cell_function = tf.function(self._compute_with_domain, input_signature=[with_cells])
        self._curvature = tf.function(self._curvature_along, input_signature=[without, without.positions])

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
        inputs : {"Z": (B, A) int32, "R": (B, A, 3), Angstrom}, padded with Z = 0 after each molecule's atoms; with
            cells also "cell" (B, 3, 3), Angstrom, zero for molecules, and "pbc" (B, 3) bool
        max_atoms : of a molecule

        Returns
        -------
        dict from each property's name to (B,) float64, (B, 3) of vectors and (B, 3, 3) of tensors, and "forces"
        (B, A, 3), zero for padding, where there are forces; "stress" (B, 3, 3) with cells, see `Prediction`;
        "in_domain" (B,) bool, see `Domain`, where it is recorded

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
        cells = None
        if "cell" in inputs:
            pbc = tf.cast(inputs["pbc"], tf.bool) if "pbc" in inputs else tf.reduce_any(inputs["cell"] != 0, axis=2)
            cells = tf.convert_to_tensor(inputs["cell"]), pbc
        prediction = self._compute_with_domain(self.make_graph(Z, R, num_atoms, max_atoms, cells=cells))
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
        edges: Sequence[tf.Tensor] | None = None,
        cells: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> Graph:
        """Check and center molecules and find their neighbors, with TensorFlow alone.

        Parameters
        ----------
        Z, R : (atoms,) int32, (atoms, 3) in any dtype, Angstrom
        num_atoms : (molecules,) int32
        max_atoms : larger molecules are refused; None for no limit
        edges : sources and targets, and with cells the images of the sources, where a client has them
        cells : (molecules, 3, 3), Angstrom, zero for molecules, and the periodic directions (molecules, 3); None for
            molecules alone

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
        lattice = None if cells is None else ingraph.check_cells(*cells, num_atoms)
        if lattice is not None and not self.takes_cells:
            periodic = tf.reduce_any(lattice.pbc, axis=1)
            R = ingraph.after(
                [ingraph.refuse(periodic, "is periodic; the model was trained on molecules: molecule")], R
            )[0]
        R, offsets = ingraph.center(R, num_atoms, lattice)
        R = tf.cast(R, self.dtype)
        cutoff, far_cutoff = self.model.cutoff, self.model.far_cutoff
        if lattice is not None:
            R = ingraph.check_points(R, num_atoms, max(self.model.cutoffs), lattice)
        if edges is None:
            found = find_edges_tensorflow(R, num_atoms, cutoff, lattice)
        elif lattice is None or offsets is None:
            found = ingraph.sort_edges(edges[0], edges[1], R, num_atoms, cutoff)
        else:  # images as the client means them, of atoms that were not yet in the cell
            source, target, image = edges
            inside = ingraph.images_of_wrapped(source, target, image, offsets)
            found = ingraph.sort_edges(source, target, R, num_atoms, cutoff, lattice, inside)
        R = ingraph.check_distances(Z, R, num_atoms, found, cutoff, lattice)
        far = find_edges_tensorflow(R, num_atoms, far_cutoff, lattice) if far_cutoff is not None else None
        cell = None if lattice is None else lattice.cell
        return build_graph_tensorflow(Z, R, num_atoms, found, cutoff, self.model.needs, cell, far, far_cutoff)

    def named(self, prediction: Prediction) -> dict[str, Array]:
        """Return the properties by name, with forces, stress and `neighbors_dropped` as they are."""
        named = self.head.columns.split(prediction.values)
        if self.energy is not None:
            named["forces"] = prediction.forces
        if not isinstance(prediction.stress, tuple):
            named["stress"] = prediction.stress
        if not isinstance(prediction.neighbors_dropped, tuple):
            named["neighbors_dropped"] = prediction.neighbors_dropped
        return named

    def predict_graph(self, graph: Graph) -> Prediction:
        """Predict the molecules of a graph by `compute` as a `tf.function`, which is traced once for all sizes.

        Raises
        ------
        UserError
            For a graph that does not fit the model (see `Hyperparameters.check_graph`).
        """
        self.model.check_graph(graph)
        function = self.cell_function if graph.is_periodic else self.graph_function
        return function(graph.only(self.model.needs))

    @plain_tensorflow
    def _compute_with_domain(self, graph: Graph) -> Prediction:
        """Compute a graph that was checked before, and whether its molecules lie in the domain."""
        graph = graph._replace(cutoff=self.model.cutoff)  # constants save assertions
        if self.model.far_cutoff is not None:
            graph = graph._replace(far_cutoff=self.model.far_cutoff)
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
            return self._with_dropped(Prediction(*self.head.values(shares, graph), forces), outputs, graph)
        positions = tf.convert_to_tensor(graph.positions)
        strain = tf.zeros([tf.shape(graph.num_atoms)[0], 3, 3], positions.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([positions, strain])
            graph = graph._replace(positions=positions)
            outputs = self.model(strained(graph, strain) if graph.is_periodic else graph)
            shares = self.head.shares(outputs, graph)
            energy = shares[self.energy]  # alone, so that nothing else is gone back through
        # of the sum over atoms and molecules, in one pass
        gradient, virial = tape.gradient(energy, [positions, strain], unconnected_gradients="zero")
        prediction = Prediction(*self.head.values(shares, graph), forces=-tf.convert_to_tensor(gradient))
        prediction = self._with_dropped(prediction, outputs, graph)
        return prediction._replace(stress=stress_of(virial, graph.cell)) if graph.is_periodic else prediction

    def _with_dropped(self, prediction: Prediction, outputs: AtomOutputs, graph: Graph) -> Prediction:
        """Add the number of neighbors that a limit left out, if the model has one."""
        if not self.limits_neighbors:
            return prediction
        molecules = tf.shape(graph.num_atoms)[0]
        dropped = tf.math.unsorted_segment_sum(outputs.dropped, graph.molecule_of_atom, molecules)
        return prediction._replace(neighbors_dropped=tf.cast(dropped, tf.int32))

    @property
    def limits_neighbors(self) -> bool:
        """Whether the model leaves out all but the nearest neighbors of an atom (`max_neighbors`)."""
        return self.model.max_neighbors > 0

    def _curvature_along(self, graph: Graph, direction: tf.Tensor) -> tf.Tensor:
        """Return the Hessian of the energy times a direction, (atoms, 3)."""
        positions = tf.convert_to_tensor(graph.positions)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(positions)
            slope = -tf.reduce_sum(self.compute(graph._replace(positions=positions)).forces * direction)
        return tf.convert_to_tensor(tape.gradient(slope, positions, unconnected_gradients="zero"))

    @property
    def takes_cells(self) -> bool:
        """Whether periodic structures may be predicted: whether some were trained on."""
        return self.periodic if self.domain is None else self.domain.periodic

    @property
    def admission(self) -> Admission:
        """Check that molecules pass before they are predicted."""
        return Admission(self.elements, self.model.cutoff, self.domain, self.takes_cells)

    @property
    def units(self) -> dict[str, str]:
        """Unit of every property by name."""
        forces = {} if self.energy is None else {"forces": "eV/Ang"}
        stress = {"stress": "eV/Ang^3"} if self.has_stress else {}
        return {**dict(zip(self.head.targets, self.head.units)), **forces, **stress}

    @property
    def has_stress(self) -> bool:
        """Whether the stress of periodic structures is predicted: for models trained on some, with gradient forces."""
        return self.takes_cells and self.energy is not None and not self.model.direct_forces

    def graph_store(
        self,
        N: np.ndarray,
        Z: np.ndarray,
        R: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> GraphStore:
        """Find the neighbors of molecules given as flat arrays (see `Hyperparameters.graph_store`)."""
        return self.model.graph_store(N, Z, R, cell, pbc)

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
            "periodic": self.periodic,
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
            config.get("periodic", False),
        )

    def to_folder(self, folder: str | Path) -> None:
        """Write the predictor: `predictor.json` (everything but weights) and `weights.h5`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.model, folder / WEIGHTS)
        (folder / DESCRIPTION).write_text(json.dumps({"format": FORMAT, **self.get_config()}, indent=1))

    def _model_config(self) -> dict:
        return {k: v for k, v in self.model.get_config().items() if k not in ("name", "dtype")}


def strained(graph: Graph, strain: tf.Tensor) -> Graph:
    """Return a graph whose structures are deformed: positions and cells, as rows, times 1 + strain.

    Parameters
    ----------
    graph : with cells
    strain : (molecules, 3, 3)
    """
    of_atoms = tf.gather(strain, graph.molecule_of_atom)  # (atoms, 3, 3)
    moved = graph.positions + tf.squeeze(graph.positions[:, None] @ of_atoms, axis=1)
    return graph._replace(positions=moved, cell=graph.cell + graph.cell @ strain)


def stress_of(virial: tf.Tensor, cell: tf.Tensor) -> tf.Tensor:
    """Return dE/dstrain over the volume of each cell, symmetric, (molecules, 3, 3); NaN without a volume."""
    volume = tf.abs(tf.linalg.det(cell))[:, None, None]
    symmetric = (virial + tf.transpose(virial, [0, 2, 1])) / 2
    none = volume == 0
    nan = tf.constant(float("nan"), virial.dtype)
    return tf.where(none, nan, symmetric / tf.where(none, tf.ones_like(volume), volume))
