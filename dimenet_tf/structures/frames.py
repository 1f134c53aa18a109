"""Frames of (extended) XYZ files: repair of the spellings of other programs, parsing, and error messages.

Frames are parsed by ASE. Before that, numbers (`1.5D+02`, QM9's `6.93*^-6`), the species column (atomic numbers, `D`,
`C1`, `CL`) and the encoding are converted to the form that ASE reads. A cheap test decides whether a frame needs this.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

from dimenet_tf.structures.elements import SYMBOLS

if TYPE_CHECKING:
    from ase import Atoms

PLAIN = "species:S:1:pos:R:3"  # columns of a file whose comments do not name them
SPECIES = ("species", "symbols")
USUAL = (b"Properties=species:S:1:", b'Properties="species:S:1:')
ALL_SYMBOLS = [*SYMBOLS, *"Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og".split()]
ELEMENTS = frozenset(ALL_SYMBOLS[1:])  # the check of molecules refuses those beyond the library's
CLEAN = frozenset(symbol.encode() for symbol in ELEMENTS)
# Element symbols that are also names of H, C, N, O and P atoms in the PDB (CA, HG, NE) or GAFF's atom types (ca, os).
# They are taken for elements only in their proper case.
AMBIGUOUS = frozenset("Ca Cd Ce Co Cs Cu He Hf Hg Ho Na Nb Nd Ne No Np Os Pa Pb Pd".split())
ISOTOPES = {"D": 2.01410177812, "T": 3.01604928199}  # masses, u
LABEL = re.compile(r"(?:\d{1,3})?([A-Za-z]{1,2})(?:\d{1,6}|_\w{0,6})?")  # C1, 13C, C_3: an element and a number
LAMMPS = "Atoms. Timestep"  # comment of LAMMPS' `dump xyz`, whose first column holds atom types by default

MANTISSA = r"[+-]?(?:\d+\.?\d*|\.\d+)"
FORTRAN = re.compile(rf"({MANTISSA})(?:[dD]|\*\^)([+-]?\d{{1,4}})")
NO_LETTER = re.compile(r"([+-]?\d*\.\d+)([+-]\d{3})")  # Fortran drops the letter of exponents of three digits
PLAIN_NUMBER = re.compile(rf"{MANTISSA}(?:[eE][+-]?\d+)?")
SUSPECT = re.compile(rb"[0-9.](?:[dD]|\*\^)[+-]?[0-9]")
WITH_POINT = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+)(?:[dD]|\*\^)[+-]?\d{1,4}|[+-]?\d+(?:[dD][+-]|\*\^[+-]?)\d{1,4}")
VALUE = re.compile(
    r"""(?<==)(?P<gap>\s*)(?:
        "(?P<double>(?:\\.|[^"\\])*)" | '(?P<single>(?:\\.|[^'\\])*)' | \{(?P<brace>[^}]*)\} | \[(?P<bracket>[^\]]*)\]
        | (?P<bare>[^\s"'{}\[\]=]+)(?=\s|$)
    ) | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*'""",
    re.VERBOSE,
)
PROPERTIES = re.compile(r"""(?:^|\s)Properties\s*=\s*(?:"([^"]*)"|'([^']*)'|(\S+))""")


class Column(NamedTuple):
    """A column of the lines of atoms."""

    name: str
    type: str
    """S, R, I or L: string, real number, integer or logical."""


class FrameError(ValueError):
    """Error in a frame, with the number of its line in the frame, from 0; None if the line is unknown."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


class Notes:
    """Counts of the repairs that a user should know of."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.example = ("", "")

    def add(self, kind: str, count: int = 1) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + count

    def lines(self, source: str) -> list[str]:
        """Return one line for each kind."""
        label, symbol = self.example
        texts = {
            "isotope": "{n} atoms D or T are read as hydrogen of their masses; the models do not use masses",
            "number": "{n} atoms have atomic numbers in the species column, which are read as elements (6 as C)",
            "label": f"{{n}} atoms have labels, which are read as elements ('{label}' as {symbol})",
            "encoding": "{n} molecules have characters that are not UTF-8, which are read as Latin-1",
            "columns": "{n} molecules have more columns than Properties= names; the further columns are not read",
            "unnamed": "{n} molecules have columns after the positions that no Properties= names; they are not read",
            "qm9": "{n} molecules are in QM9's raw format; energies are read in eV, U0, U, H and G as atomization "
            "energies; data.name=qm9 also leaves out the molecules that failed QM9's consistency check",
        }
        return [f"{source}: {text.format(n=self.counts[kind])}" for kind, text in texts.items() if kind in self.counts]


