"""Calculator, committees, certificates: with ASE's own dynamics."""

import copy
import json
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from dimenet_tf.data import ethanol_xtb, from_atoms
from dimenet_tf.errors import UserError
from dimenet_tf.md import Committee, DimeNetCalculator, StopOnUncertainty, UncertaintyExceeded
from dimenet_tf.md.certify import certify, fingerprint, format_certificate
from dimenet_tf.md.measurements import cutoff, finite_differences, nve, symmetries, work
from dimenet_tf.md.velocities import count_vibrations, temperature_of, thermalize
from dimenet_tf.predictor import load
from helpers.models import force_field
from helpers.pretrained import FORCES


def gentle(seed=0, dtype="float64"):
    """A force field of initial weights, scaled so that it pulls as hard as a molecule."""
    predictor = force_field(dtype=dtype, randomized=False, seed=seed)
    data = ethanol_xtb().select(range(10))
    graph = predictor.graph_store(data.N, data.Z, data.R).batch(range(10))
    predictor.head["energy"].scale /= np.sqrt((predictor.compute(graph).forces.numpy() ** 2).mean())
    return predictor


@pytest.fixture(scope="module")
def predictor():
    return gentle()


@pytest.fixture(scope="module")
def members():
    return [gentle(seed) for seed in range(3)]


@pytest.fixture
def committee(members):
    return Committee(members)


def test_calculator_gives_what_predict_gives(predictor):
    atoms = molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator(predictor)
    expected = predictor.predict([atoms])
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"][0], rel=1e-14)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"][0], rtol=0, atol=1e-12)
    energies = atoms.get_potential_energies()
    assert energies.shape == (9,) and energies.sum() == pytest.approx(expected["energy"][0], rel=1e-14)
    # the reference energies are there
    assert atoms.get_potential_energy() < 6 * -13 + 2 * -1000 - 2000 + 500


def test_one_trace_and_few_searches_in_a_whole_run(predictor):
    atoms = molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator(predictor, skin=0.5)
    traces = predictor.graph_function.experimental_get_tracing_count()
    thermalize(atoms, 300, np.random.default_rng(0))
    VelocityVerlet(atoms, 0.5 * units.fs).run(50)
    fresh = predictor.predict([atoms])
    np.testing.assert_allclose(atoms.get_forces(), fresh["forces"][0], rtol=0, atol=1e-12)
    assert atoms.calc.stepper.searches < 25
    other = molecule("H2O")
    other.calc = atoms.calc  # another molecule, other size
    np.testing.assert_allclose(other.get_potential_energy(), predictor.predict([other])["energy"][0], rtol=1e-14)
    assert predictor.graph_function.experimental_get_tracing_count() == traces == 1


def test_velocities_have_the_temperature_and_no_rotation():
    atoms = molecule("C6H6")
    temperatures = []
    for seed in range(50):
        thermalize(atoms, 300, np.random.default_rng(seed))
        assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
        assert np.abs(atoms.get_angular_momentum()).max() < 1e-10
        temperatures.append(temperature_of(atoms, count_vibrations(atoms)))
    assert np.mean(temperatures) == pytest.approx(300, rel=0.1)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_precision(predictor, committee, precision):
    atoms = molecule("H2O")
    atoms.calc = DimeNetCalculator(committee, precision=precision)
    assert atoms.calc.force_field.precision == precision
    assert np.isfinite(atoms.get_potential_energy())
    atoms.calc = DimeNetCalculator(predictor, precision=precision)
    assert atoms.calc.force_field.precision == precision
    assert atoms.get_potential_energy() == pytest.approx(predictor.predict([atoms])["energy"][0], abs=1e-3)


def changed(**settings):
    atoms = molecule("H2O")
    for name, value in settings.items():
        setattr(atoms, name, value)
    return atoms


@pytest.mark.parametrize(
    "atoms, message",
    [
        (molecule("NH3"), "contains N, which the training data did not; this model knows H, C, O"),
        (changed(cell=[9, 9, 9], pbc=[True, False, False]), "the structure is periodic; the model was trained on"),
        (changed(positions=[[0, 0, 0], [0, 0, 1], [0, 0, 1]]), "has two atoms at the same place"),
        (changed(positions=[[0, 0, 0], [0, 0, 1], [0, np.nan, 1]]), "has a coordinate that is not finite"),
    ],
)
def test_what_the_calculator_refuses(predictor, atoms, message):
    atoms.calc = DimeNetCalculator(predictor)
    with pytest.raises(UserError, match=message):
        atoms.get_forces()


