"""Streams of molecules from files that may be larger than memory, read a few at a time and in order."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zipfile import ZipFile

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures import qm9_raw
from dimenet_tf.structures.cells import make_cells
from dimenet_tf.structures.charges import CHARGE_KEYS, SPIN_KEYS, check_state_array, states_of_arrays
from dimenet_tf.structures.formats import find_layout, reading_npz, reading_with_ase
from dimenet_tf.structures.frames import FrameError, Notes, parse_frame
from dimenet_tf.structures.molecules import Molecules, join_atoms
from dimenet_tf.structures.quantities import conversion

if TYPE_CHECKING:
    from ase import Atoms

XYZ = (".xyz", ".extxyz", ".exyz")
COMPRESSED = (".gz", ".bz2", ".xz")
ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z")
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
PEEK = 4096  # bytes in which the encoding and the line ends of a file are looked for


class Stream(Protocol):
    """Open file of molecules, with a position in it."""

    @property
    def notes(self) -> Sequence[str]:
        """Remarks for users about the molecules taken so far, one line for each kind."""

    def take(self, count: int) -> Molecules:
        """Return the next molecules; fewer or none at the end of the file."""

    def skip(self, count: int) -> int:
        """Skip the next molecules; return their number."""


class AtomsStream(Stream, Protocol):
    """Stream of molecules that are read as `ase.Atoms`, with the labels of the file."""

    def take_atoms(self, count: int) -> list[Atoms]:
        """Return the next molecules as `take` does, as `ase.Atoms`."""

    def take(self, count: int) -> Molecules:
        return join_atoms(self.take_atoms(count))


@contextlib.contextmanager
def open_stream(path: str | Path) -> Iterator[Stream]:
    """Open XYZ, extended XYZ and QM9's raw xyz (compressed too), npz in the layouts of `read_file`, or what ASE reads.

    XYZ and npz need no more memory than the molecules asked for; other formats what ASE's readers need.
    Positions are in Angstrom.

    Raises
    ------
    UserError
        Here and while reading, for files that cannot be read; names the file and the molecule, counted from 0.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such file: {path}")
    if path.suffix != ".npz":
        with open_atoms(path) as atoms:
            yield atoms
        return
    with contextlib.ExitStack() as files:  # what the caller does meanwhile fails with errors of its own
        with reading_npz(str(path)):
            arrays = NpzStream(files.enter_context(ZipFile(path)), str(path))
        yield arrays


@contextlib.contextmanager
def open_atoms(path: Path) -> Iterator[AtomsStream]:
    """Open a file of any format of `open_stream` but npz."""
    with contextlib.ExitStack() as files:
        if is_xyz(path):
            stream: AtomsStream = XyzStream(files.enter_context(open_lines(path)), path)
        else:
            with reading_with_ase(path):
                stream = DatabaseStream(path) if path.suffix == ".db" else AseStream(path)
        yield stream


