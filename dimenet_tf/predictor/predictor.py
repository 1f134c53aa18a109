"""Trained models: prediction of molecules in any form, second derivatives, folders and exports."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dimenet_tf.errors import UserError
from dimenet_tf.graph import GraphStore
from dimenet_tf.models import MODELS
from dimenet_tf.models.hyperparameters import hyperparameters
from dimenet_tf.predictor import serving
from dimenet_tf.predictor.property_model import FORMAT, PropertyModel
from dimenet_tf.predictor.watch import DomainWatch
from dimenet_tf.predictor.weights import load_weights
from dimenet_tf.properties.prediction import Prediction, join_predictions
from dimenet_tf.runs.catalog import DESCRIPTION, WEIGHTS, find_predictor, read_description
from dimenet_tf.structures.inputs import is_one_molecule, read_molecules
from dimenet_tf.structures.molecules import Molecules

if TYPE_CHECKING:
    from ase import Atoms

OPTIONS = ("aggregation", "recompute")  # hyperparameters that change no number
MEMORY = 4e9  # bytes that a batch may keep for its gradient before it is made smaller than it was asked for


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class Predictor(PropertyModel):
    """Trained model with property heads and units, which can predict, be saved and be exported.

    `predict` takes molecules in any form and finds their neighbors on the host. `PropertyModel` documents the
    parameters and `predictor({"Z": Z, "R": R})`, which is TensorFlow from atoms to named properties.

    Examples
    --------
    >>> import dimenet_tf
    >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
    >>> predictor.units
    {'energy': 'eV', 'forces': 'eV/Ang'}
    >>> predictor
    Predictor(dimenet_pp: energy in eV, forces in eV/Ang; H, C, O; ... parameters; float32)
    """

    def predict_store(
        self,
        store: GraphStore,
        molecules: np.ndarray,
        batch_size: int = 32,
        before_batch: Callable[[], None] | None = None,
    ) -> Prediction:
        """Predict some molecules of a store, whose neighbors are known.

        Parameters
        ----------
        store : from `graph_store`
        molecules : (n,) int, positions in the store
        batch_size : molecules computed at once
        before_batch : called before every batch; may end the prediction by an exception

        Returns
        -------
        Prediction
            NumPy arrays in the order of `molecules`

        Examples
        --------
        >>> import dimenet_tf
        >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> frames = dimenet_tf.data.ethanol_xtb().select([0, 1, 2])
        >>> store = predictor.graph_store(frames.N, frames.Z, frames.R)
        >>> predictor.predict_store(store, [2, 0]).forces.shape  # (atoms of both, 3)
        (18, 3)
        """
        parts = []
        for batch in self.batches(store, np.asarray(molecules), batch_size):
            if before_batch is not None:
                before_batch()
            parts.append(self.predict_graph(store.batch(batch)))
        return self._join(parts)

    def batches(self, store: GraphStore, molecules: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Yield batches of `batch_size` molecules, or of fewer where these would take gigabytes.

        Examples
        --------
        >>> import dimenet_tf
        >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> frames = dimenet_tf.data.ethanol_xtb().select([0, 1, 2])
        >>> store = predictor.graph_store(frames.N, frames.Z, frames.R)
        >>> [batch.tolist() for batch in predictor.batches(store, np.arange(3), 2)]
        [[0, 1], [2]]
        """
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
        """Concatenate predictions, also of no batch, into NumPy arrays."""
        nothing = np.empty((0, self.head.columns.width))
        inside = () if self.domain is None else np.empty(0, bool)
        dropped = np.empty(0, np.int32) if self.limits_neighbors else ()
        none = Prediction(nothing, nothing, np.empty((0, 3), self.dtype), (), inside, dropped)
        return join_predictions([none, *parts])

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        steps: int | None = None,
        domain: str = "flag",
        length_unit: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Predict the properties of molecules.

        Parameters
        ----------
        x : {"Z": (B, A) int, "R": (B, A, 3) float, Angstrom}, padded with Z = 0 after each molecule's atoms, or
            ragged, with charge and spin (B,) where they are known, and with cell (B, 3, 3), Angstrom, and pbc (B, 3) of
            periodic structures;
            or a `tf.data.Dataset` of such batches, or `ase.Atoms` in a list (or generator), or the name of a file:
            extended XYZ, npz with N, Z and R, or what else ASE reads;
            or one molecule: an `ase.Atoms` or {"Z": (A,), "R": (A, 3)}
        batch_size : molecules computed at once, 32 by default; fewer if large molecules would need some gigabytes
        verbose : 1 shows a progress bar, "auto" shows it in a terminal
        steps : number of batches to predict, for a data set that repeats; all by default
        domain : "flag" marks molecules outside of the model's domain in the result, "error" refuses them
        length_unit : of the positions: "Ang", "a0", "nm" or "pm". Without it they are taken as Angstrom, unless their
            bonds have the length that they would have in another unit.

        Returns
        -------
        dict from each property's name to (B,) float64, (B, 3) for vectors and (B, 3, 3) for tensors, and "forces"
        (B, A, 3) if the predictor has them, zero for padding; in `units`. "stress", (B, 3, 3) eV/Angstrom^3, symmetric
        and positive under tension, if a structure is periodic and forces are the gradient of an energy; NaN for
        molecules. "in_domain", (B,) bool, marks molecules
        inside of the model's domain, if that is recorded (see `dimenet_tf.predictor.domain.Domain`).
        "neighbors_dropped", (B,) int32, counts the pairs within the cutoff that a model with `max_neighbors` left out.
        For one molecule the arrays have no axis B.

        Raises
        ------
        UserError
            For coordinates that are not finite or too far from the origin for their dtype, atoms closer than 0.3
            Angstrom, positions in another unit, elements that the training data did not contain, compositions whose
            reference energies they do not determine, charges or spins other than theirs, periodic structures if they
            hold none, flat cells, molecules without atoms, or arrays that do not fit each other; names the molecule.

        Examples
        --------
        >>> import dimenet_tf
        >>> from ase.build import molecule
        >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> predicted = predictor.predict([molecule("CH3CH2OH")])
        >>> predicted["energy"].round(1), predicted["in_domain"]
        (array([-310.]), array([ True]))
        >>> predictor.predict(molecule("CH3CH2OH"))["forces"].shape  # one molecule
        (9, 3)
        """
        batch_size = 32 if batch_size is None else batch_size
        for name, value in (("batch_size", batch_size), ("steps", steps)):
            if value is not None and value < 1:
                raise UserError(f"{name} = {value} must be at least 1")
        if is_one_molecule(x):
            x = {name: np.asarray(value)[None] for name, value in x.items()} if isinstance(x, Mapping) else [x]
            predicted = self.predict(x, batch_size, verbose, domain=domain, length_unit=length_unit)
            return {name: value[0] for name, value in predicted.items()}
        if steps is not None and isinstance(x, tf.data.Dataset):
            x, steps = x.take(steps), None  # its elements are the batches
        watch = DomainWatch(self.domain, self.model.cutoff, domain)
        sizes, width, parts = [np.empty(0, int)], 0, []
        hidden = None if verbose == "auto" else not verbose  # tqdm: None hides the bar outside of a terminal
        with tqdm(unit="molecule", disable=hidden, dynamic_ncols=True) as bar:
            for some in itertools.islice(read_molecules(x, batch_size), steps):
                first = sum(map(len, sizes))
                width = max(width, some.width)
                if len(some.N) == 0:
                    continue
                some = self.admission.admit(some, first, length_unit)
                part = self.predict_admitted(some, batch_size)
                if domain == "error":
                    watch.look(part.in_domain, some.N, some.Z, some.R, first, cells=some.cells)
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

    def predict_admitted(self, molecules: Molecules, batch_size: int) -> Prediction:
        """Predict molecules that `Admission.admit` has returned; see `predict_store`.

        Examples
        --------
        >>> from ase.build import molecule
        >>> import dimenet_tf
        >>> from dimenet_tf.structures.molecules import join_atoms
        >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> molecules = predictor.admission.admit(join_atoms([molecule("CH3CH2OH")]))
        >>> predictor.predict_admitted(molecules, 32).forces.shape
        (9, 3)
        """
        store = self.graph_store(molecules.N, molecules.Z, molecules.R, *molecules.cell_arrays())
        return self.predict_store(store, np.arange(len(molecules.N)), batch_size)

    def hessian(self, atoms: Atoms) -> np.ndarray:
        """Second derivatives of the energy of one molecule, analytic and at any geometry.

        `ase.vibrations.VibrationsData.from_2d(atoms, hessian)` gives the frequencies.

        Returns
        -------
        (3 atoms, 3 atoms) float64, eV/Angstrom^2

        Raises
        ------
        UserError
            If the predictor has no forces (see `with_forces`), and as `predict`.

        Examples
        --------
        >>> import dimenet_tf
        >>> from ase.build import molecule
        >>> hessian = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").hessian(molecule("CH3CH2OH"))
        >>> hessian.shape, bool((hessian == hessian.T).all())
        ((27, 27), True)
        """
        if self.energy is None:
            raise UserError("this model has no forces: with_forces(target) makes them of one of its energies")
        if self.model.direct_forces:
            raise UserError("this model's forces are no gradient of an energy (direct_forces): it has no Hessian")
        (molecule,) = read_molecules([atoms], 1)
        molecule = self.admission.admit(molecule)
        if molecule.cells is not None:
            raise UserError("the Hessian is that of a molecule; phonopy computes the phonons of a crystal from forces")
        store, size = self.graph_store(*molecule[:3]), 3 * len(molecule.R)
        directions = np.eye(size, dtype=self.dtype).reshape(size, -1, 3)
        columns = []
        for start in range(0, size, 32):  # copies of the molecule in one batch, a direction each
            part = directions[start : start + 32]
            product = self._curvature(store.batch([0] * len(part)), part.reshape(-1, 3))
            columns.append(product.numpy().reshape(len(part), size))
        hessian = np.concatenate(columns).astype(np.float64)
        return (hessian + hessian.T) / 2

    def export(self, path: str | Path, max_atoms: int = 1000, domain: str = "flag") -> None:
        """Write a SavedModel for TensorFlow Serving; see `dimenet_tf.predictor.serving.export`.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> import tensorflow as tf
        >>> import dimenet_tf
        >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> frame = dimenet_tf.data.ethanol_xtb().select([0])
        >>> Z, R = tf.constant(frame.Z[None], tf.int32), tf.constant(frame.R[None], tf.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     predictor.export(f"{folder}/1")
        ...     served = tf.saved_model.load(f"{folder}/1").signatures["serving_default"](Z=Z, R=R)
        >>> bool(np.allclose(served["energy"], predictor.predict({"Z": Z, "R": R})["energy"]))
        True
        """
        serving.export(self, path, max_atoms, domain)

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> Predictor:
        """Read a predictor that `to_folder` wrote; options as for `load`.

        Examples
        --------
        >>> import tempfile
        >>> import dimenet_tf
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").to_folder(folder)
        ...     Predictor.from_folder(folder).energy
        'energy'
        """
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
        """Copy the predictor and its weights, on request in another dtype.

        Examples
        --------
        >>> import dimenet_tf
        >>> dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").clone("float64").precision
        'float64'
        """
        return self._twin(dtype or self.precision, self.energy)

    def with_forces(self, energy: str) -> Predictor:
        """Copy the predictor and let its forces be the negative gradient of a target, which was trained without them.

        Examples
        --------
        >>> import dimenet_tf
        >>> dimenet_tf.load("dimenet_pp-sample-U0").with_forces("U0").units
        {'U0': 'eV', 'forces': 'eV/Ang'}
        """
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
    **options : override `aggregation` or `recompute` of the model; these affect speed and memory, not results

    Raises
    ------
    UserError
        For a path without a model, damaged files, unknown options, or options that the model does not support.

    Examples
    --------
    >>> import dimenet_tf
    >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces", aggregation="triplets")
    >>> predictor.model.aggregation
    'triplets'
    """
    return Predictor.from_folder(find_predictor(path), **options)