def test_atoms_that_fall_together_on_the_way(predictor):
    atoms = molecule("H2O")
    atoms.calc = DimeNetCalculator(predictor)
    atoms.get_forces()
    atoms.positions[1] = atoms.positions[2]
    with pytest.raises(UserError, match="has two atoms at the same place"):
        atoms.get_forces()


def test_models_without_an_energy_are_refused_unless_it_is_meant():
    with pytest.raises(UserError, match=r"this model predicts U0 and was not trained with forces; .*energy=NAME"):
        DimeNetCalculator("dimenet_pp-sample-U0")
    atoms = molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator("dimenet_pp-sample-U0", energy="U0")
    expected = load("dimenet_pp-sample-U0").predict([atoms])["U0"][0]
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-4) and np.isfinite(atoms.get_forces()).all()
    with pytest.raises(UserError, match="no such run or model: nowhere"):
        DimeNetCalculator("nowhere")


def test_a_committee_is_the_mean_of_its_members(committee):
    atoms = molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator(committee)
    each = [member.predict([atoms]) for member in committee.members]
    assert atoms.get_potential_energy() == pytest.approx(np.mean([e["energy"] for e in each]), rel=1e-14)
    forces = np.array([e["forces"][0] for e in each])
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(axis=0), atol=1e-12 * np.abs(forces).max())
    spread = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0))
    np.testing.assert_allclose(atoms.calc.spread["forces"], spread, rtol=1e-10)
    assert atoms.calc.spread["energy"] == pytest.approx(np.std([e["energy"] for e in each]), rel=1e-6)


def labelled_frames(predictor, count=12):
    """Ethanol in motion with the forces of one model."""
    data = ethanol_xtb().select(range(0, 20 * count, 20))
    prediction = predictor.predict_store(predictor.graph_store(data.N, data.Z, data.R), np.arange(count))
    data.targets["forces"] = prediction.forces
    return data


def test_the_factor_scales_the_spread_to_the_error(committee, tmp_path):
    data = labelled_frames(gentle(seed=9))
    factor = committee.fit(data, batch_size=5)
    errors, spreads = [], []
    for i in range(len(data)):
        one = data.select([i])
        atoms = Atoms(one.Z, one.R)
        atoms.calc = DimeNetCalculator(committee)
        errors.append(np.linalg.norm(atoms.get_forces() - one.target("forces"), axis=1))
        spreads.append(atoms.calc.spread["forces"])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.sqrt(np.mean(np.square(spreads))), rel=1e-6)
    committee.to_folder(tmp_path)
    again = DimeNetCalculator(tmp_path)
    assert again.force_field.factor == factor
    atoms.calc = again
    atoms.get_forces()
    np.testing.assert_allclose(again.spread["forces"], spreads[-1])


def test_dynamics_stop_where_the_committee_knows_too_little(committee):
    committee.factor = None
    atoms = molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator(committee)
    with pytest.raises(UserError, match="not scaled yet"):
        StopOnUncertainty(atoms, 1.0)
    committee.factor = 2.0
    atoms.get_forces()
    now = DimeNetCalculator(committee)
    atoms.calc = now
    atoms.get_forces()
    largest = now.spread["forces"].max()
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(StopOnUncertainty(atoms, 1.5 * largest))
    atoms.set_velocities(np.random.default_rng(0).normal(0, 0.3, (9, 3)))  # it flies apart
    with pytest.raises(UncertaintyExceeded, match=r"atom \d \([CHO]\): uncertainty of the force .* threshold"):
        dynamics.run(500)
    assert 0 < dynamics.nsteps < 500
    atoms.calc = DimeNetCalculator(committee.members[0])
    with pytest.raises(UserError, match="calculator of a committee"):
        StopOnUncertainty(atoms, 1.0)


