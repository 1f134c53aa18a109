"""Summary of a data set for people: counts, labels with their units, faults of molecules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.charges import CHARGE_KEYS, SPIN_KEYS
from dimenet_tf.structures.checks import (
    Bad,
    Checks,
    check_length_unit,
    find_bad,
    isolated_atoms,
    searchable_cells,
    summary,
)
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.elements import MAX_Z, symbols
from dimenet_tf.structures.formats import find_layout
from dimenet_tf.structures.limits import REACH, nearest
from dimenet_tf.structures.lookup import likely_names
from dimenet_tf.structures.quantities import PROPERTIES, find_property
from dimenet_tf.structures.readers import NO_TARGETS, SPLIT

SHOWN = 5  # formulas
MAX_ATOMS = 1000  # as `DataConfig.max_atoms`
ARRAYS = ("N", "Z", "R", "id", *SPLIT)
GUESSED = ("energy", "forces")  # properties that are looked for under other names


class Label(NamedTuple):
    """Statistics of a property; for vectors and tensors, of their components."""

    name: str
    unit: str
    molecules: int
    """Number of molecules with this label."""
    low: float
    high: float
    mean: float
    spread: float
    """Standard deviation."""


class Closest(NamedTuple):
    """Smallest distance of two atoms."""

    distance: float
    """Angstrom."""
    elements: tuple[int, int]
    molecule: int


class Survey(NamedTuple):
    """Summary of a data set, see `survey`."""

    source: str
    sizes: tuple[int, int, int]
    """Molecules, atoms of the smallest and of the largest one."""
    elements: dict[int, int]
    """Number of atoms by atomic number."""
    formulas: dict[str, int]
    """Number of molecules by sum formula; empty if an atomic number is not one of an element."""
    states: dict[tuple[float, float], int]
    """Number of molecules by charge and spin multiplicity."""
    periodic: int
    """Number of periodic structures."""
    closest: Closest | None
    labels: Sequence[Label]
    other_names: dict[str, list[str]]
    """Names that may mean a missing property of `GUESSED`, the most likely first."""
    others: dict[str, str]
    """Other contents of the file, with shape or type in words."""
    isolated: int
    """Single atoms with an energy."""
    same: tuple[int, int, int] | None
    """Number of molecules that repeat an earlier one exactly; the first of them, and the one that it repeats."""
    bad: Sequence[Bad]
    problems: Sequence[str]
    """Errors that concern the whole file."""
    notes: Sequence[str]

    @property
    def usable(self) -> int:
        """Number of molecules that can be trained on."""
        return self.sizes[0] - len(self.bad) - self.isolated

    @property
    def names(self) -> list[str]:
        """Names of the labels."""
        return [label.name for label in self.labels]


def survey(
    data: DataContainer, keys: Mapping[str, str] = MappingProxyType({}), targets: Sequence[str] | None = None
) -> Survey:
    """Summarize a data set.

    Parameters
    ----------
    data : from `read_file` with `checks=None`; molecules dropped from it before are reported too
    keys : names in the file by names of the library, as for `read_file`
    targets : labels of which every molecule must have one; all by default

    Examples
    --------
    >>> from dimenet_tf.data import ethanol_xtb
    >>> found = survey(ethanol_xtb())
    >>> found.sizes, found.usable, found.labels[1].name, found.labels[1].unit
    ((2000, 9, 9), 2000, 'energy', 'eV')
    """
    if len(data) == 0:
        raise UserError(f"{data.source} holds no molecules")
    used = {*ARRAYS, *NO_TARGETS, *keys.values(), *find_layout(data.found), *CHARGE_KEYS, *SPIN_KEYS}
    labels = [name for name in data.targets if name not in used]
    checks = Checks("drop", MAX_ATOMS, labels if targets is None else targets)
    problems, isolated = [], np.zeros(len(data), bool)
    try:
        isolated, _ = isolated_atoms(data, checks)
    except UserError as error:
        problems.append(str(error))
    try:
        check_length_unit(data)
    except UserError as error:
        problems.append(str(error))
    elements, counts = np.unique(data.Z, return_counts=True)
    known = len(elements) and elements[0] >= 1 and elements[-1] <= MAX_Z
    missing = [name for name in GUESSED if name not in data.targets]
    others = {name: words for name, words in data.found.items() if name not in (*used, *data.targets)}
    unknown = {name: words for name, words in data.found.items() if name not in (*used, *PROPERTIES)}
    likely = {name: likely_names(name, unknown, len(data), len(data.Z)) for name in missing}
    return Survey(
        data.source,
        (len(data), int(data.N.min()), int(data.N.max())),
        dict(zip(elements.tolist(), counts.tolist())),
        dict(Counter(data.formulas().tolist()).most_common()) if known else {},
        dict(Counter(zip(data.charge.tolist(), data.spin.tolist())).most_common()),
        0 if data.cells is None else int(np.count_nonzero(data.cells.periodic)),
        _closest(data),
        [_label(data, name, ~isolated) for name in labels],
        {name: names for name, names in likely.items() if names},
        others,
        int(np.count_nonzero(isolated)),
        _same(data),
        sorted([*data.dropped, *find_bad(data, checks, isolated)]),
        problems,
        data.notes,
    )


def _closest(data: DataContainer) -> Closest | None:
    finite = np.isfinite(data.R).all(axis=1)
    molecule, Z = data.molecule_of_atom[finite], data.Z[finite]
    near = nearest(molecule, data.R[finite], REACH, searchable_cells(data))
    if not np.isfinite(near.distance).any():
        return None
    atom = int(near.distance.argmin())
    pair = sorted((int(Z[atom]), int(Z[near.neighbor[atom]])))
    return Closest(float(near.distance[atom]), (pair[0], pair[1]), int(molecule[atom]))


def _label(data: DataContainer, name: str, counted: np.ndarray) -> Label:
    kind, has = find_property(name), data.labelled(name) & counted
    values = data.labels(name)[has[data.molecule_of_atom] if kind.per_atom else has]
    values = values[~np.isnan(values)]  # fixed atoms have no forces
    if not has.any():
        return Label(name, kind.unit, 0, *[float("nan")] * 4)
    numbers = (float(f(values)) for f in (np.min, np.max, np.mean, np.std))
    return Label(name, kind.unit, int(np.count_nonzero(has)), *numbers)


def _same(data: DataContainer) -> tuple[int, int, int] | None:
    ends = np.cumsum(data.N)
    first: dict[bytes, int] = {}
    repeated = []
    for m, (start, end) in enumerate(zip(ends - data.N, ends)):
        key = data.Z[start:end].tobytes() + data.R[start:end].tobytes()
        if first.setdefault(key, m) != m:
            repeated.append((m, first[key]))
    return (len(repeated), *repeated[0]) if repeated else None


def format_survey(found: Survey) -> str:
    """Format a survey for printing.

    Examples
    --------
    >>> from dimenet_tf.data import sample
    >>> print(format_survey(survey(sample()[:3])))  # doctest: +ELLIPSIS
    embedded sample: 3 molecules of 3 to 5 atoms, 12 in all
    elements: H 9, C 1, N 1, O 1
    ...
    """
    molecules, low, high = found.sizes
    sizes = f"{low} atoms" if low == high else f"{low} to {high} atoms, {sum(found.elements.values())} in all"
    lines = [f"{found.source}: {_number(molecules)} of {sizes}"]
    lines.append(f"elements: {', '.join(f'{symbols([z])} {n}' for z, n in found.elements.items())}")
    if found.formulas:
        some = [f"{formula} {number}" for formula, number in list(found.formulas.items())[:SHOWN]]
        lines.append(f"formulas: {len(found.formulas)}; {', '.join(some)}{', ...' * (len(found.formulas) > SHOWN)}")
    periodic = f"{found.periodic} of {molecules}" if found.periodic else "no"
    if set(found.states) == {(0.0, 1.0)}:
        lines.append(f"charge and spin: 0 and 1 (singlet) throughout; periodic: {periodic}")
    else:
        states = [f"{number} with {charge:g} and {spin:g}" for (charge, spin), number in found.states.items()]
        lines.append(f"charge and spin multiplicity: {', '.join(states)}; periodic: {periodic}")
    if found.closest:
        pair = "-".join(symbols([z]) for z in found.closest.elements)
        lines.append(f"smallest distance: {found.closest.distance:.3f} Ang, {pair}, molecule {found.closest.molecule}")
    lines += _table(found.labels)
    for name, names in found.other_names.items():
        lines.append(f"{name}: not there under this name; meant may be {' or '.join(names[:SHOWN])}")
    if found.others:
        others = ", ".join(f"{name} {words}" for name, words in found.others.items())
        lines.append(f"not used as labels: {others}")
    if found.isolated:
        lines.append(f"isolated atoms: {found.isolated}, whose energies can be reference energies; not trained on")
    if found.same:
        number, first, earlier = found.same
        lines.append(f"repeated: {_number(number)} with the atoms of an earlier one (first: {first}, as {earlier})")
    lines += [f"note: {note}" for note in found.notes]
    if found.bad:
        lines.append(f"not usable: {len(found.bad)} of {molecules}: {summary(found.bad, first=True)}")
    elif not found.problems:
        lines.append("not usable: none; no outliers")
    return "\n".join([*lines, *(f"PROBLEM: {problem}" for problem in found.problems)])


def _number(molecules: int) -> str:
    return f"{molecules} molecule{'' if molecules == 1 else 's'}"


def _table(labels: Sequence[Label]) -> list[str]:
    if not labels:
        return ["labels: none"]
    rows = [["label", "unit", "molecules", "smallest", "largest", "mean", "std. deviation"]]
    for label in labels:
        numbers = [f"{value:.6g}" for value in (label.low, label.high, label.mean, label.spread)]
        rows.append([label.name, label.unit, str(label.molecules), *numbers])
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    cells = [
        [cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, widths))] for row in rows
    ]
    return ["  ".join(row) for row in cells]
