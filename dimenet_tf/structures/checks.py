"""Checks of molecules and of the unit of their positions, made when data are loaded. Nothing is repaired."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.cells import Cells, wrapped
from dimenet_tf.structures.cells import why_refused as cell_fault
from dimenet_tf.structures.charges import why_refused
from dimenet_tf.structures.elements import MAX_Z, symbols
from dimenet_tf.structures.flat import FlatMolecules
from dimenet_tf.structures.limits import CLOSEST, MOST, REACH, describe_unit, nearest, too_far, unit_of_bonds
from dimenet_tf.structures.outliers import find_outliers
from dimenet_tf.structures.quantities import PROPERTIES, find_property

ON_BAD = ("error", "drop")
SAME_ATOM = 1e-3  # eV, or the unit of another property; between values of single atoms of one element
OUTLIERS = ("bad", "keep")
OUTLIER = "an outlier of "  # the faults that begin so can be kept
LOOKED_AT = 500  # molecules


@dataclasses.dataclass(frozen=True)
class Checks:
    """Validation options: which molecules are bad, and whether these are refused or dropped.

    Parameters
    ----------
    on_bad : "error" or "drop"
    max_atoms : larger molecules are bad; None for no limit
    targets : names of required properties; a molecule without a finite value of any of them is bad
    outliers : "bad" or "keep": whether an outlying value of `targets` makes a molecule bad, see `find_outliers`

    Examples
    --------
    >>> from dimenet_tf.data import Checks, sample
    >>> small = sample(Checks(on_bad="drop", max_atoms=12))
    >>> int(small.N.max()), len(small) + len(small.dropped)
    (12, 2000)
    """

    on_bad: str = "error"
    max_atoms: int | None = None
    targets: Sequence[str] = ()
    outliers: str = "bad"


STRICT = Checks()


class Bad(NamedTuple):
    """Molecule that cannot be used, with its first fault."""

    index: int  # type: ignore[assignment]  # hides `tuple.index`
    """In the file or the arrays that it came from, from 0."""
    id: int | str
    fault: str
    """Name of the fault, the same for all molecules that have it."""
    detail: str

    @property
    def reason(self) -> str:
        """Fault and detail."""
        return f"{self.fault} ({self.detail})" if self.detail else self.fault


def find_bad(data: FlatMolecules, checks: Checks, isolated: np.ndarray | None = None) -> list[Bad]:
    """Return the bad molecules in ascending order, each with its first fault.

    Parameters
    ----------
    data : FlatMolecules
    checks : Checks
    isolated : (molecules,) bool, single atoms that are set aside and not judged; see `isolated_atoms`
    """
    molecule, N = data.molecule_of_atom, data.N
    judged = np.ones(len(N), bool) if isolated is None else ~isolated
    first_atom = np.cumsum(N) - N

    def atoms(bad: np.ndarray) -> dict[int, str]:
        """Molecules of atoms, (sum N,) bool, with the number of the first such atom of each."""
        which = np.flatnonzero(bad)[::-1]  # of several atoms the first is entered last
        within = which - first_atom[molecule[which]]
        return {m: f"atom {i}" for m, i in zip(molecule[which].tolist(), within.tolist())}

    def molecules(bad: np.ndarray) -> dict[int, str]:
        return dict.fromkeys(np.flatnonzero(bad).tolist(), "")

    faults = {
        "no atoms": molecules(N == 0),
        "a single atom, of which these models predict nothing but the reference energy": molecules(
            judged & (N == 1) & (data.charge == 0) & ~_is_periodic(data)
        ),
        f"an atomic number that is not in 1 ... {MAX_Z}": atoms((data.Z < 1) | (data.Z > MAX_Z)),
        "a coordinate that is not finite": atoms(~np.isfinite(data.R).all(axis=1)),
    }
    charged = judged & ((data.charge != 0) | (data.spin != 1))
    reasons = {int(m): why_refused(data.charge[m], data.spin[m]) or "" for m in np.flatnonzero(charged)}
    faults["a charge or spin that the models do not take"] = reasons
    far = too_far(N, data.R)
    faults[f"positions so far from the origin that {data.R.dtype} has cut them"] = molecules(judged & far)
    faults["a cell that cannot be used"] = _faulty_cells(data)
    if checks.max_atoms is not None:
        large = np.flatnonzero(checks.max_atoms < N)
        faults[f"more than {checks.max_atoms} atoms"] = {int(m): f"{N[m]}" for m in large}
    # looked for in what is good so far: neither positions that are not finite nor huge molecules are searched
    good = judged.copy()
    good[[m for found in faults.values() for m in found]] = False
    faults[f"two atoms closer than {CLOSEST} Ang"] = _close(data, good)
    ids = data.id.astype(str) if data.id.dtype == object else data.id
    good[list(faults[f"two atoms closer than {CLOSEST} Ang"])] = False
    repeated = np.zeros(len(N), bool)  # among the good: the id of a dropped molecule is free
    repeated[good] = ~_is_first(ids[good])
    faults["an id that an earlier molecule has"] = molecules(repeated)
    faults |= _faulty_labels(data, checks, judged)
    good[[m for found in faults.values() for m in found]] = False
    if checks.outliers == "bad":
        faults |= _outliers(data, checks, good)
    return _first_faults(data, faults)


def find_kept(data: FlatMolecules, checks: Checks) -> list[Bad]:
    """Return the outliers among molecules that are not bad, with `checks.outliers` "keep"; none without."""
    if checks.outliers != "keep":
        return []
    return _first_faults(data, _outliers(data, checks, np.ones(len(data), bool)))


def _outliers(data: FlatMolecules, checks: Checks, judged: np.ndarray) -> dict[str, dict[int, str]]:
    known = [name for name in checks.targets if name in data.targets]
    return {f"{OUTLIER}'{name}'": find_outliers(data, name, judged) for name in known}


def _faulty_labels(data: FlatMolecules, checks: Checks, judged: np.ndarray) -> dict[str, dict[int, str]]:
    """Return molecules with an infinite label, and those without any of the wanted ones.

    A molecule that has some of them is used for these.
    """
    known = [name for name in checks.targets if name in data.targets]
    faults, none = {}, judged & bool(known)
    for name in known:
        values = data.targets[name]
        infinite = np.isinf(values).any(axis=tuple(range(1, values.ndim)))
        if find_property(name).per_atom:
            infinite = np.bincount(data.molecule_of_atom[infinite], minlength=len(data)) > 0
        if len(known) > 1:
            faults[f"an infinite value of '{name}'"] = dict.fromkeys(np.flatnonzero(judged & infinite).tolist(), "")
        none &= ~data.labelled(name)
    names = ", ".join(f"'{name}'" for name in known)
    fault = f"target {names} missing or not finite" if len(known) == 1 else f"no value of any of the targets {names}"
    return {**faults, fault: dict.fromkeys(np.flatnonzero(none).tolist(), "")}


def _first_faults(data: FlatMolecules, faults: dict[str, dict[int, str]]) -> list[Bad]:
    found: dict[int, Bad] = {}
    for fault, where in faults.items():
        for m, detail in where.items():
            found.setdefault(m, Bad(m, np.asarray(data.id[m]).item(), fault, detail))
    return [found[m] for m in sorted(found)]


def isolated_atoms(data: FlatMolecules, checks: Checks) -> tuple[np.ndarray, dict[str, dict[int, float]]]:
    """Find neutral single atoms whose values can be reference energies.

    These are single atoms with a finite value of an extensive scalar property, one that the library knows or a wanted
    one. Their spin is ignored, because free atoms are open-shell.

    Returns
    -------
    isolated : (molecules,) bool
    values : of each such property that is wanted (of all if `checks.targets` is empty), by atomic number

    Raises
    ------
    UserError
        If two atoms of one element have values that differ by more than `SAME_ATOM`.
    """
    single = (data.N == 1) & (data.charge == 0) & ~_is_periodic(data)
    atoms = np.repeat(single, data.N)
    atomic_number = np.zeros(len(data), int)
    atomic_number[single] = np.where(np.isfinite(data.R[atoms]).all(axis=1), data.Z[atoms], 0)
    single &= (atomic_number >= 1) & (atomic_number <= MAX_Z)
    isolated = np.zeros(len(data), bool)
    values: dict[str, dict[int, float]] = {}
    for name in data.targets if single.any() else ():
        kind = find_property(name)
        known = name in PROPERTIES or name in checks.targets
        if not (known and kind.extensive and kind.shape == () and not kind.per_atom):
            continue
        has = single & data.labelled(name)
        isolated |= has
        if not has.any() or (checks.targets and name not in checks.targets):
            continue
        found = values.setdefault(name, {})
        for m in np.flatnonzero(has):
            z, value = int(atomic_number[m]), float(data.targets[name][m])
            first = found.setdefault(z, value)
            if abs(value - first) > SAME_ATOM:
                raise UserError(
                    f"{data.source}: single atoms of {symbols([z])} have different values of '{name}', {first:.10g} "
                    f"and {value:.10g} {kind.unit} (molecule {m}): leave one of them in the file"
                )
    return isolated, values


def _is_first(values: np.ndarray) -> np.ndarray:
    """Return which values differ from all earlier ones, (n,) bool."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _is_periodic(data: FlatMolecules) -> np.ndarray:
    return np.zeros(len(data), bool) if data.cells is None else data.cells.periodic


