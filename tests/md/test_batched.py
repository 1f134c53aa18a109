"""Several structures moved together by ASE and evaluated as one batch."""

import pickle

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, Hookean
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from dimenet_tf.data import from_atoms
from dimenet_tf.errors import UserError
from dimenet_tf.md import Batched, Committee, DimeNetCalculator
from dimenet_tf.predictor import predictor as predictor_module
from dimenet_tf.predictor.domain import Domain
from helpers.diatomic import Diatomic
from helpers.models import force_field, painn


def moving(atoms, seed, drift=0.0):
    atoms.rattle(0.02, seed=seed)
    widths = np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    momenta = widths * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    atoms.set_momenta(momenta + atoms.get_masses()[:, None] * [drift, 0, 0])
    return atoms


def structures():
    """A crystal whose atoms leave their cell, a skewed cell smaller than the cutoff, a slab and a molecule."""
    skewed = bulk("C", "diamond", a=3.57)
    skewed.set_cell(skewed.cell.array + [[0, 0, 0], [0.9, 0, 0], [0, 0.4, 0]], scale_atoms=True)
    slab = bulk("C", "diamond", a=3.57, cubic=True)
    slab.pbc = [True, True, False]
    large = moving(bulk("C", "diamond", a=3.57, cubic=True), 0, drift=2.0)
    return [large, moving(skewed, 1), moving(slab, 2), moving(molecule("CH3CH2OH"), 3)]


@pytest.fixture(scope="module")
def predictor():
    predictor = force_field("painn", periodic=True)
    predictor.head["energy"].scale /= 10  # forces like those of molecules
    return predictor


def test_the_trajectories_are_those_of_one_after_the_other(predictor):
    singles = structures()
    batch = Batched(predictor, singles)
    energies = []
    VelocityVerlet(batch.atoms, 0.5 * units.fs).run(20)
    dynamics = VelocityVerlet(batch.atoms, 0.5 * units.fs)
    dynamics.attach(lambda: energies.append([atoms.get_total_energy() for atoms in batch.split()]))
    dynamics.run(40)
    for i, (single, ours) in enumerate(zip(singles, batch.split())):
        single.calc = DimeNetCalculator(predictor)
        totals = []
        VelocityVerlet(single, 0.5 * units.fs).run(20)
        dynamics = VelocityVerlet(single, 0.5 * units.fs)
        dynamics.attach(lambda atoms=single, totals=totals: totals.append(atoms.get_total_energy()))
        dynamics.run(40)
        np.testing.assert_allclose(ours.positions, single.positions, rtol=0, atol=1e-10)
        np.testing.assert_allclose(ours.get_velocities(), single.get_velocities(), rtol=0, atol=1e-10)
        np.testing.assert_allclose(ours.get_forces(), single.get_forces(), rtol=0, atol=1e-10)
        np.testing.assert_allclose(np.array(energies)[:, i], totals, rtol=1e-13)
        assert ours.get_temperature() == pytest.approx(single.get_temperature(), rel=1e-10)
        assert ours.cell.array.tolist() == single.cell.array.tolist() and ours.pbc.tolist() == single.pbc.tolist()
        if single.cell.volume > 0 and single.pbc.any():
            np.testing.assert_allclose(ours.get_stress(), single.get_stress(), rtol=0, atol=1e-10)
        else:
            assert "stress" not in ours.calc.results
    assert np.abs(batch.split()[0].get_scaled_positions(wrap=False)).max() > 1.5  # it has left its cell
    assert (np.ptp(energies, axis=0) < 0.02).all()  # eV; the kinetic energy is some tenths


def test_neighbors_are_searched_for_where_atoms_move_alone(predictor):
    still, moved = bulk("C", "diamond", a=3.57), moving(molecule("CH3CH2OH"), 3)
    batch = Batched(predictor, [still, moved])
    first = batch.predicted["energy"]
    searches = batch.atoms.calc.stepper.searches
    assert searches == 2
    batch.atoms.positions[:2] += 1.0  # the crystal as a whole
    np.testing.assert_allclose(batch.predicted["energy"], first, rtol=1e-13)
    assert batch.atoms.calc.stepper.searches == searches
    batch.atoms.positions[2] += 0.3
    assert batch.predicted["energy"][1] != first[1] and batch.predicted["energy"][0] == pytest.approx(first[0], 1e-13)
    assert batch.atoms.calc.stepper.searches == searches + 1


def test_langevin_holds_the_temperature_of_every_structure():
    diatomic = Diatomic()
    batch = Batched(diatomic, [diatomic.atoms()] * 20)
    rng = np.random.default_rng(0)
    dynamics = Langevin(batch.atoms, 0.5 * units.fs, temperature_K=300, friction=0.05 / units.fs, fixcm=False, rng=rng)
    dynamics.run(200)
    temperatures = []
    dynamics.attach(lambda: temperatures.append([atoms.get_temperature() for atoms in batch.split()]), interval=10)
    dynamics.run(600)
    assert np.mean(temperatures) == pytest.approx(300, rel=0.15)
    assert (np.mean(temperatures, axis=0) > 75).all()


def test_a_batch_that_needs_too_much_memory_is_divided(predictor, monkeypatch):
    expected = Batched(predictor, structures())
    monkeypatch.setattr(predictor_module, "MEMORY", 4e5)
    divided = Batched(predictor, structures())
    assert len(divided.atoms.calc.stepper._parts) > 1
    for _ in range(2):
        for name, values in expected.predicted.items():
            np.testing.assert_allclose(divided.predicted[name], values, rtol=1e-12, atol=1e-10)
        for batch in (expected, divided):
            batch.atoms.rattle(0.1, seed=5)


