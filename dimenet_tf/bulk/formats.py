"""Formats of predictions: pieces of a file, which are complete files themselves, and their joining.

The result of a molecule is its properties by name, or the reason why it could not be predicted.
"""

from __future__ import annotations

import functools
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Union
from zipfile import ZipFile, ZipInfo

import ase.io.extxyz
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from dimenet_tf.predictor import Predictor
from dimenet_tf.structures.molecules import Molecules

Result = Union[dict, str]
FORMATS = (".extxyz", ".xyz", ".npz")
IN_DOMAIN, DROPPED = "in_domain", "neighbors_dropped"
VOIGT = [0, 4, 8, 5, 2, 1]  # of (3, 3), in ASE's order: xx yy zz yz xz xy


def write(file: BinaryIO, suffix: str, molecules: Molecules, results: Sequence[Result], predictor: Predictor) -> None:
    """Write the molecules of a piece with their results."""
    if suffix == ".npz":
        arrays: dict[str, Any] = columns(molecules, results, predictor)
        np.savez(file, **arrays)
        return
    frames = molecules.to_atoms()
    for atoms, result in zip(frames, results):
        label(atoms, result, predictor)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
    ase.io.extxyz.write_xyz(text, frames)
    text.detach()  # the file stays open


def join(file: BinaryIO, suffix: str, pieces: Sequence[Path]) -> None:
    """Concatenate pieces into a file. For npz, one array of one piece is in memory at a time."""
    if suffix == ".npz":
        _join_npz(file, pieces)
        return
    for path in pieces:
        with path.open("rb") as piece:
            shutil.copyfileobj(piece, file)


def label(atoms: Atoms, result: Result, predictor: Predictor) -> None:
    """Attach a result: energy, forces, stress and dipole of a calculator where the model has forces; else as `info`.

    What ASE has no name for is `info` in any case, vectors (3,) and tensors (3, 3) too.
    """
    atoms.calc = None  # what the file said of the energy is no prediction of this model
    for name in ("error", IN_DOMAIN, DROPPED, "stress", "virial", *predictor.units):
        atoms.info.pop(name, None)
    if isinstance(result, str):
        atoms.info["error"] = result
        return
    plain = {name: value if np.ndim(value) else value.item() for name, value in result.items()}
    values = {name: value for name, value in plain.items() if name != "forces"}
    stress = values.pop("stress", None)
    if predictor.energy is not None:
        others = {"dipole": values.pop("dipole")} if "dipole" in values else {}
        if stress is not None and np.isfinite(stress).all():
            others["stress"] = np.ravel(stress)[VOIGT]
        energy = values.pop(predictor.energy)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=result["forces"], **others)
    atoms.info.update(values)


def columns(molecules: Molecules, results: Sequence[Result], predictor: Predictor) -> dict[str, np.ndarray]:
    """Return results as arrays; NaN where there are none, -1 of `neighbors_dropped`.

    `id` is among them where every molecule has one, and the cells where the model has a stress.
    """
    arrays = {}
    ids = molecules.info.get("id", ())
    if len(ids) == len(molecules.N) and all(isinstance(id, (int, float, str, np.generic)) for id in ids):
        arrays["id"] = np.array(ids)
    for name, shape in predictor.head.columns.shapes.items():
        rows = [np.full(shape, np.nan) if isinstance(r, str) else r[name] for r in results]
        arrays[name] = np.array(rows, np.float64).reshape(-1, *shape)
    if predictor.domain is not None:
        arrays[IN_DOMAIN] = np.array([not isinstance(r, str) and bool(r[IN_DOMAIN]) for r in results], bool)
    if predictor.limits_neighbors:
        arrays[DROPPED] = np.array([-1 if isinstance(r, str) else r[DROPPED] for r in results], np.int32)
    if predictor.energy is not None:
        arrays["N"] = np.asarray(molecules.N, np.int64)
        none = np.empty((0, 3), predictor.dtype)
        forces = (np.full((n, 3), np.nan) if isinstance(r, str) else r["forces"] for n, r in zip(molecules.N, results))
        arrays["forces"] = np.concatenate([none, *forces]).astype(predictor.dtype)
    if predictor.has_stress:
        nothing = np.full((3, 3), np.nan)
        stresses = [nothing if isinstance(r, str) else r.get("stress", nothing) for r in results]
        arrays["stress"] = np.array(stresses, predictor.dtype).reshape(-1, 3, 3)
        cell, pbc = molecules.cell_arrays() or (
            np.zeros((len(molecules.N), 3, 3)),
            np.zeros((len(molecules.N), 3), bool),
        )
        arrays |= {"cell": cell, "pbc": pbc}
    return arrays


def _join_npz(file: BinaryIO, pieces: Sequence[Path]) -> None:
    def rows(name: str) -> Iterator[np.ndarray]:
        for path in pieces:
            with np.load(path) as piece:
                yield piece[name]

    with np.load(pieces[0]) as piece:
        names = [name for name in piece.files if name != "id"]
    with ZipFile(file, "w") as archive:
        _write_array(archive, "id", lambda: _ids(pieces, names[0]))
        for name in names:
            _write_array(archive, name, functools.partial(rows, name))


def _ids(pieces: Sequence[Path], column: str) -> Iterator[np.ndarray]:
    """Yield the ids of each piece; the molecules' numbers in the file if not every one has an id."""
    everywhere, first = True, 0
    for path in pieces:
        with np.load(path) as piece:
            everywhere &= "id" in piece.files
    for path in pieces:
        with np.load(path) as piece:
            count = len(piece[column])
            yield piece["id"] if everywhere else np.arange(first, first + count)
            first += count


def _write_array(archive: ZipFile, name: str, parts: Callable[[], Iterable[np.ndarray]]) -> None:
    """Add an array whose parts are gone through twice: for its type and length, then for its numbers."""
    dtype, length = None, 0
    shape: tuple[int, ...] = ()
    for part in parts():
        dtype = part.dtype if dtype is None else np.result_type(dtype, part.dtype)
        length, shape = length + len(part), part.shape[1:]
    assert dtype is not None  # there is a piece
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (length, *shape)}
    # the same bytes whenever they are written: a ZipInfo has no time of its own
    with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts():
            member.write(part.astype(dtype).tobytes())