def _faulty_cells(data: FlatMolecules) -> dict[int, str]:
    """Return structures whose cell cannot be used, with the reason."""
    if data.cells is None:
        return {}
    lattices = zip(*data.cells, data.N.tolist())
    reasons = {m: cell_fault(cell, pbc, n, REACH, CLOSEST) for m, (cell, pbc, n) in enumerate(lattices)}
    return {m: reason for m, reason in reasons.items() if reason is not None}


def searchable_cells(data: FlatMolecules) -> Cells | None:
    """Return the cells of a data set; structures whose cell cannot be used are not periodic in them."""
    if data.cells is None:
        return None
    good = ~np.isin(np.arange(len(data)), list(_faulty_cells(data)))
    return Cells(data.cells.cell, data.cells.pbc & good[:, None])


def _close(data: FlatMolecules, searched: np.ndarray) -> dict[int, str]:
    """Return molecules of atoms at less than `CLOSEST` of each other, with the smallest distance; (molecules,) bool."""
    molecule, R = data.molecule_of_atom, data.R
    atoms, cells = np.flatnonzero(searched[molecule]), None
    if data.cells is not None:  # the others may have cells that cannot be searched
        cells = Cells(data.cells.cell, data.cells.pbc & searched[:, None])
        R = wrapped(data.N, R, cells)
    distance = nearest(molecule[atoms], R[atoms], CLOSEST, cells).distance
    close = np.flatnonzero(distance < CLOSEST)
    close = close[np.argsort(-distance[close], kind="stable")]  # of several distances the smallest is entered last
    return {m: f"{d:.3g} Ang" for m, d in zip(molecule[atoms[close]].tolist(), distance[close].tolist())}


