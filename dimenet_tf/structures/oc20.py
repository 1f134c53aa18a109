"""Readers of OC20's file formats, and of the newer ones of OMat24 and OMol25.

* IS2RE and S2EF as LMDB of pickled objects of PyTorch Geometric 1.x or 2.x. PyTorch is not needed, and code in a pickle
  is refused (`dimenet_tf.structures.safe_pickle`).
* S2EF as released: pairs of `0.extxyz.xz` and `0.txt.xz`, whose lines are `system,frame,reference energy`.
* `.aselmdb`: rows of ASE's database as JSON in LMDB, read by the package ase-db-backends.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dimenet_tf.errors import UserError, import_optional
from dimenet_tf.structures.formats import reading_with_ase
from dimenet_tf.structures.safe_pickle import brief, load_plain
from dimenet_tf.structures.slabs import Slabs, SlabsBuilder, as_numbers, natural_order, voigt_stress
from dimenet_tf.structures.streams import open_atoms, open_lines
from dimenet_tf.structures.torch_archive import data_attributes, load_tensors

EXTXYZ = (".extxyz", ".extxyz.xz")
# our fields and their names in objects of PyTorch Geometric; the first that is there is read
ATTRIBUTES = {
    "Z": ("atomic_numbers",),
    "R": ("pos",),
    "cell": ("cell",),
    "pbc": ("pbc",),
    "tags": ("tags",),
    "fixed": ("fixed",),
    "energy": ("y_init", "y", "energy"),
    "energy_relaxed": ("y_relaxed",),
    "R_relaxed": ("pos_relaxed",),
    "forces": ("force", "forces"),
    "stress": ("stress",),
    "charge": ("charge",),
    "spin": ("spin",),
    "sid": ("sid",),
    "frame": ("fid",),
}
REQUIRED = ("Z", "R", "cell")
CHUNK = 100  # frames of text that are read at once


def read_slabs(path: str | Path) -> Slabs:
    """Read structures from a file, or from all files of a folder in natural order: `data.9.lmdb` before `data.10.lmdb`.

    The kind of the files is told by their names: `*.lmdb` (or a folder with `data.mdb`), `*.extxyz` or `*.extxyz.xz`
    with their `.txt` or `.txt.xz`, `*.aselmdb`. Arrays are filled while files are read, so that memory holds them once;
    neighbor lists of LMDB files (`edge_index`, `cell_offsets`, `distances`) are not kept.

    Raises
    ------
    UserError
        For a path without such files or with several kinds of them, empty and damaged files, structures that lack
        attributes or have arrays of another length, labels that some structures have and others lack, and pickles that
        ask for code; names the file and the structure.

    Examples
    --------
    >>> import tempfile
    >>> header = 'Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1 energy=-3.5'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "0.extxyz").write_text(f"2\\n{header}\\nCu 0 0 0 F 0\\nO 0 0 2 T 2\\n")
    ...     _ = Path(folder, "0.txt").write_text("random497,frame4,-3.0\\n")
    ...     slabs = read_slabs(folder)
    >>> slabs.Z, slabs.fixed, slabs.tags.tolist()
    (array([29,  8], dtype=int32), array([ True, False]), [0, 2])
    >>> slabs.sid, slabs.frame, slabs.energy  # the reference is subtracted
    (array([497]), array([4]), array([-0.5]))
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such file or folder: {path}")
    kinds = {read: files for read, suffixes in READERS.items() if (files := _files(path, suffixes))}
    if len(kinds) != 1:
        found = "files of several kinds" if kinds else "none"
        raise UserError(f"{path}: expected *.lmdb, *.aselmdb, or *.extxyz.xz with *.txt.xz; found {found}")
    builder = SlabsBuilder(str(path))
    for read, files in kinds.items():
        for file in files:
            read(file, builder)
    slabs = builder.finish()
    if slabs.energy is None and slabs.energy_relaxed is None:
        note = f"{path}: the structures have no energies, as in a test set"
        return slabs._replace(notes=(*slabs.notes, note))
    return slabs


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if path.is_file():
        return [path] if path.name.endswith(suffixes) else []
    if ".lmdb" in suffixes and (path / "data.mdb").is_file():
        return [path]
    return [path / name for name in natural_order([file.name for file in path.iterdir()]) if name.endswith(suffixes)]


