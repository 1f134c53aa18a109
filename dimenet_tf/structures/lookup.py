"""Error for a target that a file lacks, with the contents of the file and the closest names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.structures.quantities import PROPERTIES, find_property

# parts of the names that files give to properties, and whole names
STEMS = {"energy": "energ", "forces": "force", "dipole": "dipol", "polarizability": "polari", "alpha": "polari"}
SHORT = {
    "energy": ("e", "en", "etot", "e_tot", "e0", "u", "u0", "scf", "potential"),
    "forces": ("f",),
    "dipole": ("d", "mu", "dip"),
    "mu": ("dip",),
}
NOT_MEANT = ("weight", "unit", "gradient", "std", "error")
SHOWN = 5


def missing_target(
    name: str, targets: Collection[str], found: Mapping[str, str], source: str, molecules: int, atoms: int
) -> UserError:
    """Make the error for a missing target.

    Parameters
    ----------
    name : of the target
    targets : names of the existing targets
    found : contents of the file, with shape or type in words; see `DataContainer.found`
    source : file
    molecules, atoms : their numbers, to tell arrays of molecules from arrays of atoms
    """
    if not found:
        return unknown_name("target", name, targets)
    if name in found:
        if _fits(name, found[name], molecules, atoms):
            return UserError(f"{source}: '{name}' is not finite in any molecule. It holds {_list(found)}")
        return UserError(f"{source}: {not_a_target(name, name, found[name])}. It holds {_list(found)}")
    meant = likely_names(name, found, molecules, atoms)
    hint = ""
    if meant and name not in PROPERTIES and meant[0] in targets:
        hint = f"; did you mean '{meant[0]}'"
    elif meant:
        hint = f"; did you mean {' or '.join(f'data.keys.{name}={key}' for key in meant[:SHOWN])}"
    gradient = [key for key in found if "grad" in key.lower()] if name == "forces" else []
    end = "?" if hint else "."
    if gradient:
        end += (
            f" The energy's gradient has the opposite sign of the forces: multiply '{gradient[0]}' by -1 if it is that."
        )
    return UserError(f"{source}: unknown target '{name}'{hint}{end} It holds {_list(found)}")


def not_a_target(name: str, theirs: str, words: str) -> str:
    """Explain why a value of a file is not a property; `theirs` is its name, `words` its shape or type."""
    kind = find_property(name)
    shape = ("atoms", *kind.shape) if kind.per_atom else kind.shape
    expected = f"numbers of shape ({', '.join(map(str, shape))})" if shape else "a number for each molecule"
    return f"'{theirs}' is {words}, expected {expected}"


def close_names(name: str, known: Mapping[str, str]) -> list[str]:
    """Return names that may mean a property, the closest first.

    Examples
    --------
    >>> close_names("forces", {"energy": "()", "force": "(atoms, 3)", "dft_forces": "(atoms, 3)"})
    ['force', 'dft_forces']
    """
    low, stem = name.lower(), STEMS.get(name, name.lower())
    scores = {}
    for key in known:
        other = key.lower()
        if any(part in other for part in NOT_MEANT):
            continue
        ratio = difflib.SequenceMatcher(None, low, other).ratio()
        if other == low or other in SHORT.get(name, ()):
            scores[key] = 1 + ratio
        elif (len(stem) > 2 and stem in other) or ratio >= 0.7:
            scores[key] = ratio
    return sorted(scores, key=lambda key: -scores[key])


def likely_names(name: str, found: Mapping[str, str], molecules: int, atoms: int) -> list[str]:
    """Return names of a file that may mean a property by name and shape, the closest first; see `missing_target`."""
    return close_names(name, {key: words for key, words in found.items() if _fits(name, words, molecules, atoms)})


def _fits(name: str, words: str, molecules: int, atoms: int) -> bool:
    """Tell whether the shape that `words` begin with is one of a property."""
    end = words.find(")") + 1
    if not words.startswith("(") or not end:
        return False
    shape = tuple(-1 if size == "atoms" else int(size) for size in re.findall(r"atoms|\d+", words[:end]))
    kind = find_property(name)
    if shape[:1] in ((-1,), (atoms,)) and not (shape == (molecules,) and not kind.per_atom):
        return kind.per_atom and shape[1:] == kind.shape
    if kind.per_atom:
        return len(shape) == 3 and shape[0] == molecules and shape[2:] == kind.shape
    of_one = shape[1:] if shape[:1] == (molecules,) else shape
    as_lists = [(9,)] * (kind.shape == (3, 3)) + [(6,)] * kind.voigt
    return of_one in (kind.shape, (1,), *as_lists)


def _list(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {words}" for name, words in found.items())
