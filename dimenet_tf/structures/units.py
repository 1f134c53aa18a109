"""Units of length."""

from scipy import constants

LENGTH = {"Ang": 1.0, "a0": constants.physical_constants["Bohr radius"][0] * 1e10, "nm": 10.0, "pm": 0.01}
"""Size of each unit in Angstrom, by the names that the library uses."""