def test_dipoles_polarizabilities_and_the_spread_of_a_committee():
    one = painn()
    batch = Batched([one, one.clone()], [molecule("H2O"), molecule("CH4")])
    single = molecule("CH4")
    single.calc = DimeNetCalculator(Committee([one, one.clone()]))
    np.testing.assert_allclose(batch.split()[1].get_dipole_moment(), single.get_dipole_moment(), atol=1e-12)
    np.testing.assert_allclose(batch.predicted["polarizability"][1], single.calc.polarizability, rtol=1e-10)
    assert batch.atoms.calc.spread["forces"].shape == (8,) and batch.atoms.calc.spread["energy"].shape == (2,)
    assert batch.atoms.get_potential_energies().sum() == pytest.approx(batch.energies.sum(), rel=1e-14)


def test_refused_structures_are_named(predictor):
    charged, close = molecule("H2O"), molecule("H2O")
    charged.info["charge"] = 1
    close.positions[1] = close.positions[2]
    flat = bulk("C", "diamond", a=3.57)
    flat.set_cell(np.diag([3.0, 3.0, 0.0]))
    for wrong, message in (
        (molecule("NH3"), "molecule 1 contains N, which the training data did not"),
        (charged, "molecule 1 has charge 1"),
        (close, "molecule 1 has two atoms at the same place"),
        (flat, "molecule 1 has a flat or zero cell"),
        ("H2O", "molecule 1 must be an ase.Atoms, got str"),
    ):
        with pytest.raises(UserError, match=message):
            Batched(predictor, [molecule("CH4"), wrong])
    with pytest.raises(UserError, match="a batch needs at least one structure"):
        Batched(predictor, [])
    with pytest.raises(UserError, match="molecule 1 is periodic; the model was trained on molecules"):
        Batched(force_field("painn"), [molecule("CH4"), bulk("C", "diamond", a=3.57)])


def test_structures_that_break_on_the_way_are_named(predictor):
    for change, message in (
        (lambda R: R[5:].__setitem__(slice(None), R[5]), "molecule 1 has two atoms at the same place"),
        (lambda R: R.__setitem__(6, np.nan), "molecule 1 has a coordinate that is not finite"),
        (lambda R: R.__setitem__(slice(0, 5), 20 * R[:5]), "molecule 0 has no two atoms within"),
    ):
        batch = Batched(predictor, [molecule("CH4"), molecule("H2O")])
        assert batch.predicted["energy"].shape == (2,)
        change(batch.atoms.positions)
        with pytest.raises(UserError, match=message):
            batch.atoms.get_forces()


def test_structures_outside_of_the_domain_are_named():
    known = force_field("painn", periodic=True)
    atoms = bulk("C", "diamond", a=3.57)
    atoms.info["energy"] = 0.0
    known.domain = Domain.of(from_atoms([atoms], checks=None), known.model.cutoff)
    tight = atoms.copy()
    tight.set_cell(0.9 * atoms.cell.array, scale_atoms=True)
    with pytest.warns(UserWarning, match="molecule 1 lies outside of the model's domain: a C-C distance") as record:
        batch = Batched(known, [atoms, tight])
        batch.atoms.get_forces()
        batch.atoms.positions += 0.1
        assert batch.predicted["in_domain"].tolist() == [True, False]
    assert len(record) == 1 and record[0].filename == __file__
    with pytest.raises(UserError, match="molecule 1 lies outside of the model's domain"):
        Batched(known, [atoms, tight], domain="error").atoms.get_forces()


def test_what_acts_on_one_cell_is_refused(predictor):
    batch = Batched(predictor, structures())
    message = "the structures of a batch have a stress each .* barostats and cell filters need"
    with pytest.raises(UserError, match=message):
        batch.atoms.get_stress()
    with pytest.raises(UserError, match=message):
        BFGS(FrechetCellFilter(batch.atoms), logfile=None).run(steps=1)
    batch.atoms.cell = np.diag([9.0] * 3)
    with pytest.raises(UserError, match="have no common cell: every structure keeps its own"):
        batch.atoms.get_forces()
    with pytest.raises(UserError, match=r"have no common cell|have a stress each"):
        settings = {"temperature_K": 300, "pressure_au": 0.0, "tdamp": 50 * units.fs, "pdamp": 500 * units.fs}
        MTKNPT(batch.atoms, 1 * units.fs, **settings).run(1)
    other = molecule("H2O")
    other.calc = batch.atoms.calc
    with pytest.raises(UserError, match="these are not the atoms of this batch"):
        other.get_forces()
    with pytest.raises(UserError, match="cannot be pickled"):
        pickle.dumps(batch.atoms)


def test_fixed_atoms_masses_and_charges_are_kept(predictor):
    heavy, fixed = molecule("H2O"), moving(bulk("C", "diamond", a=3.57), 0)
    heavy.set_masses([15.999, 2.014, 1.008])
    heavy.info["name"] = "HDO"
    fixed.set_constraint(FixAtoms([1]))
    batch = Batched(predictor, [heavy, fixed])
    place = batch.atoms.positions[4].copy()
    VelocityVerlet(batch.atoms, 0.5 * units.fs).run(5)
    first, second = batch.split()
    assert first.get_masses().tolist() == [15.999, 2.014, 1.008] and first.info["name"] == "HDO"
    assert second.positions[1].tolist() == place.tolist() != second.positions[0].tolist()
    assert second.constraints[0].get_indices().tolist() == [1]
    heavy.set_constraint(Hookean(0, 1, rt=1.0, k=5.0))
    with pytest.raises(UserError, match="molecule 0 has the constraint Hookean; a batch takes FixAtoms only"):
        Batched(predictor, [heavy])