def test_committees_that_do_not_belong_together(committee, tmp_path):
    (tmp_path / "committee.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="committee.json was written by a newer version"):
        DimeNetCalculator(tmp_path)
    with pytest.raises(UserError, match="at least two members"):
        Committee(committee.members[:1])
    with pytest.raises(UserError, match="member 1 of the committee has other precision than member 0: float32"):
        Committee([committee.members[0], gentle(dtype="float32")])
    with pytest.raises(UserError, match="member 0 of the committee has no forces"):
        Committee(["dimenet_pp-sample-U0"] * 2)
    data = labelled_frames(committee.members[0])
    data.targets["forces"] = data.targets["forces"] + 1.0
    with pytest.raises(UserError, match="do not differ"):
        Committee([committee.members[0]] * 2).fit(data)


def test_certificate_of_a_sound_model(predictor):
    data = labelled_frames(predictor)
    prediction = predictor.predict_store(predictor.graph_store(data.N, data.Z, data.R), np.arange(len(data)))
    data.targets["energy"] = prediction.values[:, 0]
    result = certify(predictor, data, picoseconds=0.02, timestep=0.25)
    assert all(row["passed"] is not False for row in result.values()), format_certificate(result)
    assert result["held-out forces, largest error"]["value"] == 0
    assert sum(name.startswith("NVE drift (0.02 ps, 0.25 fs") for name in result) == 1
    assert not any(name.startswith("NPT") for name in result)  # of crystals alone
    text = format_certificate(result)
    assert "forces against finite differences" in text and "passed" in text


class Broken:
    """A predictor whose forces are not its energy's gradient, or whose energy knows where up is."""

    def __init__(self, predictor, scale=1.0, field=0.0):
        self.predictor, self.scale, self.field = predictor, scale, field
        self.energy, self.dtype, self.model = predictor.energy, predictor.dtype, predictor.model
        self.precision = predictor.precision

    def predict(self, frames):
        result = self.predictor.predict(frames)
        result["energy"] = result["energy"] + self.field * np.array([a.positions[0, 2] for a in frames])
        result["forces"] = self.scale * result["forces"]
        return result


def test_certificate_finds_what_is_wrong(predictor):
    atoms = [molecule("CH3CH2OH")]
    assert finite_differences(predictor, atoms)["value"] < 1e-6
    assert finite_differences(Broken(predictor, scale=1.0001), atoms)["value"] > 1e-6
    rows = symmetries(Broken(predictor, field=1e-3), atoms)
    assert rows["rotation, energy, float64"]["value"] > 1e-8 < rows["permutation, energy, float64"]["value"]
    assert all(row["value"] <= row["bound"] for row in symmetries(predictor, atoms).values())
    assert work(predictor, atoms)["value"] < 1e-6
    assert work(Broken(predictor, scale=1.01), atoms)["value"] > 1e-5


@pytest.mark.parametrize("name, options", [("spherenet", {"conventions": "corrected"}), ("dpgn", {})])
def test_certificate_finds_the_published_torsion(name, options):
    """Energies that jump between points where the forces are the gradient, and differ in a mirror."""
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.1, seed=0)
    for torsion, sound in (("published", False), ("smooth", True)):
        predictor = force_field(name, torsion=torsion, **options)
        assert finite_differences(predictor, [ethanol])["value"] < 1e-6
        result = symmetries(predictor, [ethanol]) | {"work": work(predictor, [ethanol])}
        found = {row_name for row_name, row in result.items() if row["value"] > row["bound"]}
        assert found == (set() if sound else {"reflection, energy, float64", "reflection, forces, float64", "work"})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            DimeNetCalculator(predictor)
            DimeNetCalculator([predictor, predictor])
        said = [str(warning.message) for warning in caught if "makes energies jump" in str(warning.message)]
        assert len(said) == (0 if sound else 2)


def test_certificate_finds_a_hard_cutoff(predictor, monkeypatch):
    """Without envelope the energy jumps where a pair crosses the cutoff."""
    smooth = cutoff(predictor, molecule("H2O"))
    assert all(row["value"] <= row["bound"] for row in smooth.values())
    diagonal = molecule("C6H6")  # longer than the cutoff in no direction of the axes
    diagonal.rotate(45, "z")
    hard = gentle()
    for layer in (hard.model.rbf_layer, hard.model.sbf_layer):
        monkeypatch.setattr(layer.envelope, "call", lambda x: np.ones(()) * (x * 0 + 1))
    for atoms in (molecule("H2O"), diagonal):
        assert cutoff(hard, atoms)["cutoff, change of the energy across"]["value"] > 1e-8


def test_the_drift_of_a_model_without_conservation_is_found(monkeypatch):
    """Forces that are not the gradient of any energy heat the molecule."""
    predictor = load(FORCES)
    one = ethanol_xtb().select([0])
    atoms = Atoms(one.Z, one.R)
    sound = nve(predictor, atoms, 0.2, 300, 0.5)
    drift = "NVE drift (0.2 ps, 0.5 fs, float32)"
    assert sound["NVE fluctuation"]["value"] < sound["NVE fluctuation"]["bound"]
    assert 150 < sound["NVE mean temperature"]["value"] < 450

    class Swirling(DimeNetCalculator):
        def calculate(self, *arguments):
            super().calculate(*arguments)
            x, y, _ = (self.atoms.positions - self.atoms.positions[0]).T
            self.results["forces"] += 0.02 * np.stack([-y, x, 0 * x], axis=1)

    monkeypatch.setattr("dimenet_tf.md.measurements.DimeNetCalculator", Swirling)
    wrong = nve(predictor, atoms, 0.2, 300, 0.5)
    assert wrong[drift]["value"] > 10 * max(wrong[drift]["bound"], sound[drift]["value"])