def parse_frame(lines: Sequence[bytes], notes: Notes) -> Atoms:
    """Return a frame as `ase.Atoms`.

    Parameters
    ----------
    lines : number of atoms, comment, one line an atom; then perhaps ASE's cell vectors (`VEC1 ...`)
    notes : counts repairs that a user should know of

    Raises
    ------
    FrameError
        For frames that cannot be read; names the line and what is wrong in it.
    """
    body = b"".join(lines[2:])
    if not is_clean(lines, body):
        return _parse_repaired(lines, notes)
    try:
        text = (lines[0] + lines[1] + body).decode()
        atoms = _parse(text)
    except MemoryError:
        raise
    except Exception:  # ASE's readers raise whatever their code happens to
        return _parse_repaired(lines, notes)
    _note_columns(lines[1].decode(), lines[2:3], notes)
    return atoms


def is_clean(lines: Sequence[bytes], body: bytes) -> bool:
    """Tell whether ASE can read a frame unchanged; a cheap test, which may be False for frames that ASE can read."""
    comment = lines[1]
    if b"Properties" in comment and not any(usual in comment for usual in USUAL):
        return False
    if SUSPECT.search(comment):
        return False
    if (b"D" in body or b"d" in body or b"*" in body) and SUSPECT.search(body):
        return False
    try:
        return CLEAN.issuperset([line.split(None, 1)[0] for line in lines[2:]])
    except IndexError:  # an empty line
        return False


def _parse(text: str) -> Atoms:
    from ase.io.extxyz import read_xyz  # slow to import

    return next(iter(read_xyz(StringIO(text), 0)))


def _parse_repaired(lines: Sequence[bytes], notes: Notes) -> Atoms:
    try:
        texts = [line.decode() for line in lines]
    except UnicodeDecodeError:
        texts = [line.decode("latin-1") for line in lines]
        notes.add("encoding")
    found = Notes()
    count = int(texts[0])
    repaired, masses = repair(texts, count, found)
    try:
        atoms = _parse("\n".join(repaired))
    except MemoryError:
        raise
    except Exception as error:
        raise diagnosis(repaired, count, error) from error
    if masses and not atoms.has("masses"):
        atoms.set_masses([masses.get(i, mass) for i, mass in enumerate(atoms.get_masses())])
    for kind, number in found.counts.items():
        notes.add(kind, number)
    if "label" in found.counts and not notes.example[0]:
        notes.example = found.example
    _note_columns(texts[1], texts[2:3], notes)
    return atoms


def _note_columns(comment: str, first: Sequence, notes: Notes) -> None:
    named = _properties(comment)
    if first and len(first[0].split()) > len(parse_columns(named or PLAIN)):
        notes.add("columns" if named else "unnamed")


def _properties(comment: str) -> str:
    """Return the value of `Properties=`; empty if there is none."""
    found = PROPERTIES.search(comment) if "Properties" in comment else None
    return next(filter(None, found.groups()), "") if found else ""


@functools.lru_cache(maxsize=100)
def parse_columns(properties: str) -> tuple[Column, ...]:
    """Return the columns that a value of `Properties=` names.

    Examples
    --------
    >>> parse_columns("species:S:1:pos:R:3")[1]
    Column(name='pos', type='R')
    """
    fields = properties.split(":")
    names, types, sizes = fields[::3], fields[1::3], fields[2::3]
    if len(fields) % 3 or not all(s.isdigit() and int(s) for s in sizes) or not set(types) <= set("SRIL"):
        expected = "NAME:TYPE:COLUMNS, with the types S, R, I and L, repeated for each array"
        raise FrameError(1, f"Properties must be {expected}; got '{properties}'")
    return tuple(Column(n, t) for n, t, size in zip(names, types, sizes) for _ in range(int(size)))


def repair(lines: Sequence[str], count: int, notes: Notes) -> tuple[list[str], dict[int, float]]:
    """Return the lines of a frame as ASE reads them, without line ends, and the masses of isotopes by atom."""
    comment = repair_comment(lines[1].strip())
    columns = parse_columns(_properties(comment) or PLAIN)
    species = next((i for i, column in enumerate(columns) if column.name in SPECIES), None)
    if species is not None and columns[species].type == "I":  # atomic numbers, which ASE reads under another name
        comment = re.sub(r"\b(?:species|symbols):I:1", "species:S:1", comment, count=1)
    real = [i for i, column in enumerate(columns) if column.type == "R"]
    repaired, numbers, masses = [lines[0].strip(), comment], set(), {}
    for place, line in enumerate(lines[2 : 2 + count], start=2):
        fields = line.split()
        if len(fields) >= len(columns):  # others are refused by ASE, then explained
            for i in real:
                fields[i] = repair_number(fields[i])
            if species is not None:
                label = fields[species]
                fields[species], kind = _read_species(label, place, notes)
                if kind == "number":
                    numbers.add(int(float(label)))
                elif kind == "isotope":
                    masses[place - 2] = ISOTOPES["D" if "D" in label else "T"]
        repaired.append(" ".join(fields))
    if numbers and lines[1].lstrip().startswith(LAMMPS):
        raise FrameError(2, "the first column holds LAMMPS' atom types; write elements by `dump_modify ... element`")
    if len(numbers) > 1 and numbers == set(range(1, len(numbers) + 1)):
        found = ", ".join(map(str, sorted(numbers)))
        raise FrameError(2, f"species {found} may be atom types or atomic numbers; write element symbols")
    return repaired + [line.strip() for line in lines[2 + count :]], masses


