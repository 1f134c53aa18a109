"""Outlying labels, missing labels, weights of molecules, and energies of single atoms."""

import csv
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.optimize import linprog

from dimenet_tf.config.schema import resolve
from dimenet_tf.data import Checks, DataConfig, DataContainer, Split, ethanol_xtb, load_dataset
from dimenet_tf.data.dataset import describe, load_container
from dimenet_tf.data.embedded import sample
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Prediction, load
from dimenet_tf.properties.heads import Dipole, Head, Sum
from dimenet_tf.properties.loss_kinds import LOSSES
from dimenet_tf.properties.losses import Loss
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.outliers import find_outliers, robust_fit
from dimenet_tf.structures.splits import random_split
from dimenet_tf.training.report import report
from dimenet_tf.training.session import check_continuation, introduction
from helpers.paths import FILES
from helpers.training import configuration, trainer_of

CASES = FILES / "cases"
SAMPLE, ETHANOL = sample(), ethanol_xtb()


def outliers(data: DataContainer, name: str) -> dict[int, str]:
    return find_outliers(data, name, np.ones(len(data), bool))


@pytest.mark.parametrize("data", [SAMPLE, ETHANOL], ids=["sample", "ethanol"])
def test_the_embedded_data_have_no_outliers(data):
    rng = np.random.default_rng(0)
    parts = [data, *(data.select(rng.permutation(2000)[:size]) for size in (15, 30, 60, 300) for _ in range(5))]
    for name in data.targets:
        assert [outliers(part, name) for part in parts] == [{}] * len(parts), name


@pytest.mark.parametrize("size", [12, 40, 1000])
@pytest.mark.parametrize("name", ["U0", "gap", "alpha", "energy", "forces", "dipole", "polarizability"])
def test_a_planted_outlier_is_found_and_no_other(name, size):
    if name in SAMPLE.targets:  # molecules of all sizes and compositions; too few of them judge nothing
        data = SAMPLE.select(np.random.default_rng(1).permutation(2000)[: max(size, 40)])
    else:
        data = ETHANOL.select(range(size))
    for planted in (0, 7, len(data) - 1):
        spoiled = data.select(range(len(data)))
        values = spoiled.targets[name]
        index = 9 * planted + 4 if name == "forces" else planted
        if name == "forces":
            values[9 * planted : 9 * planted + 9] *= 1e5
        elif values.ndim == 1:
            values[index] += 1e4
        else:
            values[index].flat[-1] -= 1e4
        found = outliers(spoiled, name)
        assert list(found) == [planted]
        assert " MADs from the rest" in found[planted] and ("at atom" in found[planted]) == (name == "forces")


def test_what_is_no_outlier():
    few = ETHANOL.select(range(9))
    few.targets["energy"][3] += 1e4
    assert outliers(few, "energy") == {}
    same = ETHANOL.select(range(50))
    same.targets["energy"][:] = -1.0
    same.targets["energy"][3] = 1e4  # a MAD of 0
    assert outliers(same, "energy") == {}
    # two honest kinds of frames: near the minimum and far from it, isomers, one in eight of them
    rng = np.random.default_rng(0)
    two = ETHANOL.select(range(400))
    excited = np.arange(400) % 8 == 0
    two.targets["energy"][:] = -4200 + np.where(excited, 9 + rng.normal(size=400), 0.01 * rng.normal(size=400))
    two.targets["forces"][:] = np.where(excited.repeat(9), 3, 1e-3)[:, None] * rng.normal(size=(3600, 3))
    assert outliers(two, "energy") == outliers(two, "forces") == {}
    two.targets["energy"][5] += 1e4
    two.targets["forces"][9 * 6 + 2, 1] = 1e5
    assert list(outliers(two, "energy")) == [5] and list(outliers(two, "forces")) == [6]


def test_the_robust_fit_is_that_of_linear_programming():
    composition = SAMPLE.composition()[:300]
    inputs = composition[:, composition.any(axis=0)].astype(float)
    values = SAMPLE.target("U0")[:300].copy()
    values[[3, 50]] += 1e4
    m, n = inputs.shape
    parts = np.concatenate([inputs, np.eye(m), -np.eye(m)], axis=1)
    cost = np.r_[np.zeros(n), np.ones(2 * m)]
    best = linprog(cost, A_eq=parts, b_eq=values, bounds=[(None, None)] * n + [(0, None)] * 2 * m)
    assert np.abs(values - robust_fit(inputs, values)).sum() == pytest.approx(best.fun, rel=1e-5)