def is_xyz(path: Path) -> bool:
    """Tell whether a file is XYZ of any kind: by its name, else by its first bytes.

    Raises
    ------
    UserError
        For archives of files, and for what ASE does not recognize.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSED
    last = suffixes[-2 if compressed and len(suffixes) > 1 else -1] if suffixes else ""
    if last in ARCHIVES:
        raise UserError(
            f"{path} is an archive of files: unpack it; data.name=qm9 reads QM9's own archive "
            "(dsgdb9nsd.xyz.tar.bz2 in the folder data.cache)"
        )
    if last in XYZ:
        return True
    import ase.io.formats  # slow to import

    with reading_with_ase(path):
        return ase.io.formats.filetype(str(path)) in ("extxyz", "xyz")


@contextlib.contextmanager
def open_lines(path: Path) -> Iterator[Iterator[bytes]]:
    """Open a text file, compressed or not, and yield its lines in UTF-8 (or Latin-1) without a byte-order mark.

    UTF-16 is recognized by its byte-order mark. Lines may end as on Unix, Windows and old Macs.
    """
    from ase.io.formats import open_with_compression

    with contextlib.ExitStack() as files:
        with reading_with_ase(path):
            file = files.enter_context(open_with_compression(str(path), "rb"))
            peek = file.read(PEEK)
            file.seek(0)
        if not peek:
            raise UserError(f"{path} is empty")
        if peek.startswith(UTF16):
            yield (line.encode() for line in io.TextIOWrapper(file, "utf-16"))
        elif b"\r" in peek and b"\n" not in peek:
            yield (line.encode("latin-1") for line in io.TextIOWrapper(file, "latin-1"))
        else:
            yield iter(file)


def count_molecules(path: str | Path) -> int:
    """Count the molecules of a file. It is read to its end, so that a truncated file is an error."""
    with open_stream(path) as stream:
        return sum(iter(lambda: stream.skip(1000), 0))


class XyzStream(AtomsStream):
    """XYZ of any kind, split into molecules by their numbers of lines: ASE's reader would list all molecules first."""

    def __init__(self, lines: Iterator[bytes], path: Path) -> None:
        self.lines, self.path = lines, path
        self.molecule = self.line = 0
        self.next_line: bytes | None = None  # read ahead
        self.remarks = Notes()

    @property
    def notes(self) -> Sequence[str]:
        return self.remarks.lines(str(self.path))

    @property
    def is_qm9(self) -> bool:
        """Whether molecules of QM9's raw format were among those taken so far."""
        return "qm9" in self.remarks.counts

    def take_atoms(self, count: int) -> list[Atoms]:
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
                last = self.molecule - 1
                hint = f"; does molecule {last} have more atoms than its first line says?" if self.molecule else ""
                raise UserError(f"{self.path}, line {first}: expected {what}, got '{found}'{hint}") from None
            with reading_with_ase(self.path):
                lines = list(itertools.islice(self.lines, atoms + 1))
            if len(lines) <= atoms:
                raise UserError(
                    f"{self.path} ends inside molecule {self.molecule}, which begins in line {first} and should have "
                    f"{atoms} atoms"
                )
            self.line += len(lines)
            lines += self._lines_after_atoms(qm9_raw.is_raw(lines[0]))
            yield first, [header, *lines]
            self.molecule += 1

    def _lines_after_atoms(self, raw: bool) -> list[bytes]:
        """Return the lines of a molecule after its atoms: QM9's three lines, or cell vectors."""
        lines: list[bytes] = []
        while line := self._readline():
            more = len(lines) < 3 if raw else line.lstrip().startswith(b"VEC")
            if not more or (raw and not lines and line.strip().isdigit()):  # without QM9's lines: the next molecule
                self.next_line = line
                self.line -= 1
                break
            lines.append(line)
        return lines

    def _readline(self) -> bytes:
        """Return the next line; none at the end of the file."""
        self.line += 1
        line, self.next_line = self.next_line, None
        if line is None:
            with reading_with_ase(self.path):
                line = next(self.lines, b"")
        return line

    def _header(self) -> bytes:
        """Return the next line that is not empty, without a byte-order mark; none at the end of the file."""
        line = b"\n"
        while line.isspace():
            line = self._readline().removeprefix(BOM)
        return line

    def _parse(self, first: int, lines: list[bytes]) -> Atoms:
        where = f"{self.path}, molecule {self.molecule}"
        if qm9_raw.is_raw(lines[1]):
            self.remarks.add("qm9")
            return _raw_molecule(b"".join(lines).decode(errors="replace"), f"{where} (line {first})")
        try:
            return parse_frame(lines, self.remarks)
        except FrameError as error:
            line = f"line {first + error.line}" if error.line is not None else f"from line {first}"
            raise UserError(f"{where}, {line}: {error.message}") from None


def _raw_molecule(text: str, where: str) -> Atoms:
    """Return a molecule of QM9's raw format as `ase.Atoms`; its properties are in `info`."""
    from ase import Atoms

    molecule = qm9_raw.parse_xyz(text, where)
    return Atoms(numbers=molecule.pop("Z"), positions=molecule.pop("R"), info=molecule)