# -------------------------------------------------------------------------------------------- LMDB of PyTorch Geometric


def _read_lmdb(path: Path, builder: SlabsBuilder) -> None:
    with _open_lmdb(path) as (transaction, entries):
        if transaction.get(b"nextid") is not None:
            raise UserError(f"{path} is a database of ASE: rename it to *.aselmdb")
        for key in range(_length(path, transaction.get(b"length"), entries)):
            where = f"{path}, key '{key}'"
            value = transaction.get(b"%d" % key)
            if value is None:
                raise UserError(f"{where} is missing")
            _add_data(data_attributes(load_tensors(value, where), where), where, builder)


@contextlib.contextmanager
def _open_lmdb(path: Path) -> Iterator[tuple[Any, int]]:
    """Open an LMDB file or folder for reading, without a lock file. Yield a transaction and the number of entries."""
    lmdb = import_optional("lmdb", "oc20")
    folder = path.is_dir()
    file = path / "data.mdb" if folder else path
    try:
        with lmdb.open(str(path), subdir=folder, readonly=True, lock=False, create=False) as environment:
            needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            if file.stat().st_size < needed:  # reading beyond the end of a file in memory would end the process
                raise UserError(f"{file} is truncated: it has {file.stat().st_size} of {needed} bytes")
            with environment.begin() as transaction:
                yield transaction, environment.stat()["entries"]
    except lmdb.Error as error:
        raise UserError(f"{file} is not a readable LMDB file ({' '.join(str(error).split())})") from None


def _length(path: Path, stored: bytes | None, entries: int) -> int:
    """Return the number of structures, from the entry `length` (text or pickled) if there is one."""
    if stored is None:
        return entries
    where = f"{path}, key 'length'"
    length = int(stored) if stored.isdigit() and len(stored) < 19 else load_plain(stored, where)
    if isinstance(length, np.ndarray) and length.size == 1:
        length = length.item()
    if not isinstance(length, (int, np.integer)) or not 0 <= length < entries:
        raise UserError(f"{where}: expected a number of structures, at most {entries - 1}; got {brief(length)}")
    return int(length)


def _add_data(attributes: Mapping[str, Any], where: str, builder: SlabsBuilder) -> None:
    fields = {
        ours: next((attributes[name] for name in names if attributes.get(name) is not None), None)
        for ours, names in ATTRIBUTES.items()
    }
    missing = [ATTRIBUTES[name][0] for name in REQUIRED if fields[name] is None]
    if missing:
        there = ", ".join(sorted(str(key) for key, value in attributes.items() if value is not None))
        raise UserError(f"{where} lacks {', '.join(missing)}; it has {there[:200] or 'nothing'}")
    atoms = as_numbers(fields["Z"], "atomic_numbers", where).size
    if (natoms := attributes.get("natoms")) is not None and (as_numbers(natoms, "natoms", where) != atoms).any():
        raise UserError(f"{where}: natoms is {brief(natoms)}, but there are {atoms} atomic numbers")
    fields["stress"] = voigt_stress(fields["stress"], where)
    if fields["pbc"] is None:
        fields["pbc"] = (True, True, True)
    builder.add(where, **fields)


# ----------------------------------------------------------------------------------------------------- S2EF as released