def write_frames(path: Path, data: DataContainer, before: list[Atoms] = (), without_forces=()) -> str:
    """Write extended XYZ with energies and forces, after other frames."""
    frames = list(before)
    for i in range(len(data)):
        one = data.select([i])
        atoms = Atoms(one.Z, one.R)
        results = {"energy": one.target("energy")[0], "forces": one.target("forces")}
        if i in without_forces:
            del results["forces"]
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return str(path)


def test_outliers_are_refused_dropped_or_kept(tmp_path):
    data = ETHANOL.select(range(30))
    data.targets["energy"][7] += 1e4
    data.targets["forces"][9 * 11 : 9 * 12] *= 1e5
    config = {"path": write_frames(tmp_path / "data.extxyz", data), "target": "energy,forces"}
    with pytest.raises(UserError) as error:
        load_container(DataConfig(**config))
    text = str(error.value)
    assert text.startswith(f"{config['path']}: 2 of 30 molecules cannot be used: 1 with an outlier of 'energy' ")
    assert (
        f"(molecule 7, id 7, {data.target('energy')[7]:.7g} eV, " in text and " 1 with an outlier of 'forces' " in text
    )
    assert text.endswith("data.on_bad=drop leaves them out, data.outliers=keep trains on the outliers")
    dropped = load_container(DataConfig(**config, on_bad="drop")).dropped
    assert [bad.index for bad in dropped] == [7, 11]
    RunFolder(tmp_path).write_dropped(dropped)
    with (tmp_path / "dropped.csv").open(newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["7", "11"]
    kept = load_dataset(DataConfig(**config, outliers="keep"))
    assert len(kept.container) == 30 and [bad.index for bad in kept.container.outliers] == [7, 11]
    (note,) = kept.notes()
    assert note.startswith("trains on outliers (data.outliers=keep): 1 with an outlier of 'energy' (molecule 7, id 7, ")
    assert np.isfinite(kept.fitted("energy").reference.scale)
    # only what is learned is judged
    assert [
        bad.index for bad in load_container(DataConfig(**{**config, "target": "energy"}, on_bad="drop")).dropped
    ] == [7]
    with pytest.raises(UserError, match="data.outliers must be one of bad, keep; got 'drop'"):
        load_container(DataConfig(**config, outliers="drop"))


def test_a_run_goes_on_with_another_choice_of_outliers(tmp_path):
    folder, config = RunFolder(tmp_path), configuration()
    folder.write_config(config)
    check_continuation(resolve({**config, "data": {**config["data"], "outliers": "keep"}}), folder)


# missing labels


class Labels:
    """Random predictions and labels of four molecules, some missing."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.N = np.array([3, 1, 4, 2])
        self.owner = np.repeat(np.arange(4), self.N)
        self.head = Head([Sum("energy", "eV", 2.0), Dipole("dipole", "e*Ang", 0.5)])
        self.values, self.forces = rng.normal(size=(4, 4)), rng.normal(size=(10, 3))
        self.targets, self.labels = rng.normal(size=(4, 4)), rng.normal(size=(10, 3))
        self.targets[1, 0] = self.targets[2, 1:] = self.targets[3] = np.nan
        self.labels[self.owner == 0] = np.nan
        self.labels[[4, 6]] = np.nan  # two fixed atoms of molecule 2

    def loss(self, name: str, values, forces) -> tf.Tensor:
        loss = Loss(name, None, self.head, "energy", {"dipole": 0.3})
        prediction = Prediction(values, None, forces)
        return loss(prediction, self.targets, self.labels, self.owner, self.N)

    def slowly(self, name: str) -> list[float]:
        """The loss, one molecule and one label after the other."""
        size, rho, losses = (np.square if name == "mse" else np.abs), LOSSES[name].rho, []
        for m in range(4):
            energy = forces = dipole = 0.0
            if not np.isnan(self.targets[m, 0]):
                energy = size((self.values[m, 0] - self.targets[m, 0]) / 2)
            if not np.isnan(self.targets[m, 1]):
                dipole = size((self.values[m, 1:] - self.targets[m, 1:]) / 0.5).mean()
            error = (self.forces - self.labels)[self.owner == m] / 2
            error = error[~np.isnan(error).any(axis=1)]
            if len(error):
                forces = np.linalg.norm(error, axis=1).mean() if name == "gemnet" else size(error).mean()
            energy = (1 if name == "dimenet" else 1 - rho) * energy + rho * forces
            losses.append((energy + 0.3 * dipole) / 2)
        return losses


@pytest.mark.parametrize("name", LOSSES)
def test_a_missing_label_has_no_loss_and_no_gradient(name):
    case = Labels()
    values, forces = tf.constant(case.values), tf.constant(case.forces)
    with tf.GradientTape() as tape:
        tape.watch([values, forces])
        losses = case.loss(name, values, forces)
        total = tf.reduce_sum(losses)
    np.testing.assert_allclose(losses, case.slowly(name), rtol=1e-12)
    by_values, by_forces = (gradient.numpy() for gradient in tape.gradient(total, [values, forces]))
    np.testing.assert_array_equal(by_values == 0, np.isnan(case.targets))
    np.testing.assert_array_equal(by_forces == 0, np.isnan(case.labels))
    for given, gradient in ((case.values, by_values), (case.forces, by_forces)):
        for place in np.ndindex(given.shape):
            before, ends = given[place], []
            for step in (1e-6, -1e-6):
                given[place] = before + step
                ends.append(sum(case.slowly(name)))
            given[place] = before
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_a_prediction_that_is_not_finite_is_not_hidden_by_labels_of_others():
    """A missing label hides what is predicted of it, and nothing else."""
    case = Labels()
    values = case.values.copy()
    values[3] = np.nan
    assert np.isfinite(case.loss("dimenet", values, case.forces)).all()
    values[0, 0] = np.nan
    assert np.isnan(case.loss("dimenet", values, case.forces)).tolist() == [True, False, False, False]


def partial(**changes):
    """The first 16 frames of ethanol, of which every second has forces."""
    path = str(CASES / "some_without_forces.extxyz")
    config = DataConfig(path=path, target="energy,forces", num_train=8, num_valid=4, **changes)
    return load_dataset(config, container=load_container(config).select(range(16)))


def test_training_uses_each_frame_for_what_it_has(tmp_path):
    data, folder = partial(), RunFolder(tmp_path)
    config = configuration(batch_size=4, num_steps=2, evaluation_interval=2)
    trainer = trainer_of(config, tmp_path, data)
    trainer.run()
    assert "labels: energy 16, forces 8 of 16 molecules" in introduction(trainer, config)
    assert describe(data)["labels"] == {"energy": 16, "forces": 8}
    assert [np.count_nonzero(data.container.labelled("forces")[part]) for part in data.split] == [4, 2, 2]
    # errors, scale and validation loss are those of the labelled frames
    valid, best = trainer.validation.molecules, load(folder.path)
    predicted = best.predict_store(best.graph_store(valid.N, valid.Z, valid.R), np.arange(4))
    forces = np.abs(predicted.forces - valid.labels("forces"))
    has = ~np.isnan(forces)
    assert has.sum() == 2 * 27
    (row,) = folder.read_metrics()
    assert row["mae_forces"] == pytest.approx(forces[has].mean(), rel=1e-5)
    trained = data.container.select(data.split.train).labels("forces")
    scale = best.head["energy"].scale
    assert scale == pytest.approx(np.sqrt((trained[np.isfinite(trained)] ** 2).mean()))
    energies = np.abs(predicted.values[:, 0] - valid.target("energy"))
    loss = (energies.sum() + 100 * np.nansum(forces) / 27) / 4 / scale
    assert row["validation_loss"] == pytest.approx(loss, rel=1e-5)
    text = report(best, data, folder)
    assert "molecules" in text.splitlines()[1]
    result = json.loads((folder.path / "test.json").read_text())
    assert result["targets"]["forces"]["labels"] == 2 and "labels" not in result["targets"]["energy"]
    # a test part without any forces has no row of them
    order = np.argsort(~data.container.labelled("forces"), kind="stable")
    split = Split(order[:6], order[6:9], order[9:])
    without = load_dataset(data.config, split, data.container)
    text = report(best, without, folder)
    assert "energy" in text and "forces" not in text


def test_parts_without_a_label_are_refused():
    data = partial()
    order = np.argsort(data.container.labelled("forces"), kind="stable")
    for train, valid, what in ((8, 4, "8 training"), (12, 2, None), (2, 2, "2 training")):
        split = Split(order[:train], order[train : train + valid], order[train + valid :])
        if what is None:
            load_dataset(data.config, split, data.container)
            continue
        with pytest.raises(UserError, match=rf"no value of 'forces' in the {what} molecules \(8 of 16"):
            load_dataset(data.config, split, data.container)
    none = data.container.select(range(16))
    none.targets["energy"][order[2]] = np.nan
    with pytest.raises(
        UserError, match=rf"1 of 16 molecules have no value of energy, forces \(first: molecule {order[2]}\)"
    ):
        load_dataset(data.config, data.split, none)
    split = Split(order[12:], order[:4], order[4:12])
    with pytest.raises(UserError, match="no value of 'forces' in the 4 validation molecules"):
        load_dataset(data.config, split, data.container)


def test_a_frame_without_any_label_is_bad(tmp_path):
    arrays = {key: getattr(ETHANOL.select(range(30)), key) for key in "NZR"}
    energy, forces = ETHANOL.target("energy")[:30].copy(), ETHANOL.target("forces")[:270].copy()
    energy[[3, 4]], forces[9 * 4 + 1] = np.nan, np.nan  # forces of a frame are there as a whole or not at all
    energy[6] = np.inf
    np.savez(tmp_path / "data.npz", **arrays, energy=energy, forces=forces)
    config = {"path": str(tmp_path / "data.npz"), "target": "energy,forces"}
    with pytest.raises(
        UserError,
        match="1 with no value of any of the targets 'energy', 'forces' .*; 1 with an infinite value of 'energy'",
    ):
        load_container(DataConfig(**config))
    data = load_dataset(DataConfig(**config, on_bad="drop"))
    assert [bad.index for bad in data.container.dropped] == [4, 6]
    assert data.num_labels() == {"energy": 27, "forces": 28}


def test_references_and_spreads_are_those_of_labelled_molecules():
    data = SAMPLE.select(range(200))
    missing = np.arange(200) % 3 == 0
    data.targets["mu"][missing] = np.nan
    order = np.random.RandomState(0).permutation(200)
    split = Split(order[:150], order[150:170], order[170:])
    config = DataConfig(target="U0,mu")
    some = load_dataset(config, split, data)
    number = np.cumsum(~missing) - 1
    parts = Split(*(number[part[~missing[part]]] for part in split))
    rest = load_dataset(DataConfig(target="mu"), parts, data.select(np.flatnonzero(~missing)))
    assert some.fitted("mu").reference.offset == pytest.approx(rest.fitted("mu").reference.offset)
    assert some.fitted("mu").reference.scale == pytest.approx(rest.fitted("mu").reference.scale)
    assert some.sigmas["mu"] == pytest.approx(data.targets["mu"][~missing].std())
    assert np.isfinite(some.baseline()).all() and np.isnan(some.targets[missing, 1]).all()


def test_groups_are_spread_over_the_parts():
    groups = np.arange(200) % 10 == 0
    split = random_split(200, 150, 30, 0, groups)
    assert [groups[part].sum() for part in split] == [15, 3, 2]
    assert sorted(np.concatenate(split)) == list(range(200))
    for part, same in zip(random_split(200, 150, 30, 0, np.zeros(200, int)), random_split(200, 150, 30, 0)):
        np.testing.assert_array_equal(part, same)


# weights


def weighted(weight) -> DataContainer:
    some = SAMPLE.select(range(60))
    return DataContainer(some.N, some.Z, some.R, {"U0": some.target("U0")}, weight=weight)


def test_weights_multiply_the_losses(tmp_path):
    weight = np.random.default_rng(0).integers(0, 4, 60) / 2
    split = Split(np.arange(40), np.arange(40, 50), np.arange(50, 60))
    data = load_dataset(DataConfig(target="U0"), split, weighted(weight))
    trainer = trainer_of(configuration(), tmp_path, data)
    batch = next(iter(trainer._training_data(0)))
    molecules = next(trainer.batches.from_step(0))
    np.testing.assert_array_equal(batch.molecule_weights, weight[molecules])
    predicted = trainer.predictor.compute(batch.graph).values.numpy()[:, 0]
    errors = np.abs(predicted - data.container.target("U0")[molecules]) / trainer.predictor.head["U0"].scale
    logs = trainer.training.train_step(batch)
    assert float(logs["loss"]) == pytest.approx((weight[molecules] * errors).mean(), rel=1e-5)
    result = trainer.validation.run(trainer.predictor, trainer.optimizer)
    valid = trainer.validation.molecules
    predicted = trainer.validation.averaged.predict_store(trainer.store, trainer.validation.rows).values[:, 0]
    errors = np.abs(predicted - valid.target("U0"))
    scale = trainer.predictor.head["U0"].scale
    assert result.loss == pytest.approx((weight[40:50] * errors).mean() / scale, rel=1e-6)
    assert result.table["targets"]["U0"]["mae"] == pytest.approx(errors.mean(), rel=1e-6)
    assert data.notes() == [f"weights of molecules in the loss: 0 to 1.5, mean {weight.mean():.3g}"]


def test_weights_that_are_all_zero():
    weight = np.ones(60)
    weight[40:50] = 0
    split = Split(np.arange(40), np.arange(40, 50), np.arange(50, 60))
    with pytest.raises(UserError, match="all validation molecules have weight 0"):
        load_dataset(DataConfig(target="U0"), split, weighted(weight))


def test_weights_of_one_leave_the_checksum_as_it_was():
    plain = weighted(None)
    assert plain.checksum() == weighted(np.ones(60)).checksum() != weighted(np.full(60, 2)).checksum()
    assert SAMPLE.checksum().startswith("520448e77421ab77")  # of runs before there were weights


# single atoms

ENERGIES = {"C": -48.8, "O": -102.6, "H": -10.7}  # eV, GFN2-xTB


def single(symbol: str, energy: float | None, **info) -> Atoms:
    atoms = Atoms(symbol, [[0, 0, 0]], info=info)
    if energy is not None:
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def with_atoms(path: Path, *atoms: Atoms, frames=30) -> dict:
    before = atoms or [single(*item, config_type="IsolatedAtom") for item in ENERGIES.items()]
    return {
        "path": write_frames(path / "data.extxyz", ETHANOL.select(range(frames)), before),
        "target": "energy,forces",
    }


def test_single_atoms_become_reference_energies(tmp_path):
    config = with_atoms(tmp_path)
    data = load_dataset(DataConfig(**config, references="isolated_atoms"))
    assert len(data.container) == 30 and data.container.N.min() == 9 and not data.container.dropped
    assert data.container.isolated == {"energy": {6: -48.8, 8: -102.6, 1: -10.7}}
    reference = data.fitted("energy").reference
    assert reference.per_element[[1, 6, 8]].tolist() == [-10.7, -48.8, -102.6] and reference.offset == 0
    assert describe(data)["isolated_atoms"] == 3
    assert data.notes() == ["reference energies are those of 3 isolated atoms (H, C, O)"]
    fitted = load_dataset(DataConfig(**config))
    taken = "3 isolated atoms (H, C, O) have energies: data.references=isolated_atoms takes these as reference energies"
    assert fitted.notes() == [taken]
    assert fitted.fitted("energy").reference.per_element[1] != -10.7
    # they are part of what is trained, and so of the data's checksum
    other = with_atoms(tmp_path, *(single(z, energy + 1) for z, energy in ENERGIES.items()))
    assert load_container(DataConfig(**other)).checksum() != data.container.checksum()


def test_molecules_keep_their_numbers_when_atoms_are_set_aside(tmp_path):
    data = ETHANOL.select(range(12))
    N = np.r_[1, data.N[:5], 1, data.N[5:]]
    Z = np.r_[6, data.Z[:45], 1, data.Z[45:]]
    R = np.concatenate([[[0, 0, 0]], data.R[:45], [[0, 0, 0]], data.R[45:]])
    R[1 + 45 + 1 + 9] = R[1 + 45 + 1 + 10]  # of molecule 8
    energy = np.r_[-1030.1, data.target("energy")[:5], -13.6, data.target("energy")[5:]]
    split = Split(np.arange(0, 9), np.arange(9, 11), np.arange(11, 14))
    whole = DataContainer(N, Z, R, {"energy": energy}, split=split, check=False)
    rest = whole.checked(Checks("drop", targets=["energy"]))
    assert rest.set_aside == [0, 6] and [bad.index for bad in rest.dropped] == [8] and len(rest) == 11
    assert rest.id.tolist() == [1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13]
    assert [rest.id[part].tolist() for part in rest.split] == [[1, 2, 3, 4, 5, 7], [9, 10], [11, 12, 13]]
    again = rest.checked(Checks("drop", max_atoms=9))
    assert again is rest and again.isolated == {"energy": {6: -1030.1, 1: -13.6}}
    rest.R[0] = np.nan
    assert [bad.index for bad in rest.checked(Checks("drop")).dropped] == [1, 8]
    with pytest.raises(UserError, match="1 of 12 molecules cannot be used: 1 with two atoms closer.*molecule 8, id 8"):
        whole.checked(Checks(targets=["energy"]))


@pytest.mark.parametrize(
    "atoms, message",
    [
        (
            [single("H", -13.6), single("H", -13.7)],
            "single atoms of H have different values of 'energy', -13.6 and -13.7",
        ),
        ([single("H", None)], "1 with a single atom, of which"),
        ([single("H", -13.6)], "has no single atom of C, O with a value of 'energy'; it has those of H"),
        ([single("F", -2700.0)], "has no single atom of H, C, O with"),
        (
            [Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], info={"energy": -31.0})],
            "has no single atoms with a value of 'energy'",
        ),
        ([single(z, e / 27.2114) for z, e in ENERGIES.items()], "leave 33.. eV per atom.*are they in eV"),
    ],
)
def test_single_atoms_that_are_no_references(tmp_path, atoms, message):
    config = with_atoms(tmp_path, *atoms, frames=20)
    with pytest.raises(UserError, match=message):
        load_dataset(DataConfig(**config, references="isolated_atoms")).fitted("energy")


def test_isolated_atoms_are_no_references_of_a_gap():
    with pytest.raises(UserError, match="data.references=isolated_atoms: gap, mu cannot be summed over atoms"):
        load_dataset(DataConfig(target="gap,mu", references="isolated_atoms"))


def test_state_of_single_atoms():
    """Their spin is not looked at; ions are bad."""
    data = ETHANOL.select(range(12))

    def held(charge, spin):
        return DataContainer(
            np.r_[1, data.N],
            np.r_[8, data.Z],
            np.concatenate([[[0, 0, 0]], data.R]),
            {"energy": np.r_[-2041.8, data.target("energy")]},
            charge=[charge, *[0] * 12],
            spin=[spin, *[1] * 12],
            check=False,
        )

    assert held(0, 3).checked(Checks(targets=["energy"])).isolated == {"energy": {8: -2041.8}}
    with pytest.raises(UserError, match="a charge or spin that the models do not take .*charge 1 and spin"):
        held(1, 4).checked(Checks(targets=["energy"]))


def references_of(labels: np.ndarray, references, data=ETHANOL, name="energy"):
    some = data.select(range(len(labels)))
    some.targets = {name: np.asarray(labels, float)}
    config = DataConfig(target=name, references=references, units={name: "eV"})
    return load_dataset(config, container=some).fitted(name).reference


def test_energies_of_another_kind_than_their_references():
    total = ETHANOL.target("energy")[:40]
    level = total.mean() / 9
    mapping = {z: level for z in ENERGIES}
    with pytest.raises(UserError, match="the labels seem to be atomization or formation energies already"):
        references_of(total - total.mean() - 20, mapping)
    with pytest.raises(UserError, match="at most 15 is plausible.*are they in eV"):
        references_of(total, {z: e / 27.2 for z, e in mapping.items()})
    references_of(total, mapping), references_of(total, dict.fromkeys(ENERGIES, 0.0))
    references_of(total - total.mean() - 60, {"C": -1.3, "O": -1.9, "H": -1.1})  # small ones, as VASP's
    rng = np.random.default_rng(0)
    with pytest.raises(
        UserError, match=r"least-squares reference energies leave 1\d.* eV per atom .*data.units.energy"
    ):
        references_of(total + 9 * rng.normal(size=40) * 14, "fit")
    references_of(total, "auto")


def test_honest_energies_are_not_refused():
    for name in ("U0", "U", "H", "G", "zpve", "gap"):
        load_dataset(DataConfig(target=name, references="fit")).fitted(name)
    atomization = dict.fromkeys("HCNOF", 0.0)
    load_dataset(DataConfig(references=atomization)).fitted("U0")
    # an element that only unlabelled molecules contain
    data = SAMPLE.select(range(300))
    fluorine = data.composition()[:, 9] > 0
    assert fluorine.any()
    data.targets["U0"][fluorine] = np.nan
    (note,) = load_dataset(DataConfig(target="U0,mu"), container=data).notes()
    assert note == "no training molecule with a value of 'U0' contains F, so the reference value is 0"
