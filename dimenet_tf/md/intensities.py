"""From changes of dipole and polarizability to intensities, the same for harmonic modes and for dynamics.

A harmonic mode has the derivative of a property with respect to its normal coordinate Q, whose kinetic energy is
Q'^2 / 2. Classical dynamics at the temperature T has <(dmu/dt)^2> = kT (dmu/dQ)^2 for it. So the density of
<(dmu/dt)^2> over wavenumbers, divided by kT, stands for (dmu/dQ)^2 in every formula, and what is integrated over a line
is the harmonic intensity.
"""

from __future__ import annotations

import numpy as np
from ase import units
from scipy import constants

LASER = 514.0
"""nm, wavelength of the argon laser."""
_E2_PER_AMU = constants.e**2 / constants.atomic_mass  # C^2/kg
_KM_PER_MOL = constants.N_A * _E2_PER_AMU / (12 * constants.epsilon_0 * constants.c**2) / 1000


def infrared_intensity(dipole_change: np.ndarray) -> np.ndarray:
    """Return the integrated absorption N_A (dmu/dQ)^2 / (12 eps0 c^2), km/mol.

    Parameters
    ----------
    dipole_change : (dmu/dQ)^2 summed over components, e^2/amu
    """
    return _KM_PER_MOL * dipole_change


def isotropic(polarizability: np.ndarray) -> np.ndarray:
    """Return the mean polarizability, a third of the trace: (..., 3, 3) -> (...)."""
    return np.trace(polarizability, axis1=-2, axis2=-1) / 3


def anisotropic(polarizability: np.ndarray) -> np.ndarray:
    """Return the part of a polarizability without trace, (..., 3, 3).

    1.5 times the sum of its squares is the square of the anisotropy gamma.
    """
    return polarizability - isotropic(polarizability)[..., None, None] * np.eye(3)


class RamanActivity:
    """Raman activity 45 a'^2 + 7 gamma'^2 in its two parts, Ang^4/amu.

    Parameters
    ----------
    isotropic_change : (da/dQ)^2 of the mean polarizability a, a0^6 / (Ang^2 amu)
    anisotropic_change : (db/dQ)^2 of the part b without trace, summed over components, a0^6 / (Ang^2 amu)
    """

    def __init__(self, isotropic_change: np.ndarray, anisotropic_change: np.ndarray) -> None:
        self.isotropic = 45 * units.Bohr**6 * isotropic_change
        self.anisotropic = 7 * 1.5 * units.Bohr**6 * anisotropic_change

    @property
    def total(self) -> np.ndarray:
        return self.isotropic + self.anisotropic

    @property
    def parallel(self) -> np.ndarray:
        """Seen polarized as the laser: 45 a'^2 + 4 gamma'^2."""
        return self.isotropic + 4 / 7 * self.anisotropic

    @property
    def perpendicular(self) -> np.ndarray:
        """Seen polarized across the laser: 3 gamma'^2."""
        return 3 / 7 * self.anisotropic


def raman_cross_section(
    activity: np.ndarray, wavenumbers: np.ndarray, temperature: float, laser: float = LASER
) -> np.ndarray:
    """Return the differential cross section of Stokes scattering at a right angle, 1e-30 cm^2/sr.

    2 pi^2 h / (45 c) (v0 - v)^4 / v / (1 - exp(-h c v / kT)) times the activity.

    Parameters
    ----------
    activity : Ang^4/amu
    wavenumbers : v, cm^-1, greater than 0
    temperature : K
    laser : wavelength 1 / v0, nm
    """
    v, v0 = 100 * np.asarray(wavenumbers), 1e9 / laser  # 1/m
    occupation = -np.expm1(-constants.h * constants.c * v / (constants.k * temperature))
    factor = 2 * np.pi**2 * constants.h / (45 * constants.c) * (v0 - v) ** 4 / v / occupation
    return factor * activity * (1e-40 / constants.atomic_mass) * 1e34