def repair_number(text: str) -> str:
    """Return a number as Python reads it; anything else as it is.

    Examples
    --------
    >>> [repair_number(text) for text in ("-0.97D-03", "6.93*^-6", "1.234-101", "1.5", "Cd2")]
    ['-0.97e-03', '6.93e-6', '1.234e-101', '1.5', 'Cd2']
    """
    found = FORTRAN.fullmatch(text) or NO_LETTER.fullmatch(text)
    return f"{found[1]}e{found[2]}" if found else text


def repair_comment(comment: str) -> str:
    """Return key=value pairs with the numbers as Python reads them.

    A value is changed if it consists of numbers only, at least one of which is Fortran's or QM9's with a decimal point
    or a signed exponent: `12d3` may be a name.

    Examples
    --------
    >>> repair_comment('energy=-1.5D+02 dipole="0.1D0 0 0" id=12d3 note="at 1.5D+02 K"')
    'energy=-1.5e+02 dipole="0.1e0 0 0" id=12d3 note="at 1.5D+02 K"'
    """

    def value(match: re.Match) -> str:
        text = next((v for key, v in match.groupdict().items() if key != "gap" and v), "")
        parts = re.split(r"([\s,]+)", text)
        tokens = [part for part in parts[::2] if part]
        suspects = [bool(WITH_POINT.fullmatch(token)) for token in tokens]
        if not any(suspects) or not all(
            suspect or PLAIN_NUMBER.fullmatch(token) for token, suspect in zip(tokens, suspects)
        ):
            return match[0]
        whole = match[0]
        start = whole.index(text)
        return whole[:start] + "".join(map(repair_number, parts)) + whole[start + len(text) :]

    return VALUE.sub(value, comment)


def _read_species(label: str, line: int, notes: Notes) -> tuple[str, str]:
    if label in ELEMENTS or label == "X":
        return label, ""
    symbol, kind = read_label(label)
    if symbol is None:
        raise FrameError(line, kind)
    if kind == "label" and not notes.example[0]:
        notes.example = (label, symbol)
    if kind:
        notes.add(kind)
    return symbol, kind


@functools.lru_cache(maxsize=10_000)
def read_label(label: str) -> tuple[str | None, str]:
    """Return the element that a label in the species column means, and the kind of note that it deserves.

    Labels that may mean two elements, or none, have None and the reason.

    Examples
    --------
    >>> read_label("H12"), read_label("8"), read_label("cl"), read_label("T")
    (('H', 'label'), ('O', 'number'), ('Cl', ''), ('H', 'isotope'))
    >>> read_label("CA")
    (None, "'CA' may be the element Ca or an atom C with a name; write 'Ca' or 'C'")
    """
    if label in ISOTOPES:
        return "H", "isotope"
    number = label.removesuffix(".0")
    if number.isascii() and number.isdigit():
        if len(number) < 4 and 0 < int(number) < len(ALL_SYMBOLS):
            return ALL_SYMBOLS[int(number)], "number"
        return None, f"'{label}' is not an atomic number"
    found = LABEL.fullmatch(label)
    letters = found[1] if found else ""
    symbol = letters.capitalize()
    if letters in ISOTOPES:
        return "H", "isotope"
    if symbol not in ELEMENTS:
        return None, f"'{label}' is not an element"
    if letters != symbol and symbol in AMBIGUOUS:
        meant = f"the element {symbol} or an atom {symbol[0]} with a name"
        return None, f"'{label}' may be {meant}; write '{symbol}' or '{symbol[0]}'"
    return symbol, "" if letters == label else "label"


def diagnosis(lines: Sequence[str], count: int, error: Exception) -> FrameError:
    """Explain the fault of a (repaired) frame that ASE refuses with `error`."""
    columns = parse_columns(_properties(lines[1]) or PLAIN)
    names = ", ".join(dict.fromkeys(column.name for column in columns))
    checks = {"R": (float, "a number"), "I": (int, "an integer")}
    for place, line in enumerate(lines[2 : 2 + count], start=2):
        fields = line.split()
        if len(fields) < len(columns):
            hint = ""
            if len(fields) == 1 and fields[0].isdigit():
                hint = f"; the frame's first line promises {count} atoms, this line may begin the next frame"
            return FrameError(place, f"expected {len(columns)} columns ({names}), got {len(fields)}{hint}")
        for field, column in zip(fields, columns):
            if column.name in SPECIES and field.capitalize() not in ELEMENTS | {"X"}:
                return FrameError(place, f"'{field}' is not an element")
            if column.type in checks:
                convert, what = checks[column.type]
                try:
                    convert(field)
                except ValueError:
                    return FrameError(place, f"'{field}' is not {what} (column {column.name})")
    said = " ".join(str(error).split()) or type(error).__name__
    # every line of atoms is in order, so that it is the comment
    return FrameError(1 if count else None, f"could not be read by ASE: {said}")
