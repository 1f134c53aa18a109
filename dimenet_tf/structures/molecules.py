"""A few molecules in flat arrays: the form in which all readers give them to prediction and bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.cells import Cells
from dimenet_tf.structures.charges import SINGLET, state_of
from dimenet_tf.structures.limits import molecules_of

if TYPE_CHECKING:
    from ase import Atoms


class Molecules(NamedTuple):
    """Molecules and crystals in flat arrays, the atoms of one after those of the other."""

    N: np.ndarray
    """(molecules,) int: atoms of each."""
    Z: np.ndarray
    """(sum N,) int: atomic numbers."""
    R: np.ndarray
    """(sum N, 3) float, Angstrom."""
    width: int = 0
    """Atoms to which the arrays that they came from were padded."""
    charge: np.ndarray | float = 0.0
    """(molecules,) total charge, e."""
    spin: np.ndarray | float = 1.0
    """(molecules,) spin multiplicity, 2S + 1."""
    faults: Mapping[int, str] = {}
    """Molecules that no model can predict, by number, with the reason that the reader found: an unreadable charge."""
    info: Mapping[str, Sequence] = {}
    """Values of each molecule by the names in the file: the id, the charge."""
    frames: Sequence[Atoms] = ()
    """The `ase.Atoms` that the molecules were read from; empty where they came from arrays."""
    cells: Cells | None = None
    """Unit cells; None if nothing is periodic."""

    def select(self, which: Sequence[int]) -> Molecules:
        """Return some of the molecules.

        Examples
        --------
        >>> from ase.build import molecule
        >>> join_atoms([molecule("H2O"), molecule("H2"), molecule("CO")]).select([1, 2]).Z.tolist()
        [1, 1, 8, 6]
        """
        slices = list(molecules_of(self.N))
        atoms = np.concatenate([np.empty(0, int), *(np.arange(slices[i].start, slices[i].stop) for i in which)])
        charge, spin = (np.broadcast_to(values, len(self.N))[which] for values in (self.charge, self.spin))
        faults = {new: self.faults[old] for new, old in enumerate(which) if old in self.faults}
        info = {name: [values[i] for i in which] for name, values in self.info.items()}
        frames = [self.frames[i] for i in which] if self.frames else ()
        N, Z, R = self.N[which], self.Z[atoms], self.R[atoms]
        cells = None if self.cells is None else self.cells.select(which)
        return Molecules(N, Z, R, self.width, charge, spin, faults, info, frames, cells)

    def to_atoms(self) -> list[Atoms]:
        """Return the molecules as `ase.Atoms`: those that they were read from, or new ones with `info`."""
        from ase import Atoms  # slow to import

        if self.frames:
            return list(self.frames)
        Z = np.where((self.Z >= 0) & (self.Z <= 118), self.Z, 0)  # ASE knows no others
        info = [{name: values[i] for name, values in self.info.items()} for i in range(len(self.N))]
        slices = molecules_of(self.N)
        made = [Atoms(numbers=Z[s], positions=self.R[s], info=values) for s, values in zip(slices, info)]
        for atoms, cell, pbc in zip(made, *self.cells) if self.cells is not None else ():
            atoms.cell, atoms.pbc = cell, pbc
        return made

    def cell_arrays(self) -> tuple[np.ndarray, ...]:
        """Return cells and periodic directions, as `GraphStore` takes them; nothing for molecules."""
        return () if self.cells is None else tuple(self.cells)


def join_atoms(frames: Sequence[Atoms], first: int = 0) -> Molecules:
    """Return `ase.Atoms` in flat arrays.

    Structures whose charge or spin is not a number are `faults` of the result. The cell of a structure that is not
    periodic is ignored.

    Parameters
    ----------
    frames : `ase.Atoms`
    first : number of the first one in messages

    Raises
    ------
    UserError
        For objects of another type.

    Examples
    --------
    >>> from ase.build import bulk, molecule
    >>> join_atoms([molecule("H2O"), bulk("Si")]).cells.periodic
    array([False,  True])
    """
    states, faults = [], {}
    for i, atoms in enumerate(frames):
        if not hasattr(atoms, "numbers"):
            raise UserError(f"molecule {first + i} must be an ase.Atoms, got {type(atoms).__name__}")
        state = SINGLET
        try:
            state = state_of(atoms)
        except UserError as error:
            faults[i] = f"cannot be read: {error}"
        states.append(state)
    N = np.array([len(atoms) for atoms in frames], int)
    Z = np.concatenate([np.empty(0, int), *(atoms.numbers for atoms in frames)])
    R = np.concatenate([np.empty((0, 3)), *(atoms.positions for atoms in frames)])
    charge, spin = np.array(states, np.float64).reshape(-1, 2).T
    info = {"id": [atoms.info.get("id") for atoms in frames]}
    pbc = np.array([atoms.pbc for atoms in frames], bool).reshape(-1, 3)
    cells = None
    if pbc.any():
        lattice = np.array([atoms.cell.array if atoms.pbc.any() else np.zeros((3, 3)) for atoms in frames])
        cells = Cells(lattice, pbc)
    return Molecules(N, Z, R, N.max(initial=0), charge, spin, faults, info, frames, cells)
