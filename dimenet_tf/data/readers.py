"""Files -> data containers. Numbers are converted to the library's units here and nowhere else."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from dimenet_tf.data.container import DataContainer
from dimenet_tf.data.properties import PROPERTIES, conversion, find_property
from dimenet_tf.data.splits import Split
from dimenet_tf.errors import UserError, unknown_name

STRUCTURE = ("id", "N", "Z", "R")
# layouts of npz files that hold many geometries of one molecule: their names of our arrays
MD17 = {"z": "Z", "R": "R", "E": "energy", "F": "forces"}
RMD17 = {"nuclear_charges": "Z", "coords": "R", "energies": "energy", "forces": "forces"}
COLL = {"E": "energy", "F": "forces"}  # flat arrays under GemNet's names
SPLIT = ("train_idx", "val_idx", "test_idx")
PERIODIC = "is periodic; only molecules are supported"


def read_file(path: str | Path, keys: Mapping[str, str] | None = None, units: Mapping[str, str] | None = None):
    """Read a data set from a file.

    Parameters
    ----------
    path : npz (flat arrays, or the layouts of MD17, rMD17 and COLL), extended XYZ, an ASE database or another format
        that ASE reads
    keys : where the file has other names than the library: {"energy": "REF_energy"}
    units : of properties in the file: {"energy": "kcal/mol", "forces": "kcal/mol/Ang", "R": "a0"}. Without them known
        properties are in the library's units (ASE's: eV, Angstrom); the layouts of MD17 and COLL, whose files are in
        various units, need them.

    Returns
    -------
    DataContainer

    Raises
    ------
    UserError
        For files that cannot be read, missing arrays, unknown units; names the file and the molecule.
    """
    path, keys, units = Path(path), keys or {}, units or {}
    if path.suffix == ".npz":
        return read_npz(path, keys, units)
    if not path.exists():
        raise UserError(f"no such file: {path}")
    return from_atoms(_ase_frames(path), str(path), keys, units)


def read_npz(path: str | Path, keys: Mapping[str, str] | None = None, units: Mapping[str, str] | None = None):
    """Read an npz file; see `read_file`.

    Arrays of text (`smiles`, say) are passed over. Object arrays are refused: reading them would run code.
    """
    if not Path(path).exists():
        raise UserError(f"no such file: {path}")
    return from_arrays(load_npz(path, str(path)), str(path), keys, units)


def load_npz(file: str | Path | BinaryIO, source: str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file without ever unpickling."""
    try:
        with np.load(file, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}  # an .npy array has no `files`
    except (ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, BadZipFile, ZlibError) as error:
        raise UserError(f"{source} is not a readable npz file without pickled objects ({error})") from None


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    source: str,
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> DataContainer:
    """Take molecules from the arrays of an npz file; see `read_file`."""
    arrays, units = _renamed(arrays, keys or {}, source), dict(units or {})
    split = Split(*(arrays.pop(key).astype(np.int64) for key in SPLIT)) if set(SPLIT) <= set(arrays) else None
    for layout in (MD17, RMD17):
        if "N" not in arrays and {name for name in layout if layout[name] in ("Z", "R")} <= set(arrays):
            return _one_molecule(arrays, layout, units, source, split)
    missing = [key for key in ("N", "Z", "R") if key not in arrays]
    if missing:
        raise UserError(f"{source}: missing array '{missing[0]}'; needed are N, Z, R and targets (see README)")
    coll = {key: COLL[key] for key in COLL if key in arrays and COLL[key] not in arrays}
    _check_units(coll.values(), units, source)
    arrays = {coll.get(key, key): values for key, values in arrays.items()}
    targets = {k: v for k, v in arrays.items() if k not in STRUCTURE and np.issubdtype(v.dtype, np.number)}
    targets = _converted({"R": arrays["R"], **targets}, units)
    R = targets.pop("R")
    return DataContainer(arrays["N"], arrays["Z"], R, targets, arrays.get("id"), source, split)


def _one_molecule(
    arrays: dict, layout: Mapping[str, str], units: dict[str, str], source: str, split: Split | None
) -> DataContainer:
    """Many geometries of one molecule: z (n,), R (frames, n, 3), E (frames,) or (frames, 1), F (frames, n, 3)."""
    named = {ours: arrays[theirs] for theirs, ours in layout.items() if theirs in arrays}
    Z, R = np.ravel(named.pop("Z")), named.pop("R")
    if R.ndim != 3 or R.shape[1:] != (len(Z), 3):
        raise UserError(f"{source}: positions have shape {R.shape}, expected (frames, {len(Z)}, 3)")
    # sGDML's files may say what they hold
    energy, length = (str(arrays[key]).strip() if key in arrays else None for key in ("e_unit", "r_unit"))
    if energy:
        units = {"energy": energy, "forces": f"{energy}/{length or 'Ang'}", "R": length or "Ang", **units}
    _check_units(named, units, source)
    frames = len(R)
    targets = _converted({"R": R.reshape(-1, 3), **named}, units)
    R = targets.pop("R")
    if "energy" in targets:
        targets["energy"] = targets["energy"].reshape(-1)
    if "forces" in targets:
        targets["forces"] = targets["forces"].reshape(-1, 3)
    return DataContainer(np.full(frames, len(Z)), np.tile(Z, frames), R, targets, source=source, split=split)


