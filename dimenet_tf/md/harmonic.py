"""Vibrations of a relaxed molecule in the harmonic approximation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.optimize import BFGS
from ase.vibrations import VibrationsData

from dimenet_tf.errors import UserError
from dimenet_tf.md.calculator import DimeNetCalculator
from dimenet_tf.md.intensities import RamanActivity, anisotropic, infrared_intensity, isotropic
from dimenet_tf.md.velocities import at, count_vibrations
from dimenet_tf.predictor import Predictor

FMAX = 1e-3  # eV/Ang
IMAGINARY = 10.0  # cm^-1; what is less may come from the last digits of a flat direction
ASIDE = 0.1  # Ang that the atom moves which moves most, down from a saddle point
STEP = 0.005  # Ang that the atom moves which moves most, either way


class Harmonic(NamedTuple):
    """Normal modes from the lowest wavenumber up, without translations and rotations."""

    vibrations: VibrationsData
    """ASE's, of the projected Hessian: animations, zero-point energy, density of states."""
    wavenumbers: np.ndarray
    """(modes,) cm^-1; negative for imaginary ones: the geometry is no minimum."""
    modes: np.ndarray
    """(modes, atoms, 3): change of the positions with the normal coordinate, amu^-1/2."""
    infrared: np.ndarray | None
    """(modes,) km/mol; None for a model without dipole."""
    raman: RamanActivity | None
    """Ang^4/amu; None for a model without polarizability."""


def relax(predictor: Predictor, atoms: Atoms) -> Atoms:
    """Return the molecule at the minimum of the energy that is next (BFGS).

    Raises
    ------
    UserError
        If there is none within 1000 steps, and for a periodic structure.
    """
    if atoms.pbc.any():
        raise UserError("the structure is periodic; normal modes are those of a molecule")
    relaxed = at(atoms, atoms.positions)
    relaxed.calc = DimeNetCalculator(predictor)
    if not BFGS(relaxed, logfile=None).run(fmax=FMAX, steps=1000):
        largest = np.linalg.norm(relaxed.get_forces(), axis=1).max()
        raise UserError(f"the molecule could not be relaxed: after 1000 steps a force is {largest:.3g} eV/Ang")
    return relaxed


def rigid_motions(atoms: Atoms, count: int) -> np.ndarray:
    """Return an orthonormal basis of the mass-weighted translations and rotations, (count, 3 atoms).

    `count` is 6, or 5 for a molecule that is linear when it does not vibrate: the smallest is left out, the rotation
    about its axis.
    """
    arms = atoms.positions - atoms.get_center_of_mass()
    axes = np.eye(3)
    motions = np.array([np.broadcast_to(axis, arms.shape) for axis in axes] + [np.cross(axis, arms) for axis in axes])
    motions = (motions * np.sqrt(atoms.get_masses())[:, None]).reshape(6, -1)
    return np.linalg.svd(motions, full_matrices=False)[2][:count]


def analyse(predictor: Predictor, atoms: Atoms) -> Harmonic:
    """Return the normal modes of a relaxed molecule and their intensities.

    Frequencies are those of the model's analytic Hessian, from which translations and rotations are projected; changes
    of dipole and polarizability along the modes are central differences. See `dimenet_tf.md.intensities`.

    Raises
    ------
    UserError
        As `Predictor.hessian`.
    """
    rigid = rigid_motions(atoms, 3 * len(atoms) - count_vibrations(atoms))
    projector = np.eye(3 * len(atoms)) - rigid.T @ rigid
    weights = np.repeat(np.sqrt(atoms.get_masses()), 3)
    weighted = projector @ (predictor.hessian(atoms) / np.outer(weights, weights)) @ projector
    vibrations = VibrationsData.from_2d(at(atoms, atoms.positions), weighted * np.outer(weights, weights))
    energies, modes = vibrations.get_energies_and_modes()
    vibrating = np.sort(np.argsort(np.abs(energies))[len(rigid) :])  # the others are zero
    wavenumbers = (energies.real - energies.imag)[vibrating] / units.invcm
    modes = modes[vibrating]
    changes = _changes(predictor, atoms, modes)
    infrared = raman = None
    if "dipole" in changes:
        infrared = infrared_intensity((changes["dipole"] ** 2).sum(axis=-1))
    if "polarizability" in changes:
        change = changes["polarizability"]
        raman = RamanActivity(isotropic(change) ** 2, (anisotropic(change) ** 2).sum(axis=(-2, -1)))
    return Harmonic(vibrations, wavenumbers, modes, infrared, raman)


