"""Initial velocities of dynamics."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation


def at(atoms: Atoms, positions: np.ndarray) -> Atoms:
    """Return a molecule's atoms, with their masses (isotopes) and nothing else, at other positions."""
    return Atoms(atoms.numbers, positions, masses=atoms.get_masses())


def thermalize(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw velocities from the Boltzmann distribution at a temperature (K), without translation and rotation.

    Periodic structures do not rotate: theirs are without translation.
    Every vibration gets its share; `atoms.get_temperature()`, which counts 3 N degrees of freedom, shows less than
    `temperature_of`.
    """
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * widths)
    Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any():
        ZeroRotation(atoms, preserve_temperature=False)


def count_vibrations(atoms: Atoms) -> int:
    """Return 3 N - 6, or 3 N - 5 for a linear molecule, 3 N - 3 for a periodic structure.

    The geometry should be relaxed, since vibrations bend linear molecules.
    """
    if atoms.pbc.any():
        return 3 * len(atoms) - 3
    extent = np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0), compute_uv=False)
    linear = extent[1:].max(initial=0.0) < 1e-2 * extent[0]
    return max(3 * len(atoms) - (5 if linear else 6), 0)


def temperature_of(atoms: Atoms, vibrations: int) -> float:
    """Return the temperature (K) of a molecule that neither moves nor rotates; see `count_vibrations`."""
    return 2 * atoms.get_kinetic_energy() / (vibrations * units.kB)
