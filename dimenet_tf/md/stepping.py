"""Structures in motion: force field, neighbor lists and checks, which the calculators share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.graph import Graph, SkinList
from dimenet_tf.md.committee import DESCRIPTION as COMMITTEE
from dimenet_tf.md.committee import Committee, Spread
from dimenet_tf.predictor import Prediction, Predictor, load
from dimenet_tf.predictor.admission import WrongUnit
from dimenet_tf.predictor.watch import DomainWatch
from dimenet_tf.properties.prediction import join_predictions
from dimenet_tf.structures.limits import CLOSEST, FARTHEST, SCATTERED, centered
from dimenet_tf.structures.molecules import Molecules

NOT_PICKLED = "a calculator with a TensorFlow model cannot be pickled: make one in each process, by its path"


def open_force_field(
    model: Predictor | Committee | str | Path | Sequence, energy: str | None, precision: str | None
) -> Predictor | Committee:
    """Return a model with forces; warn if its energies jump.

    Parameters
    ----------
    model, energy, precision : as in `DimeNetCalculator`
    """
    if precision is not None:
        check_choice("precision", precision, ("float32", "float64"))
    force_field = _with_forces(_open(model), energy)
    if precision not in (None, force_field.precision):
        force_field = force_field.clone(precision)
    for reason in sorted({member.model.discontinuity for member in _members(force_field)} - {""}):
        warnings.warn(reason, stacklevel=3)
    return force_field


def _open(model: Predictor | Committee | str | Path | Sequence) -> Predictor | Committee:
    if isinstance(model, (Predictor, Committee)):
        return model
    if isinstance(model, (str, Path)):
        return Committee.from_folder(model) if Path(model, COMMITTEE).exists() else load(model)
    if not isinstance(model, Sequence):
        raise UserError(f"a calculator needs a predictor, a committee, a path or a list of these, not {model!r}")
    return Committee(list(model))


def _with_forces(model: Predictor | Committee, energy: str | None) -> Predictor | Committee:
    if model.energy is not None:
        if energy not in (None, model.energy):
            raise UserError(f"energy = {energy}: the model was trained with the forces of {model.energy}")
        return model
    if energy is not None and isinstance(model, Predictor):
        return model.with_forces(energy)
    raise UserError(
        f"this model predicts {', '.join(model.head.targets)} and was not trained with forces; "
        "DimeNetCalculator(model, energy=NAME) takes one of these for the energy, if that is meant"
    )


def _members(force_field: Predictor | Committee) -> Sequence[Predictor]:
    return force_field.members if isinstance(force_field, Committee) else [force_field]


class Stepper:
    """Evaluation of structures that move a little from step to step, as one batch.

    Structures are checked as `Predictor.predict` checks them: completely where something else than finite positions
    has changed, and by the distances of their neighbors at every step. Where a batch would take gigabytes, it is
    divided as `predict` divides it.

    Parameters
    ----------
    force_field : with forces
    skin : Angstrom, see `SkinList`
    domain : "flag" or "error", see `DimeNetCalculator`
    first : number of the first structure in messages; None for messages without numbers

    Raises
    ------
    UserError
        For a skin that is not positive, and an unknown `domain`.
    """

    def __init__(self, force_field: Predictor | Committee, skin: float, domain: str, first: int | None = None) -> None:
        if skin <= 0:
            raise UserError(f"skin = {skin} must be greater than 0")
        self.force_field, self.skin, self.first = force_field, skin, first
        self.watch = DomainWatch(force_field.domain, force_field.model.cutoff, domain)
        self._admission = force_field.admission
        self._last: Molecules | None = None
        self._parts: list[_Part] = []

    @property
    def searches(self) -> int:
        """Number of neighbor searches of a structure up to now."""
        return sum(part.neighbors.searches for part in self._parts)

    def check(self, molecules: Molecules) -> None:
        """Refuse structures that cannot be predicted, and make the neighbor lists of new ones.

        Raises
        ------
        UserError
            As `Predictor.predict`. Only the bonds of new structures are checked for the unit of length.
        """
        last = self._last
        new = last is None or not _same_atoms(last, molecules)
        if new or not _same_state(last, molecules) or not np.isfinite(molecules.R).all():
            self._admit(molecules, new)
        if new:
            self._parts = [_Part(self.force_field, molecules, some, self.skin) for some in self._batches(molecules)]
        self._last = molecules

    def evaluate(self, molecules: Molecules) -> tuple[Prediction, Spread | None]:
        """Return the prediction for all structures, as NumPy arrays, and a committee's spread.

        Raises
        ------
        UserError
            As `check`, for atoms that have come too close or left each other, and outside of the domain if that is an
            error.
        """
        self.check(molecules)
        R = centered(molecules.N, molecules.R)
        graphs = [part.graph(R, molecules) for part in self._parts]
        if np.abs(molecules.R).max() > FARTHEST["float64"] or any(part.is_suspicious for part in self._parts):
            self._admit(molecules, False)  # raises with the reason
        answers = [part.compute(graph) for part, graph in zip(self._parts, graphs)]
        spread = None
        if isinstance(self.force_field, Committee):
            spread = Spread(*(np.concatenate(arrays) for arrays in zip(*(spread for _, spread in answers))))
            answers = [mean for mean, _ in answers]
        prediction = join_predictions(answers)
        self.watch.look(
            None if self.watch.domain is None else prediction.in_domain,
            molecules.N,
            molecules.Z,
            R,
            self.first,
            stacklevel=7,
            cells=molecules.cells,
        )
        return prediction, spread

    def _admit(self, molecules: Molecules, new: bool) -> None:
        try:
            self._admission.admit(molecules, self.first or 0, length_unit=None if new else "Ang")
        except WrongUnit as error:
            raise UserError(f"{error.fault}; ASE's positions are in Angstrom") from None
        except UserError as error:
            if self.first is None:
                raise UserError(str(error).replace("molecule 0", "the structure", 1)) from None
            raise

    def _batches(self, molecules: Molecules) -> list[np.ndarray]:
        """Return the structures of each batch: all in one, unless that would take too much memory."""
        every = np.arange(len(molecules.N))
        if len(every) == 1:
            return [every]
        store = self.force_field.graph_store(*molecules[:3], *molecules.cell_arrays())
        return list(_members(self.force_field)[0].batches(store, every, len(every)))


class _Part:
    """Neighbors and graph of one batch of consecutive structures.

    Parameters
    ----------
    force_field : with forces
    molecules : all structures
    which : (structures,) int, those of this batch
    skin : Angstrom
    """

    def __init__(
        self, force_field: Predictor | Committee, molecules: Molecules, which: np.ndarray, skin: float
    ) -> None:
        model, cells = force_field.model, molecules.cells
        self._structures = slice(which[0], which[-1] + 1)
        first, N = int(molecules.N[: which[0]].sum()), molecules.N[self._structures]
        self._atoms = slice(first, first + int(N.sum()))
        pbc = None if cells is None else cells.pbc[self._structures]
        self.neighbors = SkinList(
            molecules.Z[self._atoms], model.cutoff, skin, model.needs, force_field.dtype, pbc, model.far_cutoff, N
        )
        periodic = bool(self.neighbors.pbc.any())
        function = force_field.cell_function if periodic else force_field.graph_function
        self.compute = function.get_concrete_function()
        self._source: np.ndarray | None = None  # of the last graph
        self._tensors: Graph  # the last graph

    def graph(self, R: np.ndarray, molecules: Molecules) -> Graph:
        """Return the graph of these structures as tensors.

        Parameters
        ----------
        R : (atoms, 3), Angstrom, of all structures, centered
        molecules : all structures
        """
        cells = molecules.cells
        graph = self.neighbors.graph(R[self._atoms], None if cells is None else cells.cell[self._structures])
        if graph.edge_source is not self._source:
            self._source, self._tensors = graph.edge_source, graph.to_tensors()
            edges = np.bincount(graph.molecule_of_atom[graph.edge_target], minlength=len(graph.num_atoms))
            self._is_scattered = bool(((edges == 0) & (graph.num_atoms >= SCATTERED)).any())
        tensors = self._tensors._replace(positions=tf.constant(graph.positions))
        return tensors._replace(cell=tf.constant(graph.cell)) if graph.is_periodic else tensors

    @property
    def is_suspicious(self) -> bool:
        """Whether atoms of the last graph are too close to each other, or those of a structure too far."""
        return self._is_scattered or bool(self.neighbors.closest < CLOSEST**2)


def _same_atoms(a: Molecules, b: Molecules) -> bool:
    """Return whether structures have the same atoms and periodic directions."""
    if (a.cells is None) != (b.cells is None):
        return False
    same = np.array_equal(a.N, b.N) and np.array_equal(a.Z, b.Z)
    return same and (a.cells is None or b.cells is None or np.array_equal(a.cells.pbc, b.cells.pbc))


def _same_state(a: Molecules | None, b: Molecules) -> bool:
    """Return whether structures of the same atoms have the same cells, charges and spins."""
    assert a is not None
    same = np.array_equal(a.charge, b.charge) and np.array_equal(a.spin, b.spin)
    return same and (a.cells is None or b.cells is None or np.array_equal(a.cells.cell, b.cells.cell))
