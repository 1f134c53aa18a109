"""Relaxations of OC20's initial structures: ADwT, distances across the boundary, and the command."""

import json
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.geometry import find_mic
from ase.optimize import LBFGS
from click.testing import CliRunner

from dimenet_tf.commands import program
from dimenet_tf.config.schema import resolve
from dimenet_tf.errors import UserError
from dimenet_tf.md import DimeNetCalculator
from dimenet_tf.predictor import load
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.oc20 import read_slabs
from dimenet_tf.training import oc20_relaxation
from dimenet_tf.training.oc20_relaxation import (
    average_distance_within_threshold,
    evaluate_relaxations,
    mean_distances,
    relax_together,
)
from dimenet_tf.training.session import run_session
from helpers.paths import ROOT
from helpers.training import configuration

FILES = ROOT / "tests/files/oc20"


def slowly(distances: list[float]) -> float:
    """ADwT as the evaluator of the Open Catalyst Project loops over thresholds."""
    success, thresholds = 0, np.arange(0.01, 0.5, 0.001)
    for threshold in thresholds:
        for distance in distances:
            success += distance < threshold
    return success / (len(distances) * len(thresholds))


def test_adwt_is_that_of_a_loop_over_thresholds():
    distances = np.random.default_rng(0).exponential(0.2, 50)
    found = average_distance_within_threshold(distances)
    assert found == pytest.approx(slowly(distances.tolist()), abs=1e-12)
    assert 0.2 < found < 0.8
    beyond = average_distance_within_threshold(np.array([*distances, np.inf]))
    assert beyond == pytest.approx(found * 50 / 51)


