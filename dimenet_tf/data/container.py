"""Molecules and their properties in flat arrays."""

from __future__ import annotations

import hashlib
import numbers as numbers_abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from dimenet_tf.errors import UserError, unknown_name

STRUCTURE = ("id", "N", "Z", "R")
MAX_Z = 94
SAMPLE = Path(__file__).parent / "sample" / "sample.npz"


class DataContainer:
    """A data set: molecules with ids and target properties.

    Parameters
    ----------
    N : (molecules,) int, atoms of each molecule
    Z : (sum N,) int, atomic numbers, 1 ... 94
    R : (sum N, 3) float, positions in Angstrom
    targets : mapping from property names to (molecules,) float
    id : (molecules,) int or str; 0, 1, 2, ... where left out
    source : str, named in errors

    Raises
    ------
    UserError
        If array lengths do not fit, a number is not finite or an atomic number is out of range; names the molecule.
    """

    def __init__(
        self,
        N: Sequence[int],
        Z: Sequence[int],
        R: np.ndarray,
        targets: Mapping[str, np.ndarray] | None = None,
        id: Sequence | None = None,
        source: str = "data",
    ) -> None:
        self.source = source
        self.N = np.asarray(N, np.int32)
        self.Z = np.asarray(Z, np.int32)
        self.R = np.asarray(R)
        self.id = np.arange(len(self.N)) if id is None else np.asarray(id)
        self.targets = {key: np.asarray(values, np.float64) for key, values in (targets or {}).items()}
        self._check()

    def _check(self) -> None:
        if self.N.ndim != 1 or (self.N < 1).any():
            raise UserError(f"{self.source}: N must be a list of positive numbers of atoms, one for each molecule")
        atoms = int(self.N.sum())
        for key, array, shape in (("Z", self.Z, (atoms,)), ("R", self.R, (atoms, 3)), ("id", self.id, self.N.shape)):
            if array.shape != shape:
                raise UserError(f"{self.source}: {key} has shape {array.shape}, but N asks for {shape}")
        for key, values in self.targets.items():
            if values.shape != self.N.shape:
                raise UserError(f"{self.source}: target '{key}' has shape {values.shape}, expected {self.N.shape}")
        self._reject_atoms(~np.isfinite(self.R).all(axis=1), "a position is not finite")
        self._reject_atoms((self.Z < 1) | (self.Z > MAX_Z), f"an atomic number is not in 1 ... {MAX_Z}")

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

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        return np.unique(self.Z).tolist()

    def composition(self) -> np.ndarray:
        """Return how many atoms of each element a molecule has, (molecules, 95) int, column = atomic number."""
        counts = np.zeros((len(self), MAX_Z + 1), np.int64)
        np.add.at(counts, (self.molecule_of_atom, self.Z), 1)
        return counts

    def target(self, name: str) -> np.ndarray:
        """Return a property, (molecules,) float64.

        Raises
        ------
        UserError
            If there is none of that name (names the closest one), or if it is not finite for a molecule.
        """
        if name not in self.targets:
            raise unknown_name("target", name, self.targets)
        self._reject(~np.isfinite(self.targets[name]), f"target '{name}' is not finite")
        return self.targets[name]

    def select(self, molecules: np.ndarray) -> DataContainer:
        """Return the data set of the given molecules, in the given order."""
        molecules = np.asarray(molecules, np.int64)
        last = np.cumsum(self.N)
        pieces = [np.arange(last[m] - self.N[m], last[m]) for m in molecules]
        atoms = np.concatenate([np.empty(0, np.int64), *pieces])
        return DataContainer(
            self.N[molecules],
            self.Z[atoms],
            self.R[atoms],
            {key: values[molecules] for key, values in self.targets.items()},
            self.id[molecules],
            self.source,
        )

    def checksum(self) -> str:
        """Return a SHA-256 of molecules and targets: the same for the same data in any file."""
        digest = hashlib.sha256()
        for array in (self.N, self.Z, np.ascontiguousarray(self.R, np.float64)):
            digest.update(array.tobytes())
        for key in sorted(self.targets):
            digest.update(key.encode() + self.targets[key].tobytes())
        return digest.hexdigest()

    @classmethod
    def from_npz(cls, path: str | Path) -> DataContainer:
        """Read the flattened layout: `id` (optional), `N`, `Z`, `R` and one array for each target.

        Arrays of text (`smiles`, say) are passed over. Object arrays are refused: reading them would run code.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}  # an .npy array has no `files`
        except FileNotFoundError:
            raise UserError(f"no such file: {path}") from None
        except (ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, BadZipFile, ZlibError) as error:
            raise UserError(f"{path} is not a readable npz file without pickled objects ({error})") from None
        missing = [key for key in ("N", "Z", "R") if key not in arrays]
        if missing:
            raise UserError(f"{path}: missing array '{missing[0]}'; needed are N, Z, R and targets (see README)")
        targets = {k: v for k, v in arrays.items() if k not in STRUCTURE and np.issubdtype(v.dtype, np.number)}
        return cls(arrays["N"], arrays["Z"], arrays["R"], targets, arrays.get("id"), source=str(path))

    @classmethod
    def from_atoms(cls, frames: Sequence, source: str = "atoms") -> DataContainer:
        """Take molecules from a list of `ase.Atoms`.

        Targets are the numbers in `atoms.info`, and the energies of calculators, that all of them have.
        """
        periodic = [i for i, atoms in enumerate(frames) if atoms.pbc.any()]
        if periodic:
            raise UserError(f"{source}: molecule {periodic[0]} is periodic; only molecules are supported")
        # ASE's readers keep the energy apart from the other numbers of a frame
        infos = [{**(atoms.calc.results if atoms.calc else {}), **atoms.info} for atoms in frames]
        keys = set.intersection(*map(set, infos)) if infos else set()
        numbers = {k for k in keys if all(isinstance(info[k], numbers_abc.Real) for info in infos)} - {"id"}
        return cls(
            [len(atoms) for atoms in frames],
            np.concatenate([np.empty(0, int), *(atoms.numbers for atoms in frames)]),
            np.concatenate([np.empty((0, 3)), *(atoms.positions for atoms in frames)]),
            {key: [info[key] for info in infos] for key in sorted(numbers)},
            [info["id"] for info in infos] if "id" in keys else None,
            source,
        )

    @classmethod
    def open(cls, path: str | Path) -> DataContainer:
        """Read an npz file, or extended XYZ and the other formats of ASE (targets: the numbers of the comment line)."""
        path = Path(path)
        if path.suffix == ".npz":
            return cls.from_npz(path)
        if not path.exists():
            raise UserError(f"no such file: {path}")
        import ase.io  # slow to import, and needed for these formats only

        try:
            return cls.from_atoms(ase.io.read(path, index=":"), source=str(path))
        except (ase.io.formats.UnknownFileTypeError, ase.io.ParseError, OSError, ValueError, LookupError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} could not be read by ASE: {error}") from None


def sample() -> DataContainer:
    """Return the embedded sample of small molecules; see `sample/README.md` beside this file."""
    data = DataContainer.from_npz(SAMPLE)
    data.source = "embedded sample"
    return data
