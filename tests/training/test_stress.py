"""Stress as a label: reading, loss, training on strained crystals."""

import csv

import ase.io
import numpy as np
import pytest
import tensorflow as tf
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

from dimenet_tf.config.build import build_predictor
from dimenet_tf.config.schema import resolve
from dimenet_tf.data import DataConfig, Split, from_atoms, load_dataset, read_file
from dimenet_tf.errors import UserError
from dimenet_tf.graph.pipeline import Batch, make_dataset
from dimenet_tf.predictor import Prediction
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.properties.heads import Head, Sum
from dimenet_tf.properties.losses import Loss
from dimenet_tf.structures.quantities import conversion
from dimenet_tf.training.report import report
from helpers.models import SMALL, randomize
from helpers.training import trainer_of

TARGET = ["energy", "forces", "stress"]
VOIGT = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])
TENSOR = np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]])


def labelled(atoms):
    """Structure with the energy, forces and, where it has a volume, the stress of EMT."""
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if atoms.pbc.all():
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def crystals(number, seed=0):
    """Cells of four atoms of Cu, Al and Pt: rattled, strained by up to 8 %."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(number):
        atoms = bulk(("Cu", "Al", "Pt")[i % 3], cubic=True)
        strain = np.eye(3) * rng.uniform(-0.06, 0.06) + rng.uniform(-0.02, 0.02, (3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(0.03, seed=i)
        frames.append(labelled(atoms))
    return frames


def molecules(number):
    frames = []
    for i in range(number):
        atoms = molecule("CO") if i % 2 else molecule("N2")
        atoms.rattle(0.05, seed=i)
        frames.append(labelled(atoms))
    return frames


def copper(**values):
    atoms = bulk("Cu", cubic=True)
    results = {name: values.pop(name) for name in ("energy", "stress") if name in values}
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(values)
    return atoms


def configuration(name="painn", precision="float32", **training):
    steps = {"num_steps": 6, "warmup_steps": 2, "decay_steps": 4_000_000, "evaluation_interval": 3, "batch_size": 4}
    model = {"name": name, **SMALL[name]}
    return resolve({"model": model, "precision": precision, "training": {**steps, **training, "log_interval": 1}})


def dataset_of(frames, target=TARGET, train=None):
    order = np.arange(len(frames))
    train = train or len(frames) - 2
    split = Split(order[:train], order[train : train + 1], order[train + 1 :])
    return load_dataset(DataConfig(target=target, references="fit"), split, from_atoms(frames))


def test_units_of_a_stress():
    assert conversion("stress", "GPa") == pytest.approx(GPa, rel=1e-8)
    assert conversion("stress", "kbar") == pytest.approx(GPa / 10, rel=1e-8)
    assert conversion("stress", "Hartree/a0^3") == pytest.approx(183.6315, rel=1e-5)
    with pytest.raises(UserError, match="can be read in eV/Ang"):
        conversion("stress", "eV")


@pytest.mark.parametrize("written", [VOIGT, VOIGT.tolist(), TENSOR, TENSOR.ravel(), TENSOR.tolist()])
def test_a_stress_is_read_as_six_or_nine_numbers(written):
    for atoms in (copper(stress=np.asarray(written)) if np.shape(written) == (6,) else None, copper(my_stress=written)):
        if atoms is not None:
            keys = {"stress": "my_stress"} if "my_stress" in atoms.info else None
            np.testing.assert_array_equal(from_atoms([atoms], keys=keys).labels("stress")[0], TENSOR)


def test_extended_xyz_keeps_stress_and_virial(tmp_path):
    frames = crystals(3)
    ase.io.write(tmp_path / "crystals.extxyz", frames)
    read = read_file(tmp_path / "crystals.extxyz").labels("stress")
    np.testing.assert_allclose(read, [atoms.get_stress(voigt=False) for atoms in frames], atol=1e-7)
    gpa = read_file(tmp_path / "crystals.extxyz", units={"stress": "GPa"}).labels("stress")
    np.testing.assert_allclose(gpa, read * GPa, rtol=1e-6)
    text = 'Lattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3 virial="-4 0 0 0 -4 0 0 0 8"'
    (tmp_path / "virial.extxyz").write_text(f"1\n{text}\nCu 0 0 0\n")
    data = read_file(tmp_path / "virial.extxyz")
    np.testing.assert_allclose(data.labels("stress")[0], np.diag([0.5, 0.5, -1.0]))
    assert data.notes == [f"{tmp_path / 'virial.extxyz'}: stresses are those of its virials: -virial / volume"]
    assert "virial" not in data.targets


def test_stresses_survive_a_way_through_ase():
    data = from_atoms(crystals(2))
    np.testing.assert_array_equal(from_atoms(data.to_atoms()).labels("stress"), data.labels("stress"))


@pytest.mark.parametrize("layout", ["voigt", "nine", "tensor", "virial"])
def test_npz_with_stresses(tmp_path, layout):
    frames = crystals(3)
    data = from_atoms(frames)
    stress = data.labels("stress")
    arrays = {
        "voigt": {"stress": [atoms.get_stress() for atoms in frames]},
        "nine": {"stress": stress.reshape(-1, 9)},
        "tensor": {"stress": stress},
        "virial": {"virial": -stress * np.array([atoms.get_volume() for atoms in frames])[:, None, None]},
    }[layout]
    cell, pbc = data.cell_arrays()
    np.savez(tmp_path / "crystals.npz", N=data.N, Z=data.Z, R=data.R, cell=cell, pbc=pbc, **arrays)
    np.testing.assert_allclose(read_file(tmp_path / "crystals.npz").labels("stress"), stress, rtol=1e-12, atol=1e-15)


def test_structures_without_a_volume_have_no_stress():
    slab = copper(stress=VOIGT)
    slab.pbc = [True, True, False]
    slab.calc.atoms.pbc = slab.pbc
    data = from_atoms([slab, copper(stress=VOIGT), *molecules(1)])
    assert data.labelled("stress").tolist() == [False, True, False]


def test_a_stress_and_a_virial_that_do_not_agree_are_refused():
    volume = copper().get_volume()
    assert from_atoms([copper(stress=VOIGT, virial=-TENSOR * volume)]).labelled("stress").all()
    with pytest.raises(UserError, match="stress of molecule 1 is not -virial / volume"):
        from_atoms([copper(stress=VOIGT), copper(stress=VOIGT, virial=TENSOR * volume)])


def test_labels_that_cannot_be_learned_are_refused():
    good = crystals(6)
    for atoms in good:
        atoms.calc.results["stress"] = atoms.calc.results["stress"] / GPa * 10  # kbar
    with pytest.raises(UserError, match="is their unit kbar or GPa"):
        dataset_of(good)
    skew = crystals(6)
    skew[2].calc.results.pop("stress")
    skew[2].info["stress"] = np.array([[0.1, 0.3, 0], [0, 0.1, 0], [0, 0, 0.1]])
    with pytest.raises(UserError, match="'stress' of molecule 2 is not symmetric"):
        dataset_of(skew)
    with pytest.raises(UserError, match="no structure is periodic"):
        container = from_atoms(molecules(6))
        container.targets["stress"] = np.full((6, 3, 3), np.nan)
        load_dataset(DataConfig(target=TARGET), Split(np.arange(4), np.arange(4, 5), np.arange(5, 6)), container)
    for target in (["energy", "stress"], ["stress"], ["energy", "forces", "virial"]):
        with pytest.raises(UserError, match=r"set data.target: \[energy, forces, stress\]"):
            dataset_of(crystals(6), target)


def test_stress_needs_forces_that_are_a_gradient(tmp_path):
    config = configuration()
    config["model"]["direct_forces"] = True
    with pytest.raises(UserError, match="predicts forces directly"):
        trainer_of(config, tmp_path, dataset_of(crystals(9)))
    with pytest.raises(UserError, match="training.rho_stress needs a stress"):
        trainer_of(configuration(rho_stress=1.0), tmp_path, dataset_of(crystals(9), ["energy", "forces"]))


@pytest.mark.parametrize("name", ["dimenet", "gemnet", "mse"])
def test_the_loss_is_its_slow_twin(name):
    """A crystal, a crystal without a label and a molecule."""
    rng = np.random.default_rng(0)
    N, owner = np.array([2, 1, 3]), np.array([0, 0, 1, 2, 2, 2])
    values, targets = rng.normal(size=(2, 3, 1))
    forces, force_labels = rng.normal(size=(2, 6, 3))
    stress, labels = rng.normal(size=(2, 3, 3, 3))
    cell = rng.normal(size=(3, 3, 3))
    cell[2], stress[2], labels[1:] = 0, np.nan, np.nan
    head = Head([Sum("energy", "eV", 2.0)])
    arguments = targets, force_labels, owner, N
    prediction = Prediction(tf.constant(values), (), tf.constant(forces), tf.constant(stress))
    without = Loss(name, 0.5, head, "energy")(prediction, *arguments)
    loss = Loss(name, 0.5, head, "energy", None, 3.0, True)
    with tf.GradientTape() as tape:
        tape.watch(prediction.stress)
        total = loss(prediction, *arguments, tf.constant(labels), tf.constant(cell))
    gradient = tape.gradient(total, prediction.stress)
    power = 2 if name == "mse" else 1
    term = 3.0 * np.mean(np.abs((stress - labels)[0] * abs(np.linalg.det(cell[0])) / 2 / 2.0) ** power)
    np.testing.assert_allclose(total - without, [term, 0, 0], rtol=1e-12, atol=1e-15)
    assert np.isfinite(gradient).all() and not np.any(gradient[1:]) and np.all(gradient[0])


@pytest.mark.parametrize("name", ["painn", "dimenet_pp"])
def test_the_gradient_of_the_loss_by_a_weight(tmp_path, name):
    """Training differentiates the derivative by strain: against finite differences in float64."""
    data = dataset_of([*crystals(6), *molecules(3), *crystals(2, seed=1)])
    trainer = trainer_of(configuration(name, "float64", loss="mse", rho_stress=50.0), tmp_path, data)
    randomize(trainer.predictor.model)
    batch = next(iter(trainer._training_data(0)))
    assert isinstance(batch, Batch) and batch.stress.shape == (len(batch.targets), 3, 3)
    _, gradients = trainer.training._loss_and_gradients(batch)
    variables = trainer.predictor.trainable_variables
    rng = np.random.default_rng(1)
    kernels = [i for i, v in enumerate(variables) if v.shape.rank == 2 and np.abs(gradients[i]).max() > 0]
    names = {v.ref(): key for key, v in named_variables(trainer.predictor.model).items()}
    for i in rng.choice(kernels, 3, replace=False):
        index = np.unravel_index(np.argmax(np.abs(gradients[i])), gradients[i].shape)
        start, step = variables[i].numpy(), 1e-5
        found = []
        for sign in (1, -1):
            moved = start.copy()
            moved[index] += sign * step
            variables[i].assign(moved)
            found.append(trainer.training._loss_and_gradients(batch)[0].numpy())
        variables[i].assign(start)
        slope = (found[0] - found[1]) / (2 * step)
        np.testing.assert_allclose(gradients[i].numpy()[index], slope, rtol=1e-6, err_msg=names[variables[i].ref()])


def test_crystals_are_trained_on_without_their_stress(tmp_path):
    data = dataset_of([*molecules(4), *crystals(6)], ["energy", "forces"])
    trainer = trainer_of(configuration(), tmp_path, data)
    assert trainer.run() is None
    assert "stress" not in report(trainer.validation.averaged, data, trainer.folder)


def test_batches_without_a_learned_stress_have_none():
    data = from_atoms([*crystals(3), *molecules(1)])
    predictor = build_predictor(configuration(), dataset_of([*molecules(4), *crystals(6)]))
    store = predictor.graph_store(data.N, data.Z, data.R, *data.cell_arrays())
    targets = data.labels("energy")[:, None]
    molecules_of_batch = np.array([[0, 3], [1, 2]])
    for stress, rows in ((None, [0, 0]), (data.labels("stress"), [2, 2])):
        batches = list(make_dataset(store, targets, lambda: iter(molecules_of_batch), stress=stress))
        assert [len(batch.stress) for batch in batches] == rows
    assert np.isnan(batches[0].stress.numpy()).all(axis=(1, 2)).tolist() == [False, True]


def test_ten_strained_crystals_and_four_molecules_are_learned(tmp_path):
    frames = [*crystals(10), *molecules(4)]
    split = Split(np.arange(14), np.arange(14, 28), np.arange(28, 42))  # validated and tested on copies
    data = load_dataset(DataConfig(target=TARGET, references="fit"), split, from_atoms(frames * 3))
    assert data.num_labels() == {"energy": 42, "forces": 42, "stress": 30}
    steps = {"num_steps": 300, "evaluation_interval": 100, "learning_rate": 5e-3, "ema_decay": 0.9, "batch_size": 14}
    config = configuration(**steps)
    trainer = trainer_of(config, tmp_path, data)
    assert trainer.run() is None
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    baseline = trainer.validation.baseline["targets"]["stress"]["mae"]
    assert float(rows[-1]["mae_stress"]) < 0.3 * baseline
    text = report(trainer.validation.averaged, data, trainer.folder)
    assert "MAE of stress: " in text and " meV/Ang^3 = " in text and " GPa" in text
    squeezed, stretched = (bulk("Cu", cubic=True) for _ in range(2))
    squeezed.set_cell(squeezed.cell * 0.95, scale_atoms=True)
    stretched.set_cell(stretched.cell * 1.05, scale_atoms=True)
    predicted = trainer.validation.averaged.predict([squeezed, stretched])["stress"]
    for atoms, found in zip((squeezed, stretched), predicted):
        expected = np.trace(labelled(atoms).get_stress(voigt=False))
        assert np.sign(np.trace(found)) == np.sign(expected)
