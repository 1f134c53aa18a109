"""Molecules and their properties in flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.errors import UserError
from dimenet_tf.structures.cells import Cells
from dimenet_tf.structures.elements import MAX_Z, hill
from dimenet_tf.structures.lookup import missing_target
from dimenet_tf.structures.quantities import find_property
from dimenet_tf.structures.splits import Split

Kind = TypeVar("Kind", bound="FlatMolecules")


class FlatMolecules:
    """Arrays of molecules with matching shapes. The molecules are not checked; `DataContainer` has the parameters."""

    notes: Sequence[str] = ()
    found: Mapping[str, str] = MappingProxyType({})
    isolated: Mapping[str, Mapping[int, float]] = MappingProxyType({})

    def _fill(
        self,
        N: ArrayLike,
        Z: ArrayLike,
        R: ArrayLike,
        targets: Mapping[str, ArrayLike],
        id: ArrayLike | None,
        source: str,
        split: Split | None,
        charge: ArrayLike | None,
        spin: ArrayLike | None,
        weight: ArrayLike | None,
        cells: Cells | None = None,
        fixed: ArrayLike | None = None,
    ) -> None:
        self.cells = cells
        self.fixed = None if fixed is None else np.asarray(fixed, bool)
        self.source = source
        self.split = split
        self.N, self.Z = _whole(N), _whole(Z)
        self.R = np.asarray(R)
        self.id = np.arange(len(self.N)) if id is None else np.asarray(id)
        self.targets = {key: np.asarray(values, np.float64) for key, values in targets.items()}
        self.charge, self.spin, self.weight = (
            np.full(len(self.N), default) if values is None else np.asarray(values, np.float64)
            for values, default in ((charge, 0.0), (spin, 1.0), (weight, 1.0))
        )

    def _check_shapes(self) -> None:
        if self.N.ndim != 1 or (self.N < 0).any():
            raise UserError(f"{self.source}: N must be a list of numbers of atoms, one for each molecule")
        atoms = int(self.N.sum())
        shapes = {"Z": (atoms,), "R": (atoms, 3), **dict.fromkeys(("id", "charge", "spin", "weight"), self.N.shape)}
        if self.fixed is not None:
            shapes["fixed"] = (atoms,)
        for key, shape in shapes.items():
            found = getattr(self, key).shape
            if found != shape:
                raise UserError(f"{self.source}: {key} has shape {found}, but N requires {shape}")
        if not (np.isfinite(self.weight) & (self.weight >= 0)).all():
            raise UserError(f"{self.source}: the weights of molecules must be finite and at least 0")
        for key, values in self.targets.items():
            kind = find_property(key)
            shape = (atoms if kind.per_atom else len(self), *kind.shape)
            if values.shape != shape:
                raise UserError(f"{self.source}: target '{key}' has shape {values.shape}, expected {shape}")

    def _reject(self, bad: np.ndarray, reason: str) -> None:
        if bad.any():
            first = int(np.argmax(bad))
            raise UserError(
                f"{self.source}: {reason} in molecule {first} (id {self.id[first]}), {int(bad.sum())} such molecules"
            )

    def _reject_atoms(self, bad: np.ndarray, reason: str) -> None:
        self._reject(np.isin(np.arange(len(self.N)), self.molecule_of_atom[bad]), reason)

    @property
    def molecule_of_atom(self) -> np.ndarray:
        """(sum N,) int: the molecule that each atom belongs to."""
        return np.repeat(np.arange(len(self.N)), self.N)

    def __len__(self) -> int:
        return len(self.N)

    def cell_arrays(self) -> tuple[np.ndarray, ...]:
        """Return cells and periodic directions, as `GraphStore` takes them; nothing for molecules."""
        return () if self.cells is None else tuple(self.cells)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        return np.unique(self.Z).tolist()

    def composition(self) -> np.ndarray:
        """Return the number of atoms of each element, (molecules, 95) int, column = atomic number."""
        counts = np.zeros((len(self), MAX_Z + 1), np.int64)
        np.add.at(counts, (self.molecule_of_atom, self.Z), 1)
        return counts

    def formulas(self) -> np.ndarray:
        """Return the sum formula of each molecule in Hill's order, (molecules,) str: C2H6O."""

        counts = self.composition()
        present = counts.any(axis=0)
        _, first, which = np.unique(counts[:, present], axis=0, return_index=True, return_inverse=True)
        return np.array([hill(row) for row in counts[first]])[which.ravel()]

    def target(self, name: str) -> np.ndarray:
        """Return a property, (molecules, ...) float64, or (sum N, ...) if it is one of atoms.

        Raises
        ------
        UserError
            If there is no such property (names the closest one), or if it is not finite for a molecule.
        """
        if name not in self.targets:
            raise self._no_target(name)
        values = self.targets[name]
        bad = ~np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
        reject = self._reject_atoms if find_property(name).per_atom else self._reject
        reject(bad, f"target '{name}' is missing or not finite")
        return values

    def _no_target(self, name: str) -> UserError:
        """Make the error for a missing target, with the contents of the file."""
        return missing_target(name, self.targets, self.found, self.source, len(self), int(self.N.sum()))

    def labelled(self, name: str) -> np.ndarray:
        """Return which molecules have a complete and finite value of a property, (molecules,) bool.

        A property of atoms is complete if all atoms that are not fixed have it, and at least one such atom is there.
        """
        values = self.targets[name]
        finite = np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
        if not find_property(name).per_atom:
            return finite
        if self.fixed is None:
            return np.bincount(self.molecule_of_atom[~finite], minlength=len(self)) == 0
        free = np.bincount(self.molecule_of_atom[~self.fixed], minlength=len(self))
        return (np.bincount(self.molecule_of_atom[finite & ~self.fixed], minlength=len(self)) == free) & (free > 0)

    def labels(self, name: str) -> np.ndarray:
        """Return a property as `target` does, with NaN for every molecule that lacks it.

        A molecule that has a part of it, the forces of some of its atoms for instance, lacks it as a whole. Fixed atoms
        have NaN for properties of atoms, and the other atoms of their molecule keep theirs.

        Raises
        ------
        UserError
            If there is no property of that name; names the closest one.
        """
        if name not in self.targets:
            raise self._no_target(name)
        values, has = self.targets[name], self.labelled(name)
        per_atom = find_property(name).per_atom
        if has.all() and not (per_atom and self.fixed is not None):
            return values
        rows = has[self.molecule_of_atom] if per_atom else has
        if per_atom and self.fixed is not None:
            rows = rows & ~self.fixed
        return np.where(rows.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)

    def select(self: Kind, molecules: ArrayLike) -> Kind:
        """Return the data set of the given molecules, in the given order, without a split."""
        molecules = np.asarray(molecules, np.int64)
        last = np.cumsum(self.N)
        pieces = [np.arange(last[m] - self.N[m], last[m]) for m in molecules]
        atoms = np.concatenate([np.empty(0, np.int64), *pieces])
        targets = {key: v[atoms if find_property(key).per_atom else molecules] for key, v in self.targets.items()}
        part = type(self).__new__(type(self))  # what was checked once need not be again
        N, Z, R, id = self.N[molecules], self.Z[atoms], self.R[atoms], self.id[molecules]
        charge, spin, weight = (array[molecules] for array in (self.charge, self.spin, self.weight))
        cells = None if self.cells is None else self.cells.select(molecules)
        fixed = None if self.fixed is None else self.fixed[atoms]
        part._fill(N, Z, R, targets, id, self.source, None, charge, spin, weight, cells, fixed)
        part.notes, part.found, part.isolated = self.notes, self.found, self.isolated
        return part


def _whole(values: ArrayLike) -> np.ndarray:
    """Return numbers as int32. Other numbers than integers become 0, which is neither a size nor an element."""
    given = np.asarray(values)
    with np.errstate(invalid="ignore"):
        whole = given.astype(np.int32)
    return np.where(whole == given, whole, 0).astype(np.int32)
