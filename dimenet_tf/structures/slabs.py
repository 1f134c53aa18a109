"""Structures of catalysis data sets in flat arrays: slabs, adsorbates, their relaxed states and references."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from dimenet_tf.errors import UserError
from dimenet_tf.structures.safe_pickle import brief


class Slabs(NamedTuple):
    """Structures in flat arrays, with what OC20 and related data sets store about them.

    A field that the files do not have is None. Atoms of all structures follow each other; `N` divides them. Energies
    are in eV, lengths in Angstrom. The number of structures is `len(slabs.N)`, because `len` of a tuple counts fields.
    """

    source: str
    """Path that was read."""

    N: np.ndarray
    """(structures,) int32, atoms of each structure."""

    Z: np.ndarray
    """(atoms,) int32, atomic numbers."""

    R: np.ndarray
    """(atoms, 3) float32 or float64 as stored, positions; the initial ones in IS2RE."""

    cell: np.ndarray
    """(structures, 3, 3) float32 or float64 as stored, rows are the lattice vectors."""

    pbc: np.ndarray
    """(structures, 3) bool, periodic directions; all of them where a file of PyTorch Geometric does not say."""

    tags: np.ndarray | None
    """(atoms,) int8: 0 below the surface, 1 surface, 2 adsorbate."""

    fixed: np.ndarray | None
    """(atoms,) bool, atoms that were held fixed in the relaxation."""

    energy: np.ndarray | None
    """(structures,) float64, energy of `R`.

    Where `reference` is given, the raw energy of the file minus it. Energies of LMDB files of PyTorch Geometric are as
    stored: `y_init` in IS2RE, `y` in S2EF; OC20's have the reference subtracted.
    """

    energy_relaxed: np.ndarray | None
    """(structures,) float64, energy of `R_relaxed`: IS2RE's label `y_relaxed`, as stored."""

    R_relaxed: np.ndarray | None
    """(atoms, 3) float32 or float64 as stored, positions after the relaxation."""

    forces: np.ndarray | None
    """(atoms, 3) float32 or float64 as stored, eV/Angstrom."""

    stress: np.ndarray | None
    """(structures, 6) float64, eV/Angstrom^3, ASE's sign and order xx, yy, zz, yz, xz, xy."""

    charge: np.ndarray | None
    """(structures,) float64, total charge in e."""

    spin: np.ndarray | None
    """(structures,) float64, spin multiplicity 2S + 1, as OMol25 stores it."""

    reference: np.ndarray | None
    """(structures,) float64, energy that was subtracted from the raw energies: that of the slab and the adsorbate."""

    sid: np.ndarray | None
    """(structures,) int64, number of the system: 497 for `random497`; str where a file has other names."""

    frame: np.ndarray | None
    """(structures,) int64, number of the frame in the relaxation of its system: 4 for `frame4`; else str."""

    notes: tuple[str, ...]
    """Remarks of the reader, one line each."""


