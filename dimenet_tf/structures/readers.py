"""Readers of data sets. Numbers are converted to the library's units here only."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.structures import qm9_raw
from dimenet_tf.structures.cells import Cells, make_cells
from dimenet_tf.structures.charges import states_of_arrays
from dimenet_tf.structures.checks import STRICT, Checks, check_length_unit
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.formats import find_layout, reading_npz, reading_with_ase
from dimenet_tf.structures.lookup import not_a_target
from dimenet_tf.structures.molecules import join_atoms
from dimenet_tf.structures.quantities import PROPERTIES, conversion, find_property
from dimenet_tf.structures.splits import Split
from dimenet_tf.structures.streams import XyzStream, open_atoms
from dimenet_tf.structures.stress import as_tensors, may_be_voigt, with_stress

if TYPE_CHECKING:
    from ase import Atoms

SPLIT = ("train_idx", "val_idx", "test_idx")
NO_TARGETS = ("numbers", "positions")  # arrays of `ase.Atoms`
PER_ATOM_RESULTS = ("forces", "energies", "stresses", "charges", "magmoms")  # of ASE's calculators
NO_WEIGHTS = ("atomic", "molecular", "mol_")  # weights of these are masses


def read_file(
    path: str | Path,
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    checks: Checks | None = STRICT,
) -> DataContainer:
    """Read a data set from a file.

    Parameters
    ----------
    path : npz (flat arrays, or the layouts of MD17, rMD17 and COLL), XYZ, extended XYZ or QM9's raw xyz (compressed
        too), an ASE database or another format that ASE reads; see `dimenet_tf.structures.frames` for what is repaired
        in XYZ
    keys : where the file has other names than the library: {"energy": "REF_energy"}; {"weight": "config_weight"} reads
        each molecule's weight in the loss
    units : of properties in the file: {"energy": "kcal/mol", "forces": "kcal/mol/Ang", "R": "a0"}. Without them known
        properties are in the library's units (ASE's: eV, Angstrom); the layouts of MD17 and COLL, whose files are in
        various units, need them. Positions whose unit is not given must have bonds that fit Angstrom.
    checks : criteria for bad molecules, and whether these are refused or dropped; None disables all checks

    Raises
    ------
    UserError
        For files that cannot be read, missing arrays, unknown units, bad molecules; names the file and the molecule.

    Examples
    --------
    >>> import tempfile
    >>> lines = ["3", "energy=-14.2", "O 0 0 0", "H 0.96 0 0", "H -0.24 0.93 0"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "water.extxyz"
    ...     _ = file.write_text("\\n".join(lines))
    ...     water = read_file(file, units={"energy": "kcal/mol"})
    >>> len(water), water.labels("energy").round(3)  # eV
    (1, array([-0.616]))
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such file: {path}")
    if path.suffix == ".npz":
        return from_arrays(load_npz(path, str(path)), str(path), keys, units, checks)
    if path.suffix == ".db":
        _check_database(path, units or {})
    frames: list = []
    with open_atoms(path) as stream:
        while some := stream.take_atoms(1000):
            frames += some
        notes = stream.notes
        if isinstance(stream, XyzStream) and stream.is_qm9:
            _check_units_of_qm9(str(path), units or {})
    return from_atoms(frames, str(path), keys, units, checks, notes)


def _check_database(path: Path, units: Mapping[str, str]) -> None:
    import ase.db  # slow to import

    with reading_with_ase(path):
        metadata = ase.db.connect(path).metadata
    if {"_property_unit_dict", "_distance_unit"} & set(metadata) and not units:
        raise UserError(
            f"{path} was written by SchNetPack, in units of its own (its metadata names "
            f"{metadata.get('_property_unit_dict', 'none')}): set data.units to them"
        )


def _check_units_of_qm9(source: str, units: Mapping[str, str]) -> None:
    for name, unit in units.items():
        if name in (*qm9_raw.PROPERTIES, "R") and conversion(name, unit) != 1:
            raise UserError(f"{source} is in QM9's raw format, whose units are known: remove data.units.{name}={unit}")


def load_npz(file: str | Path | BinaryIO, source: str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file. Object arrays are refused: reading them would run code."""
    with reading_npz(source), np.load(file, allow_pickle=False) as content:
        return {key: content[key] for key in content.files}  # an .npy array has no `files`


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    source: str,
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    checks: Checks | None = STRICT,
) -> DataContainer:
    """Make a data set of the arrays of an npz file; see `read_file`.

    Arrays of strings, and those with another shape than a target's, are ignored. `DataContainer.found` lists them.
    """
    keys, units = dict(keys or {}), dict(units or {})
    weight = keys.pop("weight", None)
    flat = "N" in arrays
    layout = find_layout(arrays)
    ours = {theirs: name for theirs, name in layout.items() if theirs in arrays and name not in keys}
    if flat:
        ours = {theirs: name for theirs, name in ours.items() if name not in arrays}
    for name, theirs in {**keys, **({} if weight is None else {"weight": weight})}.items():
        if theirs not in arrays:
            raise unknown_name(f"name in data.keys ({source})", theirs, arrays)
        if not np.issubdtype(np.asarray(arrays[theirs]).dtype, np.number):
            raise UserError(f"{source}: data.keys.{name}={theirs}: '{theirs}' is {_words(arrays[theirs])}, not numbers")
        ours[theirs] = name
    named = {ours.get(key, key): array for key, array in arrays.items() if key in ours or key not in ours.values()}
    split = Split(*(named.pop(key).astype(np.int64) for key in SPLIT)) if set(SPLIT) <= set(named) else None
    named = {key: array for key, array in named.items() if key == "id" or np.issubdtype(array.dtype, np.number)}
    weights = named.pop("weight", None) if weight is not None else None
    if layout:
        units = _units_of_layout(arrays, set(ours.values()) - {"Z", "R"}, units, source)
    missing = [key for key in ("N", "Z", "R") if key not in named and (flat or key != "N")]
    if missing or not (flat or layout):
        array = missing[0] if missing else "N"
        raise UserError(f"{source}: missing array '{array}'; needed are N, Z, R and targets (see docs/data.md)")
    named = {key: as_tensors(array) if may_be_voigt(key) else array for key, array in named.items()}
    if not flat:
        named = _flattened(named, source)
    named = _converted(named, units)
    N, Z, R = (named.pop(key) for key in ("N", "Z", "R"))
    names = named.pop("id", None)
    charge = spin = None
    lattice = {key: arrays[key] for key in ("cell", "pbc") if key in arrays}
    if "cell" in lattice:
        lattice["cell"] = np.asarray(lattice["cell"]) * conversion("R", units.get("R", "Ang"))
    if np.ndim(N) == 1:  # others are refused by the container
        named = {key: array for key, array in named.items() if key in PROPERTIES or array.shape == N.shape}
        charge, spin = states_of_arrays(arrays, len(N), source)
        if weights is not None:
            weights = _weights_of_array(weights, len(N), source, str(weight))
    cells = make_cells(lattice.get("cell"), lattice.get("pbc"), np.size(N), source)
    named, notes = with_stress(named, cells, np.size(N), source)
    fixed = arrays.get("fixed")
    data = DataContainer(N, Z, R, named, names, source, split, False, charge, spin, weights, **lattice, fixed=fixed)
    data.found = {key: _words(array) for key, array in arrays.items()}
    candidates = {key: array for key, array in arrays.items() if weight is None and _is_weight(key)}
    data.notes = [*notes, *_notes_on_weights(source, candidates)]
    return _checked(data, units, checks)


def _weights_of_array(values: np.ndarray, molecules: int, source: str, name: str) -> np.ndarray:
    if values.shape not in ((molecules,), (molecules, 1)):
        raise UserError(
            f"{source}: '{name}' has shape {values.shape}, expected a weight for each of {molecules} molecules"
        )
    values = values.reshape(molecules).astype(np.float64)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        first = int(np.argmax(bad))
        raise UserError(f"{source}: '{name}' of molecule {first} must be a number of at least 0, got {values[first]:g}")
    return values


def _notes_on_weights(source: str, values: Mapping[str, Iterable]) -> list[str]:
    """Return a line for each value that may be weights of molecules, is not always 1, and is not used."""
    notes = []
    for name, of_molecules in values.items():
        try:
            matters = np.any(np.asarray(of_molecules, np.float64) != 1)
        except (TypeError, ValueError):  # not numbers
            continue
        if matters:
            use = f"data.keys.weight={name} multiplies each molecule's loss by it"
            notes.append(f"{source} has '{name}', which is not used: {use}")
    return notes


def _is_weight(name: str) -> bool:
    return "weight" in name.lower() and not any(other in name.lower() for other in NO_WEIGHTS)


def _words(value: object, first: str | None = None) -> str:
    """Return shape and kind of an array, or the type of another value; `first` replaces its first dimension."""
    if isinstance(value, str):
        return f"text ('{value[:20]}')"
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return type(value).__name__
    shape = str(array.shape)
    if first is not None and array.ndim:
        shape = shape.replace(str(len(array)), first, 1)
    kinds = {"i": "", "u": "", "f": "", "S": "text ", "U": "text ", "O": f"{type(value).__name__} "}
    return kinds.get(array.dtype.kind, f"{array.dtype} ") + shape


def _checked(data: DataContainer, units: Mapping[str, str], checks: Checks | None) -> DataContainer:
    if checks is None:
        return data
    if "R" not in units:
        check_length_unit(data)
    return data.checked(checks)


def _units_of_layout(arrays: Mapping, properties: Iterable[str], units: dict[str, str], source: str) -> dict[str, str]:
    """Return the units of a layout: those given, which must agree with those that sGDML's files may name."""
    energy, length = (
        str(np.asarray(arrays[k]).astype(str)).strip() if k in arrays else "" for k in ("e_unit", "r_unit")
    )
    told = {"R": length} if length else {}
    if energy:
        told["energy"] = energy
        if length:
            told["forces"] = f"{energy}/{length}"
    for name, unit in told.items():
        if units.get(name, unit) != unit:
            raise UserError(f"{source} gives its {name} in {unit}, but data.units.{name} is {units[name]}")
    units = {**told, **units}
    lacking = sorted(name for name in properties if name in ("energy", "forces") and name not in units)
    if lacking:
        raise UserError(
            f"{source} does not name the unit of its {' and '.join(lacking)}: add "
            "data.units.energy=kcal/mol data.units.forces=kcal/mol/Ang (MD17, rMD17), or eV and eV/Ang (COLL)"
        )
    return units


def _flattened(named: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Return many geometries of one molecule, z (n,), R (frames, n, 3), E (frames,) or (frames, 1), in flat arrays."""
    Z, R = np.ravel(named["Z"]), named["R"]
    if R.ndim != 3 or R.shape[1:] != (len(Z), 3):
        raise UserError(f"{source}: positions have shape {R.shape}, expected (frames, {len(Z)}, 3)")
    frames = len(R)
    flat = {"N": np.full(frames, len(Z)), "Z": np.tile(Z, frames), "R": R.reshape(-1, 3)}
    for name, array in named.items():
        kind = find_property(name)
        if name in flat or array.ndim == 0 or len(array) != frames:
            continue  # of the molecule or of the file, not of its frames
        expected = (frames, len(Z), *kind.shape) if kind.per_atom else (frames, *kind.shape)
        if array.size == np.prod(expected):
            flat[name] = array.reshape(-1, *kind.shape)
        elif name in PROPERTIES:
            raise UserError(f"{source}: '{name}' has shape {array.shape}, expected {expected}")
    return flat


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
    checks: Checks | None = STRICT,
    notes: Sequence[str] = (),
) -> DataContainer:
    """Make a data set of a list of `ase.Atoms`.

    Targets are the numbers in `atoms.info` and the results of the attached calculators, and the vectors and tensors
    that the library knows in both and in `atoms.arrays`. Molecules that lack a target have NaN for it.
    Charges and spin multiplicities are those of `dimenet_tf.structures.charges.state_of`, weights those in
    `atoms.info[keys["weight"]]` (1 where it is missing). `notes` become those of the container.

    Examples
    --------
    >>> from ase.build import molecule
    >>> frames = [molecule("H2O"), molecule("CH4")]
    >>> for atoms, energy in zip(frames, (-14.2, -24.0)):
    ...     atoms.info["REF_energy"] = energy
    >>> from_atoms(frames, keys={"energy": "REF_energy"}).labels("energy")
    array([-14.2, -24. ])
    """
    keys = dict(keys or {})
    molecules = join_atoms(frames)
    for i, fault in sorted(molecules.faults.items()):
        raise UserError(f"{source}: molecule {i} {fault}")
    found = [_what_is_known(i, atoms, source) for i, atoms in enumerate(frames)]
    everything = dict.fromkeys(name for values in found for name in values)
    for theirs in keys.values():
        if theirs not in everything:
            raise unknown_name(f"name in data.keys ({source})", theirs, everything)
    weight = keys.pop("weight", None)
    weights = None if weight is None else _weights(found, weight, source)
    # a property that has a name in `keys` is taken from there alone, never from a calculator for want of it
    names = {name: keys.get(name, name) for name in (set(everything) | set(keys)) - {"id", weight} - set(keys.values())}
    targets = {}
    for name in sorted(names):
        kind = find_property(name)
        rows = []
        for atoms, values in zip(frames, found):
            shape = (len(atoms), *kind.shape) if kind.per_atom else kind.shape
            rows.append(_numbers(values.get(names[name]), shape, kind.voigt))
        if any(np.isfinite(row).any() for row in rows):
            targets[name] = np.concatenate(rows) if kind.per_atom else np.stack(rows)
        elif name in keys:
            first = next(values[keys[name]] for values in found if keys[name] in values)
            raise UserError(f"{source}: data.keys.{name}={keys[name]}: {not_a_target(name, keys[name], _words(first))}")
    targets = _converted({"R": molecules.R, **targets}, units or {})
    cells = None
    if molecules.cells is not None:
        scale = conversion("R", (units or {}).get("R", "Ang"))
        cells = Cells(molecules.cells.cell * scale, molecules.cells.pbc)
    targets, of_stress = with_stress(targets, cells, len(frames), source)
    data = DataContainer(
        molecules.N,
        molecules.Z,
        targets.pop("R"),
        targets,
        [values["id"] for values in found] if found and all("id" in values for values in found) else None,
        source,
        check=False,
        charge=molecules.charge,
        spin=molecules.spin,
        weight=weights,
        cell=None if cells is None else cells.cell,
        pbc=None if cells is None else cells.pbc,
    )
    data.found = _found(frames, found)
    unused = [name for name in everything if weight is None and _is_weight(name)]
    candidates = {name: [values[name] for values in found if name in values] for name in unused}
    data.notes = [*notes, *of_stress, *_notes_on_weights(source, candidates)]
    return _checked(data, units or {}, checks)


def _weights(found: Sequence[Mapping], name: str, source: str) -> np.ndarray:
    weights = np.ones(len(found))
    for i, values in enumerate(found):
        weights[i] = value = _numbers(values.get(name, 1), ())
        if not (np.isfinite(value) and value >= 0):
            raise UserError(f"{source}: '{name}' of molecule {i} must be a number of at least 0, got {values[name]!r}")
    return weights


def _found(frames: Sequence, found: Sequence[Mapping]) -> dict[str, str]:
    """Return the values of molecules by name, with their shapes and the number of molecules that have them."""
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for i, values in enumerate(found):
        counts.update(values.keys())
        if len(first) < len(counts):
            first.update({name: i for name in values if name not in first})
    words = {}
    for name, i in first.items():
        value = found[i][name]
        if name in NO_TARGETS or value is True:  # flags, and words of comments without key=value
            continue
        per_atom = name in frames[i].arrays or name in PER_ATOM_RESULTS
        words[name] = _words(value, "atoms" if per_atom else None)
        if counts[name] < len(found):
            words[name] += f" in {counts[name]} of {len(found)} molecules"
    return words


def _what_is_known(i: int, atoms: Atoms, source: str) -> dict:
    """Return all values of a molecule by name; ASE keeps energy and forces apart from the other numbers."""
    results = atoms.calc.results if atoms.calc else {}
    finite = np.isfinite(atoms.positions).all()  # NaN is never the same; that it is bad is found later
    if results and finite and atoms.calc.check_state(atoms):
        raise UserError(
            f"{source}: the calculator of molecule {i} has results of other atoms or positions; compute them first, "
            "and give each molecule a calculator of its own (ase.calculators.singlepoint)"
        )
    return {**atoms.arrays, **results, **atoms.info}


def _numbers(value: object, shape: tuple[int, ...], voigt: bool = False) -> np.ndarray:
    """Return a value as floats of the given shape; NaN if it has another type or shape. See `Quantity.voigt`."""
    if isinstance(value, (numbers.Real, np.ndarray, list, tuple)):
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            return np.full(shape, np.nan)
        if voigt:
            array = as_tensors(array)
        fits = array.shape == shape
        if isinstance(value, np.ndarray):  # energies as arrays of one number, tensors as nine of extended XYZ
            fits = fits or (array.size == np.prod(shape) and (array.size == 1 or len(shape) == 2))
        if fits and array.dtype.kind in "biuf":
            return array.astype(np.float64).reshape(shape)
    return np.full(shape, np.nan)
