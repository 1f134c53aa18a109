"""Molecules of ASE's collection in the forms that functions of the package take."""

import numpy as np
from ase import Atoms
from ase.build import molecule


def molecules(*names: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, Z and R of molecules by name."""
    atoms = [molecule(name) for name in names]
    return (
        np.array([len(a) for a in atoms]),
        np.concatenate([a.numbers for a in atoms]),
        np.concatenate([a.positions for a in atoms]),
    )


def closed_shell(name: str) -> Atoms:
    """Molecule without magnetic moments, for example the atom H as the models know it."""
    atoms = molecule(name)
    atoms.set_initial_magnetic_moments(None)
    return atoms
