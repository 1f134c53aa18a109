"""Element symbols and sum formulas."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from dimenet_tf.errors import unknown_name

SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu"
).split()
"""Symbol of every atomic number; 0 is padding."""
MAX_Z = len(SYMBOLS) - 1


def atomic_number(symbol: str, where: str) -> int:
    """Return the atomic number of a symbol; `where` is named in the error."""
    if symbol not in SYMBOLS[1:]:
        raise unknown_name(f"element in {where}", symbol, SYMBOLS[1:])
    return SYMBOLS.index(symbol)


def symbols(numbers: Iterable[int]) -> str:
    """Return the symbols of atomic numbers, for people: 'H, C, O'."""
    return ", ".join(SYMBOLS[z] if 0 < z < len(SYMBOLS) else f"Z={z}" for z in numbers)


def composition_of(formula: str) -> np.ndarray:
    """Return how many atoms of each element a sum formula has, (95,) int.

    Examples
    --------
    >>> composition_of("C2H6O")[[1, 6, 8]]
    array([6, 2, 1])
    """
    counts = np.zeros(MAX_Z + 1, np.int64)
    for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula):
        counts[atomic_number(symbol, f"the formula {formula}")] += int(number or 1)
    return counts


def hill(composition: np.ndarray) -> str:
    """Return the sum formula of a composition, (95,) int, in Hill's order.

    Examples
    --------
    >>> hill(composition_of("OH6C2"))
    'C2H6O'
    """
    first = [6, 1] if composition[6] else []
    others = sorted(set(np.flatnonzero(composition).tolist()) - set(first), key=SYMBOLS.__getitem__)
    return "".join(f"{SYMBOLS[z]}{n if n > 1 else ''}" for z in (*first, *others) if (n := composition[z]))