def check_length_unit(data: FlatMolecules) -> None:
    """Raise a UserError if most atoms have bonds of the length that they would have in Bohr, nanometers or picometers.

    Only bonds between H, C, N, O and F are measured.
    """
    some = data.select(np.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).astype(int))
    if some.cells is not None:
        some = some.select(np.setdiff1d(np.arange(len(some)), list(_faulty_cells(some))))
    finite = np.isfinite(some.R).all(axis=1)
    molecule, Z, R = some.molecule_of_atom[finite], some.Z[finite], some.R[finite]
    for within in (REACH, 100 * REACH):
        near = nearest(molecule, R, within, some.cells)
        if unit := unit_of_bonds(Z, near):
            raise UserError(
                f"{data.source}: {describe_unit(unit, near)}: set data.units.R={unit}, or data.units.R=Ang if they "
                "are right"
            )
        if not len(R) or some.N.max() == 1 or np.mean(np.isinf(near.distance)) <= MOST:
            return
    raise UserError(
        f"{data.source}: most atoms have no other within {REACH:g} Angstrom; in which unit are the positions? Set "
        "data.units.R=pm (or nm, a0), or data.units.R=Ang if they are right"
    )


def summary(bad: Sequence[Bad], first: bool = False) -> str:
    """Return the number of molecules with each fault, in one line; `first`: with the first such molecule."""
    texts = []
    for fault, count in Counter(b.fault for b in bad).items():
        example = next(b for b in bad if b.fault == fault)
        detail = f", {example.detail}" if example.detail else ""
        where = f" ({'first: ' if count > 1 else ''}molecule {example.index}, id {example.id}{detail})"
        texts.append(f"{count} with {fault}{where if first else ''}")
    return "; ".join(texts)


def bad_data(source: str, bad: Sequence[Bad], molecules: int) -> UserError:
    """Make the error for bad molecules; `molecules` is the number of all molecules."""
    if len(bad) == molecules:
        return UserError(f"{source}: none of the {molecules} molecules can be used: {summary(bad, first=True)}")
    keep = any(b.fault.startswith(OUTLIER) for b in bad)
    return UserError(
        f"{source}: {len(bad)} of {molecules} molecules cannot be used: {summary(bad, first=True)}; "
        f"in a configuration, data.on_bad=drop leaves them out{', data.outliers=keep trains on the outliers' * keep}"
    )
