"""Table of the quantities that the library knows by name: unit, shape, dependence on size."""

from __future__ import annotations

from typing import NamedTuple

from scipy import constants

from dimenet_tf.errors import UserError
from dimenet_tf.structures.units import LENGTH


class Quantity(NamedTuple):
    """Unit, shape and kind of a quantity.

    Examples
    --------
    >>> PROPERTIES["dipole"].unit, PROPERTIES["dipole"].shape
    ('e*Ang', (3,))
    """

    unit: str
    extensive: bool
    """Whether it grows with the molecule, so that a per-element sum is a sensible reference."""
    description: str
    shape: tuple[int, ...] = ()
    """Shape of the value of one molecule, or of one atom."""
    per_atom: bool = False
    """Whether each atom has a value of its own, as with forces."""
    voigt: bool = False
    """Whether a symmetric tensor is also read as six numbers in ASE's order: xx yy zz yz xz xy."""


PROPERTIES = {
    "mu": Quantity("D", False, "dipole moment"),
    "alpha": Quantity("a0^3", True, "isotropic polarizability"),
    "homo": Quantity("eV", False, "energy of the highest occupied orbital"),
    "lumo": Quantity("eV", False, "energy of the lowest unoccupied orbital"),
    "gap": Quantity("eV", False, "lumo - homo"),
    "r2": Quantity("a0^2", True, "electronic spatial extent"),
    "zpve": Quantity("eV", True, "zero-point vibrational energy"),
    "U0": Quantity("eV", True, "atomization energy at 0 K"),
    "U": Quantity("eV", True, "atomization energy at 298.15 K"),
    "H": Quantity("eV", True, "atomization enthalpy at 298.15 K"),
    "G": Quantity("eV", True, "atomization free energy at 298.15 K"),
    "Cv": Quantity("cal/mol/K", True, "heat capacity at constant volume, 298.15 K"),
    "energy": Quantity("eV", True, "potential energy of a geometry"),
    "forces": Quantity("eV/Ang", False, "minus the energy's gradient", (3,), per_atom=True),
    "stress": Quantity("eV/Ang^3", False, "derivative of the energy by strain, over volume", (3, 3), voigt=True),
    "virial": Quantity("eV", True, "minus the derivative of the energy by strain", (3, 3), voigt=True),
    "dipole": Quantity("e*Ang", True, "dipole moment vector", (3,)),
    "polarizability": Quantity("a0^3", True, "polarizability tensor", (3, 3)),
}

POSITIONS = Quantity("Ang", False, "positions", (3,), per_atom=True)

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
_PASCAL = 1e-30 / constants.e  # eV/Ang^3
# units of the same kind, each with its size relative to the first
UNITS = (
    _ENERGY,
    LENGTH,
    {f"{energy}/{length}": e / a for energy, e in _ENERGY.items() for length, a in LENGTH.items()},
    {"e*Ang": 1.0, "e*a0": _BOHR, "D": _DEBYE},
    {"Ang^3": 1.0, "a0^3": _BOHR**3},
    {"Ang^2": 1.0, "a0^2": _BOHR**2},
    {
        "eV/Ang^3": 1.0,
        "meV/Ang^3": 1e-3,
        "eV/a0^3": 1 / _BOHR**3,
        "Hartree/a0^3": _ENERGY["Hartree"] / _BOHR**3,
        **{name: size * _PASCAL for name, size in {"GPa": 1e9, "MPa": 1e6, "kbar": 1e8, "bar": 1e5}.items()},
    },
)


def conversion(name: str, unit: str, option: str = "") -> float:
    """Return the factor that converts values from a unit into the library's unit of a quantity.

    Parameters
    ----------
    name : a key of `PROPERTIES`, or "R" for positions
    unit : the unit to convert from
    option : what the user has set to this unit, for the error; `data.units.NAME` if empty

    Raises
    ------
    UserError
        For an unknown unit or a unit of another kind. Lists the units that can be read.

    Examples
    --------
    >>> round(conversion("energy", "kcal/mol"), 6)
    0.043364
    """
    target = POSITIONS.unit if name == "R" else PROPERTIES[name].unit
    for kind in UNITS:
        if target in kind and unit in kind:
            return kind[unit] / kind[target]
    known = next((list(kind) for kind in UNITS if target in kind), [target])
    if unit in known:
        return 1.0
    raise UserError(f"{option or f'data.units.{name}'} = {unit}: {name} can be read in {', '.join(known)}")


def find_property(name: str, unit: str | None = None) -> Quantity:
    """Return the entry of a quantity in the table, or a new one if the table has none of that name.

    Parameters
    ----------
    name : of the quantity
    unit : of a quantity that is not in the table. Without it the unit is empty and no unit is printed.

    Examples
    --------
    >>> find_property("U0").unit, find_property("yield", "%").unit
    ('eV', '%')
    """
    return PROPERTIES.get(name, Quantity(unit or "", True, ""))