def _read_s2ef(path: Path, builder: SlabsBuilder) -> None:
    stem = path.name.split(".extxyz")[0]
    texts = [text for suffix in (".txt.xz", ".txt") if (text := path.with_name(stem + suffix)).is_file()]
    if not texts:
        raise UserError(
            f"{path} needs {stem}.txt.xz or {stem}.txt in its folder, with system, frame and reference energy"
        )
    count = 0
    with open_atoms(path) as frames, open_lines(texts[0]) as lines:
        rows = (line for line in lines if line.strip())
        while chunk := frames.take_atoms(CHUNK):
            for atoms, row in itertools.zip_longest(chunk, itertools.islice(rows, len(chunk))):
                if row is None:
                    raise UserError(f"{texts[0]} has {count} lines, fewer than {path} has frames")
                sid, frame, reference = _parse_row(row, f"{texts[0]}, line {count + 1}")
                _add_atoms(atoms, sid, frame, reference, f"{path}, frame {count}", builder)
                count += 1
        if next(rows, None) is not None:
            raise UserError(f"{texts[0]} has more lines than {path} has frames, {count}")
        builder.notes.update(dict.fromkeys(frames.notes))


def _parse_row(line: bytes, where: str) -> tuple[str, str, float | None]:
    parts = [part.strip() for part in line.decode(errors="replace").split(",")]
    try:
        if len(parts) not in (2, 3):
            raise ValueError
        return parts[0], parts[1], float(parts[2]) if len(parts) == 3 else None
    except ValueError:
        raise UserError(f"{where}: expected 'system,frame,reference energy', got {','.join(parts)[:60]!r}") from None


def _add_atoms(atoms: Any, sid: str, frame: str, reference: float | None, where: str, builder: SlabsBuilder) -> None:
    """Add a frame of `ase.Atoms`."""
    results = atoms.calc.results if atoms.calc else {}
    builder.add(
        where,
        Z=atoms.numbers,
        R=atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        tags=atoms.get_tags() if atoms.has("tags") else None,
        fixed=_fixed(atoms.constraints, len(atoms), builder),
        energy=_subtract(results.get("energy"), reference),
        forces=results.get("forces"),
        stress=voigt_stress(results.get("stress"), where),
        reference=reference,
        sid=sid,
        frame=frame,
    )


def _fixed(constraints: list, atoms: int, builder: SlabsBuilder) -> np.ndarray:
    from ase.constraints import FixAtoms

    fixed = np.zeros(atoms, bool)
    for constraint in constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        else:
            builder.notes[f"{builder.source}: constraints of the kind {type(constraint).__name__} are not read"] = None
    return fixed


def _subtract(energy: float | None, reference: float | None) -> float | None:
    return None if energy is None else energy - (reference or 0.0)


# ----------------------------------------------------------------------------------------------------------- ASE's LMDB


def _read_aselmdb(path: Path, builder: SlabsBuilder) -> None:
    with _open_lmdb(path):
        pass  # the file is whole
    backend = import_optional("ase_db_backends.aselmdb", "oc20")
    with reading_with_ase(path), backend.LMDBDatabase(path, readonly=True, use_lock_file=False) as rows:
        for row in rows.select():
            _add_row(row, f"{path}, row {row.id}", builder)


def _add_row(row: Any, where: str, builder: SlabsBuilder) -> None:
    """Add a row of ASE's database. Values beyond ASE's own are in `data` or among the pairs of keys and values."""
    more = {**row.key_value_pairs, **row.data}
    reference = next((more[name] for name in ("ref_energy", "reference_energy") if name in more), None)
    builder.add(
        where,
        Z=row.numbers,
        R=row.positions,
        cell=row.cell,
        pbc=row.pbc,
        tags=row.get("tags"),
        fixed=_fixed(row.constraints, len(row.numbers), builder),
        energy=_subtract(row.get("energy"), reference),
        forces=row.get("forces"),
        stress=voigt_stress(row.get("stress"), where),
        charge=more.get("charge"),
        spin=more.get("spin"),
        reference=reference,
        sid=more.get("sid"),
        frame=more.get("fid"),
    )


READERS = {_read_lmdb: (".lmdb",), _read_s2ef: EXTXYZ, _read_aselmdb: (".aselmdb",)}
