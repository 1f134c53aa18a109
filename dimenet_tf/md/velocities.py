"""Where dynamics starts from."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation


def thermalize(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw velocities from the Boltzmann distribution at a temperature (K), without translation and rotation.

    Every vibration gets its share; `atoms.get_temperature()`, which counts 3 N degrees of freedom, shows less (see
    `temperature_of`).
    """
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * widths)
    Stationary(atoms, preserve_temperature=False)
    ZeroRotation(atoms, preserve_temperature=False)


def temperature_of(atoms: Atoms) -> float:
    """Return the temperature (K) of a molecule that neither moves nor rotates: 3 N - 6 degrees of freedom."""
    return 2 * atoms.get_kinetic_energy() / ((3 * len(atoms) - 6) * units.kB)