def _changes(predictor: Predictor, atoms: Atoms, modes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the derivatives of dipole and polarizability, where the model has them, along the modes."""
    if not {"dipole", "polarizability"} & set(predictor.units):
        return {}
    steps = STEP / np.linalg.norm(modes, axis=-1).max(axis=-1)  # amu^1/2 Ang
    shifts = modes * steps[:, None, None]
    Z = np.tile(atoms.numbers, (2 * len(modes), 1))
    values = predictor.predict({"Z": Z, "R": atoms.positions + np.concatenate([shifts, -shifts])})
    changes = {}
    for name in {"dipole", "polarizability"} & set(values):
        plus, minus = np.split(values[name].astype(np.float64), 2)
        changes[name] = (plus - minus) / (2 * steps).reshape(-1, *[1] * (plus.ndim - 1))
    return changes


def find_minimum(predictor: Predictor, atoms: Atoms, attempts: int = 5) -> tuple[Atoms, Harmonic]:
    """Relax a molecule, off saddle points too, where symmetric geometries end; return it with its normal modes.

    Raises
    ------
    UserError
        As `relax` and `analyse`, and if there are imaginary modes after the last attempt.
    """
    for _ in range(attempts):
        relaxed = relax(predictor, atoms)
        harmonic = analyse(predictor, relaxed)
        if not len(harmonic.wavenumbers) or harmonic.wavenumbers[0] > -IMAGINARY:
            return relaxed, harmonic
        lowest = harmonic.modes[0]
        atoms = at(relaxed, relaxed.positions + lowest * ASIDE / np.linalg.norm(lowest, axis=1).max())
    raise UserError(
        f"relaxed {attempts} times, the molecule is still at a saddle point ({harmonic.wavenumbers[0]:.0f} cm^-1): "
        "start from another geometry, or the model knows no minimum there"
    )


def columns(harmonic: Harmonic) -> dict[str, np.ndarray]:
    """Return the table of modes: columns with their units."""
    table = {"mode": np.arange(1, len(harmonic.wavenumbers) + 1), "wavenumber / cm^-1": harmonic.wavenumbers}
    if harmonic.infrared is not None:
        table["infrared / km/mol"] = harmonic.infrared
    if harmonic.raman is not None:
        table["raman isotropic / Ang^4/amu"] = harmonic.raman.isotropic
        table["raman anisotropic / Ang^4/amu"] = harmonic.raman.anisotropic
    return table


def format_table(harmonic: Harmonic) -> str:
    """Return the modes as lines of text."""
    table = columns(harmonic)
    names = list(table)
    rows = [[f"{row[0]:d}", *(f"{value:.1f}" for value in row[1:])] for row in zip(*table.values())]
    lines = ["  ".join(cell.rjust(len(name)) for cell, name in zip(row, names)) for row in [names, *rows]]
    imaginary = int((harmonic.wavenumbers < 0).sum())
    if imaginary:
        lines.append(f"{imaginary} imaginary (negative here): the geometry is no minimum")
    return "\n".join(lines)


def write_csv(table: dict[str, np.ndarray], path: Path) -> None:
    """Write columns with their names."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows([f"{value:.7g}" for value in row] for row in zip(*table.values()))
