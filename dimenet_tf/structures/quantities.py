"""Units and kinds of the properties that the library knows by name."""

from __future__ import annotations

from typing import NamedTuple

from scipy import constants

from dimenet_tf.errors import UserError
from dimenet_tf.structures.units import LENGTH


class Property(NamedTuple):
    """What is known of a property beyond its numbers."""

    unit: str
    extensive: bool
    """Grows with the molecule, so that a per-element sum is a sensible reference."""
    description: str
    shape: tuple[int, ...] = ()
    """Of one molecule's or one atom's value."""
    per_atom: bool = False


PROPERTIES = {
    "mu": Property("D", False, "dipole moment"),
    "alpha": Property("a0^3", True, "isotropic polarizability"),
    "homo": Property("eV", False, "energy of the highest occupied orbital"),
    "lumo": Property("eV", False, "energy of the lowest unoccupied orbital"),
    "gap": Property("eV", False, "lumo - homo"),
    "r2": Property("a0^2", True, "electronic spatial extent"),
    "zpve": Property("eV", True, "zero-point vibrational energy"),
    "U0": Property("eV", True, "atomization energy at 0 K"),
    "U": Property("eV", True, "atomization energy at 298.15 K"),
    "H": Property("eV", True, "atomization enthalpy at 298.15 K"),
    "G": Property("eV", True, "atomization free energy at 298.15 K"),
    "Cv": Property("cal/mol/K", True, "heat capacity at constant volume, 298.15 K"),
    "energy": Property("eV", True, "potential energy of a geometry"),
    "forces": Property("eV/Ang", False, "minus the energy's gradient", (3,), per_atom=True),
    "dipole": Property("e*Ang", True, "dipole moment vector", (3,)),
    "polarizability": Property("a0^3", True, "polarizability tensor", (3, 3)),
}

POSITIONS = Property("Ang", False, "positions", (3,), per_atom=True)

_MOLAR = constants.N_A * constants.e  # J/mol in an eV
_ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": constants.physical_constants["Hartree energy in eV"][0],
    "kcal/mol": 1000 * constants.calorie / _MOLAR,
    "kJ/mol": 1000 / _MOLAR,
}
_BOHR = LENGTH["a0"]
_DEBYE = 1e-21 / constants.c / constants.e * 1e10  # e*Ang
# units of the same kind, each with its size
UNITS = (
    _ENERGY,
    LENGTH,
    {f"{energy}/{length}": e / a for energy, e in _ENERGY.items() for length, a in LENGTH.items()},
    {"e*Ang": 1.0, "e*a0": _BOHR, "D": _DEBYE},
    {"Ang^3": 1.0, "a0^3": _BOHR**3},
    {"Ang^2": 1.0, "a0^2": _BOHR**2},
)


def conversion(name: str, unit: str, option: str = "") -> float:
    """Return the factor from a unit to the one that the library has for a property; `option` is where the unit is from.

    Raises
    ------
    UserError
        For a unit of another kind, or one that is not known; names those that are.
    """
    target = POSITIONS.unit if name == "R" else PROPERTIES[name].unit
    for kind in UNITS:
        if target in kind and unit in kind:
            return kind[unit] / kind[target]
    known = next((list(kind) for kind in UNITS if target in kind), [target])
    if unit in known:
        return 1.0
    raise UserError(f"{option or f'data.units.{name}'} = {unit}: {name} can be read in {', '.join(known)}")


def find_property(name: str, unit: str | None = None) -> Property:
    """Return what is known of a property; `unit` is that of a property that the library does not know.

    A property without a known unit is printed without one; nothing is guessed.
    """
    return PROPERTIES.get(name, Property(unit or "", True, ""))
