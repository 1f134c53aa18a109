"""Files of molecules that may be larger than memory: read a few at a time, in order, and passed over cheaply."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from zipfile import ZipFile

import numpy as np

from dimenet_tf.data.properties import conversion
from dimenet_tf.data.readers import find_layout, reading_npz, reading_with_ase
from dimenet_tf.errors import UserError


class Stream(Protocol):
    """An open file of molecules, between two of them."""

    def take(self, count: int) -> list:
        """Return the next molecules as `ase.Atoms`; fewer, at last none, where the file ends."""

    def skip(self, count: int) -> int:
        """Pass over the next molecules; return how many there were."""


@contextlib.contextmanager
def open_stream(path: str | Path) -> Iterator[Stream]:
    """Open extended XYZ (compressed too), npz in the layouts of `read_file`, or what else ASE reads.

    Extended XYZ and npz need no more memory than the molecules asked for; other formats what ASE's readers need.
    Positions are in Angstrom.

    Raises
    ------
    UserError
        Here and while reading, for files that cannot be read; names the file and the molecule, counted from 0.
    """
    import ase.io.formats  # slow to import

    path = Path(path)
    if not path.exists():
        raise UserError(f"no such file: {path}")
    with contextlib.ExitStack() as files:  # what the caller does meanwhile fails with errors of its own
        if path.suffix == ".npz":
            with reading_npz(str(path)):
                stream = NpzStream(files.enter_context(ZipFile(path)), str(path))
        else:
            with reading_with_ase(path):
                if ase.io.formats.filetype(str(path)) == "extxyz":
                    file = files.enter_context(ase.io.formats.open_with_compression(path, "rb"))
                    stream = XyzStream(file, path)
                else:
                    stream = AseStream(path)
        yield stream


def count_molecules(path: str | Path) -> int:
    """Return how many molecules a file has; it is read to its end, so that one that stops short is known."""
    with open_stream(path) as stream:
        return sum(iter(lambda: stream.skip(1000), 0))


class XyzStream:
    """Extended XYZ. ASE's reader begins by listing all molecules; here each is cut out by its number of lines."""

    def __init__(self, file, path: Path) -> None:
        self.file, self.path = file, path
        self.molecule = self.line = 0

    def take(self, count: int) -> list:
        return [self._parse(first, lines) for first, lines in self._next(count)]

    def skip(self, count: int) -> int:
        return sum(1 for _ in self._next(count))

    def _next(self, count: int) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the lines of the next molecules, and the number of the first one of each."""
        for _ in range(count):
            header = self._header()
            if not header:
                return
            first = self.line
            try:
                atoms = int(header)
                if atoms < 0:
                    raise ValueError
            except ValueError:
                what = f"the number of atoms of molecule {self.molecule}"
                found = header.decode(errors="replace").strip()[:40]
                raise UserError(f"{self.path}, line {first}: expected {what}, got '{found}'") from None
            with reading_with_ase(self.path):
                lines = list(itertools.islice(self.file, atoms + 1))
            if len(lines) <= atoms:
                raise UserError(f"{self.path} ends inside molecule {self.molecule}, which begins in line {first}")
            self.line += len(lines)
            yield first, [header, *lines]
            self.molecule += 1

    def _header(self) -> bytes:
        """Return the next line that is not empty; none at the end of the file."""
        line = b"\n"
        while line.isspace():
            self.line += 1
            with reading_with_ase(self.path):
                line = self.file.readline()
        return line

    def _parse(self, first: int, lines: list[bytes]):
        from io import StringIO

        from ase.io.extxyz import read_xyz

        with reading_with_ase(f"{self.path}, molecule {self.molecule} (line {first}),"):
            return next(iter(read_xyz(StringIO(b"".join(lines).decode()), 0)))


class NpzStream:
    """Flat arrays N, Z, R and id, or many geometries of one molecule (MD17, rMD17), compressed or not."""

    def __init__(self, archive: ZipFile, source: str) -> None:
        self.source = source
        arrays = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        layout = {ours: theirs for theirs, ours in find_layout(arrays).items()}
        missing = [name for name in ("N", "Z", "R") if layout.get(name, name) not in arrays]
        self.repeated = "N" not in arrays and missing == ["N"] and bool(layout)
        if missing and not self.repeated:
            raise UserError(f"{source}: missing array '{missing[0]}'; needed are N, Z and R (see README)")
        self.Z, self.R = (Rows(archive, arrays[layout.get(name, name)], source) for name in ("Z", "R"))
        self.N = None if self.repeated else Rows(archive, arrays["N"], source)
        self.id = Rows(archive, arrays["id"], source) if "id" in arrays and not self.repeated else None
        unit = str(Rows(archive, arrays["r_unit"], source).take(1).astype(str)[0]) if "r_unit" in arrays else ""
        self.scale = conversion("R", unit.strip()) if unit.strip() else 1.0
        self.numbers = self.Z.take(self.Z.length).ravel() if self.repeated else None
        self._check_shapes()

    def _check_shapes(self) -> None:
        if self.repeated:
            if self.R.shape != (len(self.numbers), 3):
                found = (self.R.length, *self.R.shape)
                raise UserError(f"{self.source}: R has shape {found}, expected (molecules, {len(self.numbers)}, 3)")
        elif self.R.shape != (3,) or self.Z.shape or self.N.shape:
            raise UserError(f"{self.source}: N and Z must be lists and R (atoms, 3) (see README)")
        for name, rows in (("N", self.N), ("Z", self.Z)):
            if rows and rows.dtype.kind not in "iu":
                raise UserError(f"{self.source}: {name} must be integers, not {rows.dtype}")
        if not self.repeated and self.R.length != self.Z.length:
            raise UserError(f"{self.source}: Z is for {self.Z.length} atoms, R for {self.R.length}")
        if self.id and self.id.length != self.N.length:
            raise UserError(f"{self.source}: {self.id.length} ids for {self.N.length} molecules")

    def take(self, count: int) -> list:
        from ase import Atoms

        N, Z, R, ids = self._next(count)
        info = [{}] * len(N) if ids is None else [{"id": id} for id in ids.tolist()]
        ends = np.cumsum(N)
        Z = np.where((Z >= 0) & (Z <= 118), Z, 0)  # ASE knows no others; 0 is refused with its molecule
        pieces = (slice(end - n, end) for n, end in zip(N, ends))
        return [Atoms(numbers=Z[s], positions=self.scale * R[s], info=i) for s, i in zip(pieces, info)]

    def skip(self, count: int) -> int:
        return len(self._next(count)[0])

    def _next(self, count: int) -> tuple[np.ndarray, ...]:
        """Return N, Z, R and ids of the next molecules."""
        with reading_npz(self.source):
            if self.repeated:
                R = self.R.take(count)
                return np.full(len(R), len(self.numbers)), np.tile(self.numbers, len(R)), R.reshape(-1, 3), None
            N = self.N.take(count).astype(np.int64)
            atoms = int(N.sum())
            left = self.Z.length - self.Z.at
            if (N < 0).any() or atoms > left or (self.N.at == self.N.length and atoms < left):
                raise UserError(f"{self.source}: N does not add up to the {self.Z.length} atoms of Z")
            return N, self.Z.take(atoms), self.R.take(atoms), self.id and self.id.take(len(N))


class Rows:
    """The rows of an array in an npz file, one after the other."""

    def __init__(self, archive: ZipFile, name: str, source: str) -> None:
        self.stream = archive.open(name)
        version = np.lib.format.read_magic(self.stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has the unknown version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, self.dtype = read(self.stream)
        if self.dtype.hasobject:
            raise ValueError(f"{name} has pickled objects")
        if columns_first and len(shape) > 1:
            raise UserError(f"{source}: {name} is stored column by column; save it as numpy.ascontiguousarray(...)")
        self.name, self.at = name, 0
        self.length, self.shape = (shape[0], shape[1:]) if shape else (1, ())

    def take(self, count: int) -> np.ndarray:
        """Return the next rows; fewer where the array ends."""
        count = min(count, self.length - self.at)
        size = count * self.dtype.itemsize * int(np.prod(self.shape))
        raw = self.stream.read(size)
        if len(raw) < size:
            raise EOFError(f"{self.name} is cut off")
        self.at += count
        return np.frombuffer(raw, self.dtype).reshape(count, *self.shape)


class AseStream:
    """What else ASE reads, by its readers."""

    def __init__(self, path: Path) -> None:
        import ase.io

        self.path = path
        self.frames = ase.io.iread(path, index=":")

    def take(self, count: int) -> list:
        with reading_with_ase(self.path):
            return list(itertools.islice(self.frames, count))

    def skip(self, count: int) -> int:
        with reading_with_ase(self.path):
            return sum(1 for _ in itertools.islice(self.frames, count))
