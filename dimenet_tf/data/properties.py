"""Units and kinds of the properties that the library knows by name."""

from __future__ import annotations

from typing import NamedTuple

from dimenet_tf.errors import UserError


class Property(NamedTuple):
    """What is known of a property beyond its numbers."""

    unit: str
    extensive: bool
    """Grows with the molecule, so that a per-element sum is a sensible reference."""
    description: str


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
    "energy": Property("eV", True, "total energy"),
    "Cv": Property("cal/mol/K", True, "heat capacity at constant volume, 298.15 K"),
}


def find_property(name: str, unit: str | None = None) -> Property:
    """Return what is known of a property; `unit` is that of a property that the library does not know.

    A property without a known unit is printed without one; nothing is guessed.
    """
    if name not in PROPERTIES:
        return Property(unit or "", True, "")
    known = PROPERTIES[name]
    if unit not in (None, known.unit):
        raise UserError(f"data.units.{name} = {unit}: {name} is known in {known.unit}; convert it or rename it")
    return known