class NpzStream(Stream):
    """Flat arrays N, Z, R and id, or many geometries of one molecule (MD17, rMD17), compressed or not.

    Cells, charges and spin multiplicities of the molecules are read too.
    """

    notes: Sequence[str] = ()

    def __init__(self, archive: ZipFile, source: str) -> None:
        self.source = source
        arrays = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        layout = {ours: theirs for theirs, ours in find_layout(arrays).items()}
        missing = [name for name in ("N", "Z", "R") if layout.get(name, name) not in arrays]
        repeated = "N" not in arrays and missing == ["N"] and bool(layout)  # many geometries of one molecule
        if missing and not repeated:
            raise UserError(f"{source}: missing array '{missing[0]}'; needed are N, Z and R (see docs/data.md)")
        self.Z, self.R = (Rows(archive, arrays[layout.get(name, name)], source) for name in ("Z", "R"))
        self.N = None if repeated else Rows(archive, arrays["N"], source)
        self.id = Rows(archive, arrays["id"], source) if "id" in arrays and not repeated else None
        unit = str(Rows(archive, arrays["r_unit"], source).take(1).astype(str)[0]) if "r_unit" in arrays else ""
        self.scale = conversion("R", unit.strip()) if unit.strip() else 1.0
        self.numbers = self.Z.take(self.Z.length).ravel() if repeated else np.empty(0, int)  # where N is None
        self.lattice: dict[str, Rows] = {
            key: Rows(archive, arrays[key], source) for key in ("cell", "pbc") if key in arrays
        }
        present = [key for key in (*CHARGE_KEYS, *SPIN_KEYS) if key in arrays]
        self.states = {key: Rows(archive, arrays[key], source) for key in present}
        self._check_shapes()
        self.constants = {key: rows.take(1)[0] for key, rows in self.states.items() if not rows.array_shape}
        for key, rows in self.lattice.items():
            if rows.array_shape in ((3, 3), (3,)):  # one for all molecules
                self.constants[key] = rows.take(rows.length)

    def _check_shapes(self) -> None:
        if self.N is None:
            if self.R.shape != (len(self.numbers), 3):
                found = (self.R.length, *self.R.shape)
                raise UserError(f"{self.source}: R has shape {found}, expected (molecules, {len(self.numbers)}, 3)")
        elif self.R.shape != (3,) or self.Z.shape or self.N.shape:
            raise UserError(f"{self.source}: N and Z must be lists and R (atoms, 3) (see docs/data.md)")
        for name, rows in (("N", self.N), ("Z", self.Z)):
            if rows and rows.dtype.kind not in "iu":
                raise UserError(f"{self.source}: {name} must be integers, not {rows.dtype}")
        if self.N is not None and self.R.length != self.Z.length:
            raise UserError(f"{self.source}: Z is for {self.Z.length} atoms, R for {self.R.length}")
        if self.N is not None and self.id and self.id.length != self.N.length:
            raise UserError(f"{self.source}: {self.id.length} ids for {self.N.length} molecules")
        molecules = self.R.length if self.N is None else self.N.length
        for key, rows in self.lattice.items():
            shape = (3, 3) if key == "cell" else (3,)
            if rows.array_shape not in (shape, (molecules, *shape)):
                raise UserError(
                    f"{self.source}: {key} has shape {rows.array_shape}, expected ({molecules}, ...{shape})"
                )
        for key, rows in self.states.items():
            check_state_array(key, rows.dtype, rows.array_shape, molecules, self.source)
        if self.R.dtype.kind not in "fiu":
            raise UserError(f"{self.source}: R must be numbers, not {self.R.dtype}")

    def take(self, count: int) -> Molecules:
        N, Z, R, named = self._next(count)
        charge, spin = states_of_arrays(named, len(N), self.source)
        cell, pbc = named.pop("cell", None), named.pop("pbc", None)
        info = {"id": named.pop("id").tolist()} if "id" in named else {}
        info |= {key: np.broadcast_to(values.ravel(), len(N)).tolist() for key, values in named.items()}
        R = self.scale * np.asarray(R, np.float64)
        cells = make_cells(cell if cell is None else self.scale * cell, pbc, len(N), self.source)
        return Molecules(N, Z.astype(np.int64), R, N.max(initial=0), charge, spin, info=info, cells=cells)

    def skip(self, count: int) -> int:
        return len(self._next(count)[0])

    def _next(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return N, Z and R of the next molecules, and the arrays of ids, charges and spins by name."""
        with reading_npz(self.source):
            if self.N is None:
                R = self.R.take(count)
                N, Z = np.full(len(R), len(self.numbers)), np.tile(self.numbers, len(R))
                return N, Z, R.reshape(-1, 3), self._named(len(R))
            N = self.N.take(count).astype(np.int64)
            atoms = int(N.sum())
            left = self.Z.length - self.Z.at
            if (N < 0).any() or atoms > left or (self.N.at == self.N.length and atoms < left):
                raise UserError(f"{self.source}: N does not add up to the {self.Z.length} atoms of Z")
            return N, self.Z.take(atoms), self.R.take(atoms), self._named(len(N))

    def _named(self, count: int) -> dict[str, np.ndarray]:
        named = {"id": self.id.take(count)} if self.id else {}
        for key, rows in {**self.states, **self.lattice}.items():
            named[key] = self.constants[key] if key in self.constants else rows.take(count)
        return named


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
        self.array_shape: tuple[int, ...] = shape
        self.length: int = shape[0] if shape else 1
        self.shape: tuple[int, ...] = shape[1:]

    def take(self, count: int) -> np.ndarray:
        """Return the next rows; fewer where the array ends."""
        count = min(count, self.length - self.at)
        size = count * self.dtype.itemsize * int(np.prod(self.shape))
        raw = self.stream.read(size)
        if len(raw) < size:
            raise EOFError(f"{self.name} is cut off")
        self.at += count
        return np.frombuffer(raw, self.dtype).reshape(count, *self.shape)


class AseStream(AtomsStream):
    """Other formats, read by ASE."""

    notes: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = self._open()

    def _open(self) -> Iterator:
        import ase.io

        return ase.io.iread(self.path, index=":")

    def take_atoms(self, count: int) -> list[Atoms]:
        with reading_with_ase(self.path):
            return list(itertools.islice(self.frames, count))

    def skip(self, count: int) -> int:
        with reading_with_ase(self.path):
            return sum(1 for _ in itertools.islice(self.frames, count))


class DatabaseStream(AseStream):
    """ASE databases; the key-value pairs and data of a row are its `info`."""

    def _open(self) -> Iterator:
        import ase.db

        self.database = ase.db.connect(self.path)
        return map(self._atoms, self.database.select())

    @staticmethod
    def _atoms(row: Any) -> Atoms:
        atoms = row.toatoms()
        atoms.info.update({**row.key_value_pairs, **row.data})
        return atoms
