"""Dynamics and relaxation of crystals with ASE."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.filters import FrechetCellFilter
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from dimenet_tf.data import from_atoms
from dimenet_tf.errors import UserError
from dimenet_tf.md import DimeNetCalculator
from dimenet_tf.md.certify import certify, format_certificate
from dimenet_tf.md.measurements import finite_differences, lattice, npt, symmetries
from dimenet_tf.md.velocities import count_vibrations, temperature_of, thermalize
from dimenet_tf.predictor.domain import Domain
from helpers.models import force_field
from helpers.morse import Morse


def crystal(repeat=1):
    atoms = bulk("C", "diamond", a=3.57, cubic=False) * ((repeat,) * 3)
    atoms.rattle(0.02, seed=0)
    return atoms


@pytest.fixture(scope="module")
def predictor():
    """Weights that were never trained, with the domain of a few crystals."""
    predictor = force_field("painn")
    frames = [crystal(), crystal(2)]
    for atoms in frames:
        atoms.info["energy"] = 0.0
    predictor.domain = Domain.of(from_atoms(frames, checks=None), predictor.model.cutoff)
    return predictor


@pytest.fixture
def diamond(predictor):
    atoms = crystal(2)
    atoms.calc = DimeNetCalculator(predictor)
    return atoms


def test_results_are_those_of_predict(predictor, diamond):
    predicted = predictor.predict(diamond)
    assert diamond.get_potential_energy() == pytest.approx(predicted["energy"], rel=1e-12)
    np.testing.assert_allclose(diamond.get_forces(), predicted["forces"], atol=1e-9)
    np.testing.assert_allclose(diamond.get_stress(voigt=False), predicted["stress"], atol=1e-12)
    numerical = np.array(
        [
            (energy_of(diamond, strain) - energy_of(diamond, -strain)) / (2e-4 * diamond.get_volume())
            for strain in (1e-4 * np.diag([1.0, 0, 0]), 0.5e-4 * np.array([[0, 0, 0], [0, 0, 1.0], [0, 1, 0]]))
        ]
    )
    assert diamond.get_stress()[[0, 3]] == pytest.approx(numerical, rel=1e-5, abs=1e-8)


def energy_of(atoms, strain) -> float:
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    strained.calc = atoms.calc
    return strained.get_potential_energy()


def test_the_calculator_follows_the_cell_and_the_directions(predictor, diamond):
    before = diamond.get_potential_energy()
    diamond.set_cell(1.01 * diamond.cell.array, scale_atoms=True)
    assert diamond.get_potential_energy() == pytest.approx(predictor.predict(diamond)["energy"], rel=1e-12)
    assert diamond.get_potential_energy() != before
    diamond.pbc = [True, True, False]
    assert diamond.get_potential_energy() == pytest.approx(predictor.predict(diamond)["energy"], rel=1e-12)
    diamond.set_cell(np.diag([7.0, 7.0, 0.0]))
    diamond.pbc = True
    with pytest.raises(UserError, match="flat or zero cell"):
        diamond.get_potential_energy()


def test_energy_is_conserved_while_atoms_leave_the_cell(diamond):
    MaxwellBoltzmannDistribution(diamond, temperature_K=300, rng=np.random.default_rng(0))
    diamond.set_momenta(diamond.get_momenta() + diamond.get_masses()[:, None] * [2.0, 0, 0])  # drifts through images
    energies = []
    dynamics = VelocityVerlet(diamond, 0.5 * units.fs)
    dynamics.attach(lambda: energies.append([diamond.get_total_energy(), diamond.get_potential_energy()]))
    dynamics.run(60)
    total, potential = np.ptp(energies, axis=0)
    assert total < 0.01 * potential
    assert np.abs(diamond.get_scaled_positions(wrap=False)).max() > 1.2


def test_cells_relax_and_expand_and_are_sampled_at_constant_pressure(diamond):
    start = np.abs(diamond.get_stress()).max()
    energy = diamond.get_potential_energy()
    BFGS(FrechetCellFilter(diamond), logfile=None).run(fmax=1e-6, steps=15)
    assert diamond.get_potential_energy() < energy and np.abs(diamond.get_stress()).max() < start
    MaxwellBoltzmannDistribution(diamond, temperature_K=300, rng=np.random.default_rng(0))
    volume = diamond.get_volume()
    dynamics = MTKNPT(
        diamond, 1 * units.fs, temperature_K=300, pressure_au=0.0, tdamp=100 * units.fs, pdamp=1000 * units.fs
    )
    dynamics.run(5)
    assert diamond.get_volume() != volume and np.isfinite(diamond.get_total_energy())


def test_molecules_are_outside_of_the_domain_of_crystals(predictor):
    with pytest.warns(UserWarning, match="it is a molecule; the model was trained on periodic"):
        atoms = molecule("C2H2")
        atoms.set_atomic_numbers([6] * 4)
        atoms.calc = DimeNetCalculator(predictor)
        atoms.get_potential_energy()


def test_models_of_molecules_refuse_crystals(predictor):
    molecular = force_field("painn")
    atoms = molecule("CH4")
    atoms.info["energy"] = 0.0
    molecular.domain = Domain.of(from_atoms([atoms], checks=None), molecular.model.cutoff)
    with pytest.raises(UserError, match="molecule 0 is periodic; the model was trained on molecules"):
        molecular.predict([molecule("CH4", cell=[6, 6, 6], pbc=True)])
    boxed = molecule("CH4", cell=[9, 9, 9])  # a cell without periodic directions is no cell
    assert "stress" not in molecular.predict([boxed])


def test_certificate_of_crystals(predictor):
    rows = lattice(predictor, [crystal()]) | symmetries(predictor, [crystal()])
    assert len(rows) == 11 and all(row["value"] <= row["bound"] for row in rows.values())
    assert finite_differences(predictor, [crystal()])["value"] < 1e-6


def copper(seed=0):
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.rattle(0.02, seed=seed)
    return atoms


def test_the_drift_at_constant_pressure_finds_a_wrong_stress():
    sound, wrong = (npt(Morse(stress=stress), copper(), 0.6, 300, 2.0) for stress in (1.0, 1.5))
    assert list(sound) == ["NPT drift (0.6 ps, 2 fs, float64)", "NPT fluctuation", "NPT mean volume"]
    fluctuation = sound["NPT fluctuation"]
    assert 10 * fluctuation["value"] < fluctuation["bound"] < wrong["NPT fluctuation"]["value"]
    assert sound["NPT drift (0.6 ps, 2 fs, float64)"]["value"] < 0.05
    assert 11 < sound["NPT mean volume"]["value"] < 13  # Ang^3, of 3.6^3 / 4 = 11.7 at 0 K


def test_a_crystal_that_flies_apart_at_constant_pressure_fails():
    (row,) = npt(Morse(stress=-200.0), copper(), 0.4, 300, 2.0).values()  # it expands where it should contract
    assert row["value"] == np.inf > row["bound"]


def test_the_certificate_of_a_crystal_has_dynamics_at_constant_pressure():
    model, frames = Morse(), [copper(seed) for seed in range(3)]
    for atoms in frames:
        atoms.calc = DimeNetCalculator(model)
        atoms.get_forces()
    result = certify(model, from_atoms(frames), picoseconds=0.02, timestep=1.0)
    assert all(row["passed"] is not False for row in result.values()), format_certificate(result)
    assert result["NPT drift (0.02 ps, 1 fs, float64)"]["passed"] is None  # too short to be judged
    assert result["NPT fluctuation"]["passed"] is True


def test_periodic_structures_do_not_rotate():
    """A slab keeps the rotation of its velocities; their degrees of freedom are all but three."""
    atoms = bulk("C", "diamond", cubic=True).repeat(2)
    thermalize(atoms, 300.0, np.random.default_rng(0))
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-10 and np.abs(atoms.get_angular_momentum()).max() > 1e-3
    assert count_vibrations(atoms) == 3 * len(atoms) - 3
    assert 200 < temperature_of(atoms, count_vibrations(atoms)) < 400
