"""Charge and spin multiplicity of a structure, under the names that programs and files give them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dimenet_tf.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

CHARGE_KEYS = ("charge", "total_charge")
SPIN_KEYS = ("spin", "multiplicity", "spin_multiplicity")
TOLERANCE = 0.05  # partial charges are rounded when they are written: their sum may miss an integer by this


class State(NamedTuple):
    """Electronic state of a structure."""

    charge: float
    """Total charge, e."""
    spin: float
    """Spin multiplicity 2S + 1."""


SINGLET = State(0, 1)
"""A neutral closed-shell structure: what `Atoms` without charge and spin are."""


def state_of(atoms: Atoms) -> State:
    """Return charge and spin multiplicity of an `ase.Atoms`.

    Sources are the keys `charge`, `total_charge`, `spin`, `multiplicity` and `spin_multiplicity` of `atoms.info`, the
    sums of ASE's initial charges and initial magnetic moments, and the charges and the magnetic moment that an attached
    calculator holds. Where two sources differ, the one that is not that of a neutral singlet counts.

    Raises
    ------
    UserError
        If one of the keys holds something other than a number.

    Examples
    --------
    >>> from ase import Atoms
    >>> state_of(Atoms("OH", info={"charge": -1}))
    State(charge=-1.0, spin=1)
    """
    arrays, results = atoms.arrays, getattr(atoms.calc, "results", None) or {}
    charge = _from_info(atoms.info, CHARGE_KEYS, 0)
    spin = _from_info(atoms.info, SPIN_KEYS, 1)
    if charge == 0:
        charge = _total(arrays.get("initial_charges")) or _total(results.get("charges"), rounded=True)
    if spin == 1:
        moment = _total(arrays.get("initial_magmoms")) or _total(results.get("magmom"), rounded=True)
        spin = abs(moment) + 1
    return State(charge, spin)


def states_of_arrays(arrays: Mapping[str, np.ndarray], molecules: int, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return charges and spin multiplicities, each (molecules,) float64, from the arrays of a file or a request.

    Raises
    ------
    UserError
        If an array with one of these names does not hold a number for each molecule.
    """
    found = []
    for keys, default in ((CHARGE_KEYS, 0), (SPIN_KEYS, 1)):
        values: np.ndarray = np.full(molecules, float(default))
        for key in (key for key in keys if key in arrays):
            given: np.ndarray = np.asarray(arrays[key])
            check_state_array(key, given.dtype, given.shape, molecules, source)
            given = np.broadcast_to(given.reshape(-1) if given.ndim else given, molecules)
            values = np.where(values == default, given, values)
        found.append(values)
    return found[0], found[1]


def check_state_array(key: str, dtype: np.dtype, shape: tuple[int, ...], molecules: int, source: str) -> None:
    """Raise a UserError unless an array of this type and shape holds a number for each molecule, or one for all."""
    if dtype.kind not in "biuf" or shape not in ((), (molecules,), (molecules, 1)):
        raise UserError(f"{source}: '{key}' must be a number for each of {molecules} molecules")


def why_refused(
    charge: float, spin: float, charges: Collection[float] = (0,), spins: Collection[float] = (1,)
) -> str | None:
    """Return why a model of `charges` and `spins` refuses a structure; None if it does not.

    Examples
    --------
    >>> why_refused(1, 2)
    'charge 1 and spin multiplicity 2, expected charge 0 and spin multiplicity 1 (2S + 1: 1 is a singlet)'
    """
    if charge in charges and spin in spins:
        return None
    expected = " or ".join(f"{c:g}" for c in charges), " or ".join(f"{s:g}" for s in spins)
    return (
        f"charge {charge:g} and spin multiplicity {spin:g}, expected charge {expected[0]} and spin multiplicity "
        f"{expected[1]} (2S + 1: 1 is a singlet)"
    )


def _from_info(info: Mapping, keys: tuple[str, ...], default: float) -> float:
    for key in keys:
        value = info.get(key)
        if value is None:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UserError(f"'{key}' must be a number, got {value!r}") from None
        if number != default:
            return number
    return default


def _total(values: np.ndarray | None, rounded: bool = False) -> float:
    """Return the sum of atomic charges or moments; `rounded` to an integer where they are computed ones."""
    if values is None:
        return 0
    summed = np.sum(values, axis=0)
    total = float(np.linalg.norm(summed)) if np.ndim(summed) else float(summed)  # moments may be vectors
    nearest = round(total) if np.isfinite(total) else total
    return nearest if rounded or abs(total - nearest) <= TOLERANCE else total
