"""Phonons of a crystal: phonopy with forces of the calculator, as docs/crystals.md shows it."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from dimenet_tf.md import DimeNetCalculator
from helpers.models import force_field

phonopy = pytest.importorskip("phonopy", reason="phonopy has no wheels for Python 3.9")

from phonopy.structure.atoms import PhonopyAtoms  # noqa: E402

STEP = 0.001  # Ang


def hessian(atoms: Atoms) -> np.ndarray:
    """Derivatives of the forces by displacements of an atom together with all of its images, (3 atoms, 3 atoms)."""
    rows = []
    for coordinate in range(3 * len(atoms)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions.ravel()[coordinate] += sign * STEP
            forces.append(moved.get_forces().ravel())
        rows.append((forces[1] - forces[0]) / (2 * STEP))
    return np.array(rows)


def test_phonons_at_gamma_are_those_of_the_cell_and_acoustic_ones_are_zero():
    diamond = bulk("C", "diamond", a=3.57)
    diamond.calc = DimeNetCalculator(force_field("dimenet_pp", periodic=True))
    cell = PhonopyAtoms(
        symbols=diamond.get_chemical_symbols(),
        cell=diamond.cell.array,
        scaled_positions=diamond.get_scaled_positions(),
    )
    phonon = phonopy.Phonopy(cell, supercell_matrix=np.diag([2, 2, 2]))
    phonon.generate_displacements(distance=STEP, is_plusminus=True)
    forces = []
    for supercell in phonon.supercells_with_displacements:
        displaced = Atoms(supercell.symbols, supercell.positions, cell=supercell.cell, pbc=True)
        displaced.calc = diamond.calc
        forces.append(displaced.get_forces())
    phonon.forces = forces
    phonon.produce_force_constants()
    phonon.run_qpoints([[0, 0, 0]], with_dynamical_matrices=True)
    squares = np.linalg.eigvalsh(phonon.qpoints.dynamical_matrices[0])
    scale = np.abs(squares).max()
    acoustic = np.argsort(np.abs(squares))[:3]
    assert np.abs(squares[acoustic]).max() < 1e-9 * scale
    expected = np.linalg.eigvalsh(hessian(diamond) / diamond.get_masses()[0])
    optical = np.delete(squares, acoustic)
    np.testing.assert_allclose(optical, np.delete(expected, np.argsort(np.abs(expected))[:3]), rtol=1e-3)
    assert np.ptp(optical) < 1e-6 * scale  # threefold, as in a cubic crystal
    phonon.run_mesh([4, 4, 4], is_gamma_center=True)
    assert np.ptp(phonon.mesh.frequencies[:, 0]) > 1  # THz: acoustic ones rise from zero