def _check_units(names: Iterable[str], units: Mapping[str, str], source: str) -> None:
    lacking = [name for name in names if name not in units]
    if lacking:
        raise UserError(
            f"{source} does not say the unit of its {' and '.join(lacking)}: add "
            "data.units.energy=kcal/mol data.units.forces=kcal/mol/Ang (MD17, rMD17), or eV and eV/Ang (COLL)"
        )


def _renamed(arrays: Mapping[str, np.ndarray], keys: Mapping[str, str], source: str) -> dict[str, np.ndarray]:
    """Return the arrays under the library's names."""
    for theirs in keys.values():
        if theirs not in arrays:
            raise unknown_name(f"name in data.keys ({source})", theirs, arrays)
    ours = {theirs: name for name, theirs in keys.items()}
    return {ours.get(name, name): array for name, array in arrays.items() if name not in keys or name in ours}


def _converted(targets: Mapping[str, np.ndarray], units: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the targets that the library knows in its units, float64; others as they are."""
    factors = {name: conversion(name, unit) for name, unit in units.items() if name in PROPERTIES or name == "R"}
    return {
        name: np.asarray(values, np.float64) * factors[name] if factors.get(name, 1.0) != 1.0 else values
        for name, values in targets.items()
    }


def from_atoms(
    frames: Sequence,
    source: str = "atoms",
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> DataContainer:
    """Take molecules from a list of `ase.Atoms`.

    Targets are the numbers in `atoms.info`, what the attached calculators have computed, and in both and in
    `atoms.arrays` the vectors and tensors that the library knows. A target that only some of the molecules have can be
    trained on by none: `DataContainer.target` then names the first molecule without it.
    """
    periodic = [i for i, atoms in enumerate(frames) if atoms.pbc.any()]
    if periodic:
        raise UserError(f"{source}: molecule {periodic[0]} {PERIODIC}")
    # ASE's readers keep energy and forces apart from the other numbers of a frame
    found = [{**atoms.arrays, **(atoms.calc.results if atoms.calc else {}), **atoms.info} for atoms in frames]
    everything = {name: None for values in found for name in values}
    _renamed(everything, keys or {}, source)
    found = [_renamed(values, {k: v for k, v in (keys or {}).items() if v in values}, source) for values in found]
    names = dict.fromkeys(name for values in found for name in values if name != "id")
    targets = {}
    for name in sorted(names):
        kind = find_property(name)
        rows = []
        for atoms, values in zip(frames, found):
            shape = (len(atoms), *kind.shape) if kind.per_atom else kind.shape
            rows.append(_numbers(values.get(name), shape))
        if any(np.isfinite(row).any() for row in rows):
            targets[name] = np.concatenate(rows) if kind.per_atom else np.stack(rows)
    R = np.concatenate([np.empty((0, 3)), *(atoms.positions for atoms in frames)])
    targets = _converted({"R": R, **targets}, units or {})
    return DataContainer(
        [len(atoms) for atoms in frames],
        np.concatenate([np.empty(0, int), *(atoms.numbers for atoms in frames)]),
        targets.pop("R"),
        targets,
        [values["id"] for values in found] if all("id" in values for values in found) else None,
        source,
    )


def _numbers(value, shape: tuple[int, ...]) -> np.ndarray:
    """Return a value as floats of the given shape; NaN where it is none of the kind."""
    if isinstance(value, (numbers.Real, np.ndarray, list, tuple)) and np.shape(value) == shape:
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return array.astype(np.float64)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.size == np.prod(shape) and len(shape) == 2:
        return value.astype(np.float64).reshape(shape)  # extended XYZ has tensors as nine numbers
    return np.full(shape, np.nan)


def _ase_frames(path: Path) -> list:
    import ase.db  # slow to import, and needed for these formats only
    import ase.io

    try:
        if path.suffix == ".db":
            frames = []
            for row in ase.db.connect(path).select():
                atoms = row.toatoms()
                atoms.info.update(row.key_value_pairs, **row.data)
                frames.append(atoms)
            return frames
        return ase.io.read(path, index=":")
    except (ase.io.formats.UnknownFileTypeError, ase.io.ParseError, OSError, ValueError, LookupError) as error:
        raise UserError(f"{path} could not be read by ASE: {error}") from None
