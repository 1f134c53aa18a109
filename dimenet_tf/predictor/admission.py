"""Admission of molecules to a model on the host: one check for every door (`predict`, files, calculators, drivers).

`Predictor.make_graph` does the same with TensorFlow operations, for exported models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.structures.cells import Cells, wrapped
from dimenet_tf.structures.cells import why_refused as cell_fault
from dimenet_tf.structures.charges import why_refused
from dimenet_tf.structures.elements import MAX_Z, symbols
from dimenet_tf.structures.limits import (
    CLOSEST,
    REACH,
    SCATTERED,
    Neighborhood,
    centered,
    describe_unit,
    molecules_of,
    nearest,
    too_far,
    unit_of_bonds,
)
from dimenet_tf.structures.molecules import Molecules
from dimenet_tf.structures.quantities import conversion


class WrongUnit(UserError):
    """Positions that are probably not in Angstrom.

    Parameters
    ----------
    which : the molecules, in words
    fault : what is wrong with their bonds
    unit : in which their bonds have the usual length
    """

    def __init__(self, which: str, fault: str, unit: str) -> None:
        super().__init__(
            f"{which}: {fault}; length_unit='{unit}' converts them, length_unit='Ang' takes them as they are"
        )
        self.fault, self.unit = fault, unit


class Admission:
    """Check of molecules before they are predicted.

    Parameters
    ----------
    elements : atomic numbers that the training data contained
    cutoff : Angstrom, of the model
    domain : of the model; None where it is not recorded
    takes_cells : whether periodic structures may be predicted
    """

    def __init__(
        self, elements: Sequence[int], cutoff: float, domain: Domain | None = None, takes_cells: bool = True
    ) -> None:
        self.elements, self.cutoff, self.domain = list(elements), cutoff, domain
        self.takes_cells = takes_cells
        self._is_known = np.zeros(MAX_Z + 1, bool)
        self._is_known[self.elements] = True
        self._charges: Sequence[float] = (0,) if domain is None else domain.charges
        self._spins: Sequence[float] = (1,) if domain is None else domain.spins

    def admit(self, molecules: Molecules, first: int = 0, length_unit: str | None = None) -> Molecules:
        """Return molecules in Angstrom.

        Parameters
        ----------
        molecules : positions in the dtype that they came in
        first : number of the first one, for messages
        length_unit : "Ang", "a0", "nm" or "pm"; without it positions are taken as Angstrom, unless their bonds have the
            length that they would have in another unit

        Raises
        ------
        UserError
            For positions in another unit, and for the first molecule that cannot be predicted; see `faults`.
        """
        molecules = in_angstrom(molecules, length_unit)
        faults, near = self.faults(molecules)
        if length_unit is None and near is not None:
            self._check_unit(molecules, near, first)
        if faults:
            raise UserError(f"molecule {first + min(faults)} {faults[min(faults)]}")
        return molecules

    def check_unit(self, molecules: Molecules) -> None:
        """Raise a UserError if bonds have the length that they would have in another unit than Angstrom."""
        if np.isfinite(molecules.R).all():
            self._check_unit(molecules, _neighborhood(molecules), 0)

    def _check_unit(self, molecules: Molecules, near: Neighborhood, first: int) -> None:
        if len(near.distance) and np.isinf(near.distance).all():
            near = nearest(
                np.repeat(np.arange(len(molecules.N)), molecules.N), molecules.R, 100 * REACH, molecules.cells
            )
        if unit := unit_of_bonds(molecules.Z, near):
            last = first + len(molecules.N) - 1
            which = f"molecule {first}" if last == first else f"molecules {first} to {last}"
            raise WrongUnit(which, describe_unit(unit, near), unit)

    def faults(self, molecules: Molecules) -> tuple[dict[int, str], Neighborhood | None]:
        """Find the molecules that cannot be predicted.

        Returns
        -------
        faults : the first reason for each of them, by its number in `molecules`: "has no atoms"
        near : nearest neighbors of all atoms; None if a coordinate is not finite
        """
        N, Z, R = molecules[:3]
        owner, atoms = np.repeat(np.arange(len(N)), N), list(molecules_of(N))
        found = dict(molecules.faults)

        def refuse(which: Iterable[int], reason: Callable[[int], str]) -> None:
            for molecule in which:
                if int(molecule) not in found:
                    found[int(molecule)] = reason(molecule)

        refuse(np.flatnonzero(N == 0), lambda m: "has no atoms")
        finite = np.isfinite(R).all(axis=1)
        refuse(_molecules(owner, ~finite), lambda m: "has a coordinate that is not finite")
        known = self._is_known[np.where((Z > 0) & (Z <= MAX_Z), Z, 0)]
        refuse(_molecules(owner, ~known), lambda m: self._unknown_elements(Z[atoms[m]]))
        charge, spin = (np.broadcast_to(values, len(N)) for values in (molecules.charge, molecules.spin))
        odd = np.flatnonzero(~(_is_one_of(charge, self._charges) & _is_one_of(spin, self._spins)))
        refuse(odd, lambda m: f"has {why_refused(charge[m], spin[m], self._charges, self._spins)}")
        domain = self.domain
        if domain is not None and domain.has_undetermined:
            counts = np.zeros((len(N), MAX_Z + 1), np.int64)
            np.add.at(counts, (owner[known], Z[known]), 1)
            undetermined = np.flatnonzero(~domain.is_determined(counts))
            refuse(undetermined, lambda m: domain.why_undetermined(counts[m]))
        if not finite.all():
            rest = np.setdiff1d(np.arange(len(N)), owner[~finite]).tolist()
            faults, _ = self.faults(molecules.select(rest))
            return {**{rest[i]: reason for i, reason in faults.items()}, **found}, None
        refuse(np.flatnonzero(too_far(N, R)), lambda m: _how_far(R[atoms[m]]))
        if molecules.cells is not None:
            molecules = self._without_refused_cells(molecules, refuse)
        near = _neighborhood(molecules)
        close = _molecules(owner, near.distance < CLOSEST)
        refuse(close, lambda m: _how_close(near.distance[atoms[m]].min()))
        neighbors = np.bincount(owner[near.distance <= self.cutoff], minlength=len(N))
        scattered = np.flatnonzero((neighbors == 0) & (N >= SCATTERED))
        refuse(scattered, lambda m: f"has no two atoms within {self.cutoff:g} Ang; are its positions in Angstrom?")
        return found, near

    def _without_refused_cells(self, molecules: Molecules, refuse: Callable) -> Molecules:
        """Refuse cells; return molecules in which the refused ones are not periodic, so that none is searched."""
        cells = molecules.cells
        assert cells is not None
        reasons = {}
        for m in np.flatnonzero(cells.periodic).tolist():
            reason: str | None = "is periodic; the model was trained on molecules"
            if self.takes_cells:
                reason = cell_fault(cells.cell[m], cells.pbc[m], int(molecules.N[m]), REACH, CLOSEST)
            if reason is not None:
                reasons[m] = reason
        refuse(list(reasons), reasons.__getitem__)
        good = np.isin(np.arange(len(molecules.N)), list(reasons), invert=True)
        return molecules._replace(cells=Cells(cells.cell, cells.pbc & good[:, None]))

    def _unknown_elements(self, Z: np.ndarray) -> str:
        unknown = sorted(set(Z.tolist()) - set(self.elements))
        return (
            f"contains {symbols(unknown)}, which the training data did not; this model knows {symbols(self.elements)}"
        )


def _neighborhood(molecules: Molecules) -> Neighborhood:
    """Find the nearest neighbors of all atoms; all coordinates must be finite."""
    N, _, R = molecules[:3]
    R = R if molecules.cells is None else wrapped(N, R, molecules.cells)
    return nearest(np.repeat(np.arange(len(N)), N), centered(N, R), REACH, molecules.cells)


def _molecules(owner: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Return the molecules of the given atoms, (atoms,) bool, each once."""
    return np.unique(owner[atoms]) if atoms.any() else owner[:0]  # mostly there are none, and `unique` is slow


def _is_one_of(values: np.ndarray, known: Sequence[float]) -> np.ndarray:
    return np.any([values == each for each in known], axis=0)


def in_angstrom(molecules: Molecules, length_unit: str | None) -> Molecules:
    """Return molecules with positions in Angstrom."""
    if length_unit in (None, "Ang"):
        return molecules
    scale = conversion("R", length_unit, "length_unit")
    cells = molecules.cells
    if cells is not None:
        cells = Cells(cells.cell * scale, cells.pbc)
    return molecules._replace(R=np.asarray(molecules.R, np.float64) * scale, cells=cells)


def _how_far(R: np.ndarray) -> str:
    farthest, precise = np.abs(R).max(), ", or give float64" if R.dtype == np.float32 else ""
    return (
        f"lies {farthest:.2g} Ang from the origin, where {R.dtype} resolves {np.spacing(farthest):.1g} Ang only: "
        f"move it to the origin{precise}"
    )


def _how_close(distance: float) -> str:
    if distance == 0:
        return "has two atoms at the same place"
    return f"has two atoms {distance:.3g} Ang apart, closer than {CLOSEST} Ang"