def test_distances_are_those_of_the_closest_images():
    """Atoms that crossed the boundary of a skewed cell, against ASE; a direction without images has none."""
    rng = np.random.default_rng(1)
    cell = np.array([[5.0, 0.0, 0.0], [2.5, 4.4, 0.0], [0.0, 0.3, 12.0]])
    pbc = np.array([[True, True, True], [True, True, False]])
    N = np.array([6, 4])
    reference = rng.uniform(0, 5, (10, 3))
    moved = rng.normal(0, 0.3, (10, 3))
    images = rng.integers(-1, 2, (10, 3))
    images[6:, 2] = 0
    R = reference + moved + images @ cell
    free = np.array([True, False, True, True, True, True, False, True, True, False])
    found = mean_distances(R, reference, N, free, np.stack([cell, cell]), pbc)
    for i, atoms in enumerate((slice(0, 6), slice(6, 10))):
        _, lengths = find_mic((R - reference)[atoms], cell, pbc[i])
        assert found[i] == pytest.approx(lengths[free[atoms]].mean())
        assert found[i] == pytest.approx(np.linalg.norm(moved[atoms], axis=1)[free[atoms]].mean())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a force field that was trained for some steps on frames of oxygen on copper."""
    folder = tmp_path_factory.mktemp("s2ef")
    shutil.copytree(FILES / "s2ef/val_id", folder / "data/train")
    shutil.copytree(FILES / "s2ef/val_id", folder / "data/val_id")
    data = {"name": "oc20_s2ef", "path": str(folder / "data"), "target": "energy,forces", "num_valid": 1}
    config = configuration("painn", batch_size=2, num_steps=20, evaluation_interval=10, learning_rate=0.003)
    run_session(resolve({**config, "data": {**data, "outliers": "keep"}}), RunFolder(folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def predictor(run):
    return load(run)


@pytest.fixture(scope="module")
def is2re(tmp_path_factory):
    """Folder of IS2RE: the first of its three structures is oxygen on copper, the others have other elements."""
    folder = tmp_path_factory.mktemp("is2re")
    shutil.copytree(FILES / "is2re/val_id", folder / "val_id")
    return folder


def slab(height: float) -> Atoms:
    """Oxygen above copper, whose lowest layer is fixed."""
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", height, "fcc")
    atoms.pbc = True
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 3))
    return atoms


@pytest.mark.filterwarnings("ignore:the structure lies outside")  # as the calculator says
def test_structures_relax_together_as_each_on_its_own(predictor, monkeypatch):
    """Against ASE's optimizer with the library's calculator. The last structure has converged from the start."""
    monkeypatch.setattr(oc20_relaxation, "AT_ONCE", 2)  # the others start later
    heights = (1.3, 1.0, 1.6, 6.0)
    together = [slab(height) for height in heights]
    finished = []
    result = relax_together(predictor, together, 0.1, 6, finished.append)
    assert sum(finished) == 4 and not result.refused
    assert len(set(result.steps.tolist())) > 1
    for i, height in enumerate(heights):
        alone = slab(height)
        alone.calc = DimeNetCalculator(predictor)
        optimizer = LBFGS(alone, logfile=None)
        assert optimizer.run(fmax=0.1, steps=6) == result.converged[i]
        assert optimizer.get_number_of_steps() == result.steps[i]
        np.testing.assert_allclose(together[i].positions, alone.positions, atol=1e-3)
        assert result.energy[i] == pytest.approx(alone.get_potential_energy(), abs=1e-3)
        fixed = alone.constraints[0].index
        np.testing.assert_array_equal(together[i].positions[fixed], slab(height).positions[fixed])


def test_what_cannot_be_predicted_stays_where_it_is(predictor):
    overlapping, unknown = slab(0.0), slab(1.3)
    overlapping.positions[-1] = overlapping.positions[0] + 0.1
    unknown.numbers[0] = 47
    before = [atoms.positions.copy() for atoms in (overlapping, unknown)]
    result = relax_together(predictor, [overlapping, unknown, slab(1.3)], 0.01, 1)
    assert set(result.refused) == {0, 1}
    assert "closer than 0.3 Ang" in result.refused[0] and "contains Ag" in result.refused[1]
    assert np.isnan(result.energy).tolist() == [True, True, False]
    assert result.steps.tolist() == [0, 0, 1]
    for atoms, positions in zip((overlapping, unknown), before):
        np.testing.assert_array_equal(atoms.positions, positions)
    assert set(relax_together(predictor, [overlapping, unknown], 0.5, 1).refused) == {0, 1}


def test_a_structure_stays_at_the_last_positions_that_can_be_predicted(run):
    """Oxygen close to copper, strongly attracted by one of two opposite force fields."""
    refused = []
    for factor in (100, -100):
        predictor = load(run)
        *others, kernel, bias = predictor.get_weights()
        predictor.set_weights([*others, factor * kernel, bias])
        atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
        add_adsorbate(atoms, "O", 0.4, "ontop")
        atoms.pbc = True
        initial, energy = atoms.positions.copy(), predictor.predict(atoms)["energy"]
        result = relax_together(predictor, [atoms], 0.05, 1)
        refused.append(len(result.refused))
        if result.refused:
            assert "closer than 0.3 Ang" in result.refused[0] and not result.converged[0]
            np.testing.assert_array_equal(atoms.positions, initial)
            assert result.energy[0] == pytest.approx(energy, rel=1e-4) and result.steps[0] == 0
        else:
            assert result.steps[0] == 1 and np.abs(atoms.positions - initial).max() > 0.1
    assert sorted(refused) == [0, 1]


def test_the_command_relaxes_and_compares(run, is2re, predictor):
    arguments = ["evaluate", str(run), "--relax", str(is2re), "--max-steps", "2"]
    result = CliRunner().invoke(program, arguments)
    assert result.exit_code == 0, result.output
    assert "ID (3)" in result.output and "ADwT / %" in result.output
    found = json.loads((run / "relaxations.json").read_text())
    assert (found["max_steps"], found["fmax"]) == (2, 0.05)
    (split,) = found["splits"].values()
    assert split["structures"] == 3 and split["unpredicted"] == 2  # no aluminium, hydrogen or nickel in training
    # by hand, for the structure that can be predicted
    slabs = read_slabs(FILES / "is2re/val_id")
    n = slabs.N[0]
    fixed = slabs.fixed[:n]
    atoms = Atoms(slabs.Z[:n], slabs.R[:n], cell=slabs.cell[0], pbc=True, constraint=FixAtoms(mask=fixed))
    initial = atoms.positions.copy()
    energy = relax_together(predictor, [atoms], 0.05, 2).energy[0]
    assert split["energy_mae"] == pytest.approx(abs(energy - slabs.energy_relaxed[0]), abs=1e-4)
    lengths = [
        np.linalg.norm(find_mic(R - slabs.R_relaxed[:n], slabs.cell[0])[0], axis=1)[~fixed].mean()
        for R in (atoms.positions, initial)
    ]
    inside = predictor.predict(atoms)["in_domain"]
    assert split["energy_mae_inside"] == (split["energy_mae"] if inside else None)
    assert split["outside"] == 1 - inside
    assert split["mean_distance"] == pytest.approx(lengths[0], abs=1e-4)
    assert split["adwt"] == pytest.approx(slowly([lengths[0], np.inf, np.inf]), abs=2e-3)
    whole = mean_distances(slabs.R, slabs.R_relaxed, slabs.N, ~slabs.fixed, slabs.cell, slabs.pbc)
    assert whole[0] == pytest.approx(lengths[1], abs=1e-5)
    assert split["adwt_initial"] == pytest.approx(average_distance_within_threshold(whole))
    first = evaluate_relaxations(predictor, is2re, 0.05, 2, structures=1)["val_id"]
    assert (first["structures"], first["unpredicted"]) == (1, 0)
    assert first["energy_mae"] == pytest.approx(split["energy_mae"], abs=1e-4)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--max-steps", "0"], "max_steps = 0"),
        (["--part", "valid"], "--relax takes one run, and no --part"),
    ],
)
def test_wrong_options_are_refused(run, is2re, more, message):
    result = CliRunner().invoke(program, ["evaluate", str(run), "--relax", str(is2re), *more])
    assert result.exit_code == 2 and message in result.output


def test_a_folder_without_validation_splits_is_refused(predictor, is2re, tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="must be a folder with val_id, val_ood_ads"):
        evaluate_relaxations(predictor, tmp_path, 0.05, 2)
    shutil.copytree(FILES / "s2ef/val_id", tmp_path / "val_id")
    with pytest.raises(UserError, match="has no y_relaxed and pos_relaxed"):
        evaluate_relaxations(predictor, tmp_path, 0.05, 2)


def test_a_model_without_forces_cannot_relax():
    with pytest.raises(UserError, match="a relaxation needs forces, but the model predicts U0 without"):
        relax_together(load("dimenet_pp-sample-U0"), [], 0.05, 2)