def test_molecules_that_fly_apart_fail_the_certificate(monkeypatch, predictor):
    class Exploding(DimeNetCalculator):
        def calculate(self, *arguments):
            super().calculate(*arguments)
            if self.atoms.get_velocities().any():
                raise UserError("has a coordinate that is not finite")

    monkeypatch.setattr("dimenet_tf.md.measurements.DimeNetCalculator", Exploding)
    (row,) = nve(predictor, molecule("H2O"), 0.1, 300, 0.5).values()
    assert row["value"] == np.inf > row["bound"]


def test_far_from_the_origin_float32_loses_nothing():
    atoms = molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator(FORCES)
    here = atoms.get_forces()
    atoms.positions += [1000.0, 0, -500]
    np.testing.assert_allclose(atoms.get_forces(), here, atol=1e-4)


def test_copies_of_atoms_and_calculators(predictor):
    atoms = molecule("H2O")
    atoms.calc = DimeNetCalculator(predictor)
    forces = atoms.get_forces()
    twin = copy.deepcopy(atoms)
    twin.positions += 0.1
    twin.rotate(30, "x")
    assert twin.calc.force_field is predictor and twin.calc is not atoms.calc
    assert twin.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    SinglePointCalculator(atoms, **atoms.calc.results)  # as ASE's writers make them
    with pytest.raises(UserError, match="cannot be pickled: make one in each process"):
        pickle.dumps(atoms.calc)


def test_wrong_arguments(predictor):
    with pytest.raises(TypeError, match="presicion"):
        DimeNetCalculator(predictor, presicion="float64")
    for arguments, message in (
        ({"model": predictor, "precision": "float16"}, "precision must be one of"),
        ({"model": predictor, "skin": 0}, "skin = 0 must be greater"),
        ({"model": predictor, "energy": "U0"}, "trained with the forces of energy"),
        ({"model": 3}, "needs a predictor, a committee, a path or a list"),
    ):
        with pytest.raises(UserError, match=message):
            DimeNetCalculator(**arguments)


def test_vibrations_are_counted():
    counts = {"H": 0, "H2": 1, "CO2": 4, "H2O": 3, "C2H2": 7, "CH3CH2OH": 21}
    assert {name: count_vibrations(molecule(name)) for name in counts} == counts


def test_relaxation_finds_a_minimum(predictor):
    atoms = molecule("H2O")
    atoms.calc = DimeNetCalculator(predictor)
    start = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
    assert np.abs(atoms.get_forces()).max() <= 0.01 and atoms.get_potential_energy() <= start


def test_command_line(tmp_path, predictor):
    predictor.to_folder(tmp_path / "model")
    command = [sys.executable, "-m", "dimenet_tf", "certify"]
    refused = subprocess.run([*command, tmp_path / "model"], text=True, capture_output=True)
    assert refused.returncode == 2 and "does not specify its held-out frames" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    frames = []
    for seed in range(3):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        atoms.calc = DimeNetCalculator(predictor)
        atoms.get_forces()
        frames.append(atoms)
    data = from_atoms(frames)
    np.savez(tmp_path / "frames.npz", N=data.N, Z=data.Z, R=data.R, **data.targets)
    options = ["--frames", tmp_path / "frames.npz", "--picoseconds", "0.05"]
    printed = subprocess.run([*command, tmp_path / "model", *options], text=True, capture_output=True)
    assert "forces against finite differences" in printed.stdout, printed.stderr
    assert printed.returncode == 0 and "not a full certificate: it asks for 10 ps" in printed.stdout
    written = json.loads((tmp_path / "model/certificate.json").read_text())
    assert written["measured"]["held-out forces, MAE (3 frames)"]["value"] < 1e-12
    assert written["weights"] == fingerprint(predictor)
    for wrong, message in (
        (["--picoseconds", "0"], "must be greater than 0"),
        (["--unit", "energy"], "--unit takes NAME=VALUE"),
        (["--unit", "energy=D"], "energy can be read in eV"),
    ):
        refused = subprocess.run([*command, tmp_path / "model", *options, *wrong], text=True, capture_output=True)
        assert refused.returncode == 2 and message in refused.stderr and len(refused.stderr.splitlines()) == 1
