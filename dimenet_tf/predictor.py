"""What users hold: a model with its head, its units and everything else that a prediction needs."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dimenet_tf.admission import Admission
from dimenet_tf.data.inputs import read_molecules
from dimenet_tf.domain import Domain, DomainWatch
from dimenet_tf.errors import UserError
from dimenet_tf.folders import DESCRIPTION, WEIGHTS, describe_predictor, find_predictor, read_description
from dimenet_tf.graph import Graph, GraphStore, graph_signature, ingraph
from dimenet_tf.heads import Head, check_energy
from dimenet_tf.models import MODELS, PRECISIONS, build_model, find_model
from dimenet_tf.models.hyperparameters import hyperparameters
from dimenet_tf.weights import load_weights, save_weights

if TYPE_CHECKING:
    from ase import Atoms

FORMAT = 2  # 1 had sums of scalars only, see `Head.from_config`
OPTIONS = ("aggregation", "recompute")  # hyperparameters that change no number
MEMORY = 4e9  # bytes that a batch may keep for its gradient before it is made smaller than it was asked for
Array = Union[np.ndarray, tf.Tensor]
# no tensor decides an `if` here, and AutoGraph's rewriting of Python takes a third of a trace's time
plain_tensorflow = tf.autograph.experimental.do_not_convert


class Prediction(NamedTuple):
    """What a predictor says about a batch of molecules."""

    values: Array
    """(molecules, columns) float64, in the targets' units: see `Columns`, `Predictor.named` splits them."""
    shares: Array
    """(atoms, columns) float64: what each atom contributes to them; their sums are `values`."""
    forces: Array
    """(atoms, 3), eV/Angstrom; no rows where the predictor has no forces."""
    in_domain: Array | tuple = ()
    """(molecules,) bool, see `Domain`; () in training and for a predictor that does not record its domain."""


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class Predictor(tf.keras.Model):
    """Model, head and units: raw atomic numbers and positions -> properties and forces.

    `predictor({"Z": Z, "R": R})` is TensorFlow from atoms to named properties, for layers around it and for export;
    `predict` does the same for molecules in any form, with neighbors found on the host; `compute(graph)` is the core of
    both and what is trained.

    Parameters
    ----------
    model_name, hyperparameters : as `build_model`
    head : turns the atoms' scalars and vectors into properties; how many of each the model gives follows from it
    elements : atomic numbers that the training data contained; others are refused
    dtype : "float32", "float64", or "mixed_bfloat16": float32 with the wide dense layers in bfloat16
    energy : the target whose negative gradient are the forces; None for a predictor without forces
    domain : what it was trained on; None where that is not recorded

    Raises
    ------
    UserError
        For an energy that is none: no target, no sum or mean of scalars, or not in eV.
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
        if dtype not in PRECISIONS:
            raise UserError(f"precision: '{dtype}' is none of {', '.join(PRECISIONS)}")
        # of positions, forces and weights; dense layers may have another one. Keras must not cast positions before they
        # are relative to their centroid
        super().__init__(dtype=tf.keras.mixed_precision.Policy(dtype).variable_dtype, autocast=False)
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

    def call(self, inputs: Mapping[str, tf.Tensor], max_atoms: int = 1000) -> dict[str, tf.Tensor]:
        """Predict zero-padded molecules with TensorFlow alone.

        Parameters
        ----------
        inputs : {"Z": (B, A) int32, "R": (B, A, 3), Angstrom}, padded with Z = 0 behind each molecule's atoms
        max_atoms : of a molecule

        Returns
        -------
        dict from each property's name to (B,) float64, (B, 3) of vectors and (B, 3, 3) of tensors, and "forces"
        (B, A, 3), zero for padding, where there are forces; "in_domain" (B,) bool, see `Domain`, where it is recorded

        Raises
        ------
        tf.errors.InvalidArgumentError
            For molecules that cannot be predicted; says why and which.
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
            For molecules that cannot be predicted; says why and which.
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
            found = ingraph.find_edges(R, num_atoms, self.model.cutoff)
        else:
            found = ingraph.sort_edges(*edges, R, num_atoms, self.model.cutoff)
        R = ingraph.check_distances(Z, R, num_atoms, found, self.model.cutoff)
        return ingraph.complete_graph(Z, R, num_atoms, found, self.model.cutoff, self.model.needs)

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

    def predict_store(
        self,
        store: GraphStore,
        molecules: np.ndarray,
        batch_size: int = 32,
        before_batch: Callable[[], None] | None = None,
    ) -> Prediction:
        """Predict some molecules of a store; NumPy arrays in the order of `molecules`.

        `before_batch` is called before every batch and may end the prediction by an exception.
        """
        parts = []
        for batch in self._batches(store, np.asarray(molecules), batch_size):
            if before_batch is not None:
                before_batch()
            parts.append(self.predict_graph(store.batch(batch)))
        return self._join(parts)

    def _batches(self, store: GraphStore, molecules: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Yield batches of `batch_size` molecules, or of fewer where these would take more than `MEMORY`."""
        edges, atoms = (store.sizes(of)[molecules] for of in ("edges", "atoms"))
        kept = self._kept_per_edge(math.ceil((edges / atoms).max(initial=0)))
        most = MEMORY / (tf.as_dtype(self.dtype).size * kept)  # edges
        start = total = 0
        for i, more in enumerate(edges):
            if i - start == batch_size or (i > start and total + more > most):
                yield molecules[start:i]
                start, total = i, 0
            total += more
        if start < len(molecules):
            yield molecules[start:]

    def _join(self, parts: Sequence[Prediction]) -> Prediction:
        """Return predictions behind each other, as NumPy arrays."""
        nothing = np.empty((0, self.head.columns.width))
        inside = () if self.domain is None else np.empty(0, bool)
        parts = [Prediction(nothing, nothing, np.empty((0, 3), self.dtype), inside), *parts]
        *columns, insides = zip(*parts)
        values, shares, forces = (np.concatenate([np.asarray(array) for array in arrays]) for arrays in columns)
        in_domain = () if self.domain is None else np.concatenate([np.asarray(i) for i in insides])
        return Prediction(values, shares, forces, in_domain)

    def predict(
        self,
        inputs: Any,
        batch_size: int = 32,
        verbose: int = 0,
        domain: str = "flag",
        length_unit: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Predict the properties of molecules.

        Parameters
        ----------
        inputs : {"Z": (B, A) int, "R": (B, A, 3) float, Angstrom}, padded with Z = 0 after each molecule's atoms, or
            ragged, with charge and spin (B,) where they are known;
            or a `tf.data.Dataset` of such batches, or `ase.Atoms` in a list (or generator), or the name of a file:
            extended XYZ, npz with N, Z and R, or what else ASE reads
        batch_size : molecules computed at once; fewer where they are so large that they would need some gigabytes
        verbose : 1 for a progress bar
        domain : "flag" marks molecules outside of the model's domain in the result, "error" refuses them
        length_unit : of the positions: "Ang", "a0", "nm" or "pm". Without it they are taken as Angstrom, unless their
            bonds have the length that they would have in another unit.

        Returns
        -------
        dict from each property's name to (B,) float64, (B, 3) of vectors and (B, 3, 3) of tensors, and "forces"
        (B, A, 3) where the predictor has them, zero for padding; in `units`. "in_domain", (B,) bool, says which
        molecules lie inside of the model's domain, where that is recorded (see `dimenet_tf.domain.Domain`).

        Raises
        ------
        UserError
            For coordinates that are not finite or too far from the origin for their dtype, atoms closer than 0.3
            Angstrom, positions in another unit, elements that the training data did not contain, compositions whose
            reference energies they do not determine, charges or spins other than theirs, molecules without atoms, or
            arrays that do not fit each other; names the molecule.

        Examples
        --------
        >>> import dimenet_tf
        >>> from ase.build import molecule
        >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> predicted = predictor.predict([molecule("CH3CH2OH")])
        >>> predicted["energy"].round(1), predicted["in_domain"]
        (array([-310.]), array([ True]))
        """
        if batch_size < 1:
            raise UserError(f"batch_size = {batch_size} must be at least 1")
        watch = DomainWatch(self.domain, self.model.cutoff, domain)
        sizes, width, parts = [np.empty(0, int)], 0, []
        with tqdm(unit="molecule", disable=not verbose, dynamic_ncols=True) as bar:
            for some in read_molecules(inputs, batch_size):
                first = sum(map(len, sizes))
                width = max(width, some.width)
                if len(some.N) == 0:
                    continue
                some = self.admission.admit(some, first, length_unit)
                part = self.predict_store(self.graph_store(some.N, some.Z, some.R), np.arange(len(some.N)), batch_size)
                if domain == "error":
                    watch.look(part.in_domain, some.N, some.Z, some.R, first)
                parts.append(part._replace(shares=part.shares[:0]))  # not asked for
                sizes.append(some.N)
                bar.update(len(some.N))
        prediction, N = self._join(parts), np.concatenate(sizes)
        named = self.named(prediction)
        if self.energy is not None:
            named["forces"] = np.zeros((len(N), width, 3), self.dtype)
            named["forces"][np.arange(width) < N[:, None]] = prediction.forces
        if self.domain is not None:
            named["in_domain"] = prediction.in_domain
        return named

    def hessian(self, atoms: Atoms) -> np.ndarray:
        """Return the second derivatives of the energy of one molecule, (3 atoms, 3 atoms) float64, eV/Angstrom^2.

        Analytic, at any geometry. Frequencies: `ase.vibrations.VibrationsData.from_2d(atoms, hessian)`.

        Raises
        ------
        UserError
            Where the predictor has no forces (see `with_forces`), and as `predict`.
        """
        if self.energy is None:
            raise UserError("this model has no forces: with_forces(target) makes them of one of its energies")
        if self.model.direct_forces:
            raise UserError("this model's forces are no gradient of an energy (direct_forces): it has no Hessian")
        (molecule,) = read_molecules([atoms], 1)
        molecule = self.admission.admit(molecule)
        store, size = self.graph_store(*molecule[:3]), 3 * len(molecule.R)
        directions = np.eye(size, dtype=self.dtype).reshape(size, -1, 3)
        columns = []
        for start in range(0, size, 32):  # copies of the molecule in one batch, a direction each
            part = directions[start : start + 32]
            product = self._curvature(store.batch([0] * len(part)), part.reshape(-1, 3))
            columns.append(product.numpy().reshape(len(part), size))
        hessian = np.concatenate(columns).astype(np.float64)
        return (hessian + hessian.T) / 2

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
    def from_config(cls, config: Mapping, custom_objects: Mapping | None = None) -> Predictor:
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

    def export(self, path: str | Path, max_atoms: int = 1000, domain: str = "flag") -> None:
        """Write a SavedModel; see `dimenet_tf.serving.export`."""
        from dimenet_tf.serving import export  # needed here only

        export(self, path, max_atoms, domain)

    def _model_config(self) -> dict:
        return {k: v for k, v in self.model.get_config().items() if k not in ("name", "dtype")}

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> Predictor:
        """Read what `to_folder` wrote; options as `load`."""
        folder = Path(folder)
        description = read_description(folder / DESCRIPTION, FORMAT)
        for key in options:
            known = [option for option in OPTIONS if option in hyperparameters(MODELS[description["model"]["name"]])]
            if key not in known:
                name, options_are = description["model"]["name"], f"; options are {', '.join(known)}" if known else ""
                raise UserError(f"'{key}' is no option of a trained {name}{options_are}")
        description["model"].update(options)
        try:
            predictor = cls.from_config(description)
        except ValueError as error:
            raise UserError(f"{folder}: {error}") from None  # an option that does not fit this model
        load_weights(predictor.model, folder / WEIGHTS)
        return predictor

    def clone(self, dtype: str | None = None) -> Predictor:
        """Return a predictor with the same configuration and weights in variables of its own, in another dtype too."""
        return self._twin(dtype or self.precision, self.energy)

    def with_forces(self, energy: str) -> Predictor:
        """Return a predictor whose forces are the negative gradient of a target, which was not trained for them."""
        return self._twin(self.precision, energy)

    def _twin(self, dtype: str, energy: str | None) -> Predictor:
        twin = self.from_config({**self.get_config(), "dtype": dtype, "energy": energy})
        twin.set_weights(self.get_weights())
        return twin


def load(path: str | Path, **options: Any) -> Predictor:
    """Load a predictor from a run's or a predictor's folder, or a pretrained model by its name.

    Parameters
    ----------
    path : str or Path
    **options : `aggregation` and `recompute` of the model: how it computes, not what

    Raises
    ------
    UserError
        For a path that holds no model, damaged files, options that are none or do not fit the model.
    """
    return Predictor.from_folder(find_predictor(path), **options)