def as_numbers(value: Any, name: str, where: str) -> np.ndarray:
    """Return a number, a flat list of numbers or an array as an array."""
    flat = value if isinstance(value, (list, tuple)) else [value]
    if not isinstance(value, np.ndarray) and all(isinstance(number, (int, float, np.generic)) for number in flat):
        value = np.array(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise UserError(f"{where}: {name} must be numbers, got {brief(value)}")
    return value


class _Column:
    """Values of one field, which are appended without a second copy of those that are there."""

    def __init__(self, name: str, dtype: DTypeLike | None, shape: tuple[int, ...], per_atom: bool) -> None:
        self.name, self.shape, self.per_atom = name, shape, per_atom
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.count = 0
        self.memory = bytearray()

    def add(self, value: Any, atoms: int, where: str) -> None:
        given = as_numbers(value, self.name, where)
        shape = (atoms, *self.shape) if self.per_atom else self.shape
        if not self.per_atom and given.size == np.prod(shape):
            given = given.reshape(shape)  # (1,) and (1, 3, 3) of PyTorch Geometric
        if given.shape != shape:
            raise UserError(f"{where}: {self.name} has shape {given.shape}, expected {shape}")
        if not np.isfinite(given).all():
            raise UserError(f"{where}: {self.name} is not finite")
        if self.dtype is None:
            self.dtype = given.dtype if given.dtype in (np.float32, np.float64) else np.dtype(np.float64)
        if self.dtype.kind == "f" and self.dtype.itemsize < given.dtype.itemsize:
            raise UserError(f"{where}: {self.name} is {given.dtype}, but {self.dtype} in the structures before it")
        stored = given.astype(self.dtype)
        if self.dtype.kind in "ib" and not (stored == given).all():
            raise UserError(f"{where}: {self.name} must be {'0 or 1' if self.dtype.kind == 'b' else 'whole numbers'}")
        self.memory += stored.tobytes()
        self.count += 1

    def array(self) -> np.ndarray:
        return np.frombuffer(self.memory, self.dtype).reshape(-1, *self.shape)


class _Names:
    """Numbers or names of structures."""

    def __init__(self, name: str, prefix: str) -> None:
        self.name, self.number = name, re.compile(rf"(?:{prefix})?(\d{{1,18}})")
        self.count = 0
        self.values: list[int | str] = []

    def add(self, value: Any, atoms: int, where: str) -> None:
        if not isinstance(value, str):
            given = as_numbers(value, self.name, where)
            if given.size != 1 or given.dtype.kind not in "iu":
                raise UserError(f"{where}: {self.name} must be a whole number or a name, got {brief(value)}")
            value = str(given.item())
        found = self.number.fullmatch(value)
        self.values.append(int(found[1]) if found else value)
        self.count += 1

    def array(self) -> np.ndarray:
        numbers = all(isinstance(value, int) for value in self.values)
        return np.array(self.values, np.int64) if numbers else np.array([str(value) for value in self.values])


class SlabsBuilder:
    """Collect structures one after the other into `Slabs`.

    Examples
    --------
    >>> builder = SlabsBuilder("made by hand")
    >>> builder.add("structure 0", Z=[8, 1], R=np.zeros((2, 3)), cell=np.eye(3), pbc=[True] * 3, energy=-1.5)
    >>> slabs = builder.finish()
    >>> slabs.N, slabs.energy, slabs.forces
    (array([2], dtype=int32), array([-1.5]), None)
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.notes: dict[str, None] = {}
        self.columns: dict[str, _Column | _Names] = {
            "N": _Column("N", np.int32, (), False),
            "Z": _Column("Z", np.int32, (), True),
            "R": _Column("R", None, (3,), True),
            "cell": _Column("cell", None, (3, 3), False),
            "pbc": _Column("pbc", bool, (3,), False),
            "tags": _Column("tags", np.int8, (), True),
            "fixed": _Column("fixed", bool, (), True),
            "R_relaxed": _Column("R_relaxed", None, (3,), True),
            "forces": _Column("forces", None, (3,), True),
            "stress": _Column("stress", np.float64, (6,), False),
            "sid": _Names("sid", "random"),
            "frame": _Names("frame", "frame"),
        }
        for name in ("energy", "energy_relaxed", "charge", "spin", "reference"):
            self.columns[name] = _Column(name, np.float64, (), False)

    def add(self, where: str, **fields: Any) -> None:
        """Add a structure.

        Parameters
        ----------
        where : file and structure, named in errors
        fields : fields of `Slabs` but N; None for those that the structure does not have

        Raises
        ------
        UserError
            If a field has another shape than the number of atoms requires, values that it cannot have, or is missing
            here and not in the structures before.
        """
        Z = as_numbers(fields["Z"], "Z", where)
        if Z.ndim != 1 or not len(Z) or not (Z >= 1).all():
            raise UserError(f"{where}: expected a list of atomic numbers of at least 1, got {brief(Z.tolist())}")
        fields["N"] = len(Z)
        before = self.columns["N"].count
        for name, column in self.columns.items():
            value = fields.get(name)
            if (value is not None) != (column.count > 0) and before:
                raise UserError(f"{where} has {'no ' if value is None else ''}{name}, unlike the structures before it")
            if value is not None:
                column.add(value, len(Z), where)

    def finish(self) -> Slabs:
        """Return the structures, and give up their memory here.

        Raises
        ------
        UserError
            If there are none.
        """
        if not self.columns["N"].count:
            raise UserError(f"{self.source} holds no structures")
        arrays = {name: column.array() if column.count else None for name, column in self.columns.items()}
        self.columns = {}
        return Slabs(source=self.source, notes=tuple(self.notes), **arrays)  # type: ignore[arg-type]


def voigt_stress(stress: Any, where: str) -> np.ndarray | None:
    """Return a stress as (6,), ASE's order, from (6,), (3, 3) or either with further axes of length 1."""
    if stress is None:
        return None
    given = as_numbers(stress, "stress", where).astype(np.float64)
    if given.size == 6:
        return given.reshape(6)
    if given.size != 9:
        raise UserError(f"{where}: stress has shape {given.shape}, expected (6,) or (3, 3)")
    full = given.reshape(3, 3)
    if not np.allclose(full, full.T, rtol=1e-3, atol=1e-6):
        raise UserError(f"{where}: the stress is not symmetric")
    return ((full + full.T) / 2)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def natural_order(names: Sequence[str]) -> list[str]:
    """Return names with their numbers in order.

    Examples
    --------
    >>> natural_order(["data.10.lmdb", "data.9.lmdb"])
    ['data.9.lmdb', 'data.10.lmdb']
    """
    return sorted(names, key=lambda name: [(int(t), "") if t.isdigit() else (-1, t) for t in re.split(r"(\d+)", name)])
