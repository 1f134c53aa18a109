import itertools

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from dimenet_tf.data import (
    DataConfig,
    DataContainer,
    Split,
    from_atoms,
    load_dataset,
    random_split,
    read_file,
    sample,
)
from dimenet_tf.data.embedded import FOLDER
from dimenet_tf.errors import UserError
from dimenet_tf.graph import GraphStore
from dimenet_tf.graph.batching import TrainingBatches, check_budget, fill_batches
from dimenet_tf.graph.pipeline import make_dataset
from dimenet_tf.properties.references import fit_reference
from dimenet_tf.structures.quantities import conversion, find_property

SAMPLE = str(FOLDER / "sample.npz")
N, Z, R = [3, 2], [8, 1, 1, 6, 8], np.arange(15.0).reshape(5, 3)


def test_container_from_npz_round_trip(tmp_path):
    np.savez(tmp_path / "data.npz", id=[7, 9], N=N, Z=Z, R=R, mu=[1.0, 2.0], smiles=["O", "[C-]#[O+]"])
    data = read_file(tmp_path / "data.npz")
    assert len(data) == 2 and list(data.targets) == ["mu"] and data.id.tolist() == [7, 9]
    assert data.elements == [1, 6, 8]
    assert data.composition()[:, [1, 6, 8]].tolist() == [[2, 0, 1], [0, 1, 1]]
    second = data.select([1])
    assert second.Z.tolist() == [6, 8] and second.target("mu").tolist() == [2.0] and second.id.tolist() == [9]
    np.testing.assert_array_equal(second.R, R[3:])


BAD = {
    "missing array 'Z'": {"N": N, "R": R},
    r"Z has shape \(4,\), but N requires \(5,\)": {"N": N, "Z": Z[:4], "R": R},
    r"R has shape \(5, 2\)": {"N": N, "Z": Z, "R": R[:, :2]},
    r"target 'mu' has shape \(3,\)": {"N": N, "Z": Z, "R": R, "mu": [1, 2, 3]},
    "N must be": {"N": [6, -1], "Z": Z, "R": R},
    "not a readable npz file without pickled objects": {"N": N, "Z": Z, "R": R, "x": np.array([{}, {}], object)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_refused_with_the_reason(tmp_path, message):
    np.savez(tmp_path / "bad.npz", **BAD[message])
    with pytest.raises(UserError, match=message) as error:
        read_file(tmp_path / "bad.npz")
    assert "bad.npz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.npz", "a.xyz"])
def test_missing_and_broken_files(tmp_path, name):
    with pytest.raises(UserError, match="no such file"):
        read_file(tmp_path / name)
    (tmp_path / name).write_text("this is no molecule\n")
    with pytest.raises(UserError, match="expected the number of atoms|not a readable"):
        read_file(tmp_path / name)


def test_extended_xyz(tmp_path):
    frames = [molecule("H2O"), molecule("CO2")]
    for i, atoms in enumerate(frames):
        atoms.info.update(mu=0.5 + i, comment="text is no target")
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 * i)
    ase.io.write(tmp_path / "data.xyz", frames, format="extxyz")
    data = read_file(tmp_path / "data.xyz")
    assert data.N.tolist() == [3, 3] and data.Z.tolist() == [8, 1, 1, 6, 8, 8]
    assert list(data.targets) == ["energy", "mu"] and data.target("mu").tolist() == [0.5, 1.5]
    assert data.target("energy").tolist() == [0.0, -10.0]
    frames[1].set_cell([9, 9, 9])
    frames[1].pbc = True
    frames[1].calc = SinglePointCalculator(frames[1], energy=-10.0)
    data = from_atoms(frames)
    assert data.cells.periodic.tolist() == [False, True] and data[1].cell[0, 0] == 9 and not data[0].pbc.any()


def test_unknown_target_names_the_closest():
    with pytest.raises(UserError, match="unknown target 'homoo'; did you mean 'homo'"):
        sample().target("homoo")


def test_checksum_belongs_to_the_content():
    data = DataContainer(N, Z, R, {"mu": [1, 2]})
    assert data.checksum() == DataContainer(N, Z, R.copy(), {"mu": [1, 2]}, source="elsewhere").checksum()
    assert data.checksum() != DataContainer(N, Z, R, {"mu": [1, 3]}).checksum()


class TestSample:
    data = sample()

    def test_is_what_its_readme_says(self):
        assert len(self.data) == 2000
        assert set(self.data.elements) == {1, 6, 7, 8, 9}
        heavy = np.add.reduceat(self.data.Z > 1, np.cumsum(self.data.N) - self.data.N)
        assert heavy.min() == 1 and heavy.max() == 9
        assert set(self.data.targets) == set("mu alpha homo lumo gap zpve U0 U H G Cv".split())

    def test_labels_are_consistent(self):
        t = self.data.targets
        np.testing.assert_allclose(t["gap"], t["lumo"] - t["homo"], atol=1e-6)
        assert (t["gap"] > 0).all() and (t["mu"] >= 0).all() and (t["alpha"] > 0).all() and (t["zpve"] > 0).all()
        assert (t["U0"] < 0).all()
        # atomization: the atoms gain more thermal energy than the molecule has, and more entropy
        assert (t["U"] < t["U0"]).all() and (t["H"] < t["U"]).all() and (t["G"] > t["U0"]).all()

    def test_geometries_are_molecules(self):
        store = GraphStore(self.data.N, self.data.Z, self.data.R, cutoff=0.65, needs=())
        assert store.sizes("edges").sum() == 0
        assert len(np.unique(self.data.id)) == 2000


def test_random_split_is_the_releases():
    split = random_split(1000, 700, 100, seed=42)
    order = np.random.RandomState(seed=42).permutation(1000)
    np.testing.assert_array_equal(np.concatenate(split), order)
    assert [len(part) for part in split] == [700, 100, 200]
    assert [len(part) for part in random_split(1000, None, None, 0)] == [800, 100, 100]


@pytest.mark.parametrize("counts", [(0, 10), (10, 0), (95, 6), (90, 10)])
def test_impossible_splits(counts):
    with pytest.raises(UserError, match="data.num_train"):
        random_split(100, *counts, seed=0)


def test_split_file(tmp_path):
    split = random_split(50, 20, 10, 1)
    split.save(tmp_path / "split.npz")
    for a, b in zip(split, Split.load(tmp_path / "split.npz")):
        np.testing.assert_array_equal(a, b)


class TestReferences:
    data = sample()
    train = np.arange(1500)

    def make(self, name, **options):
        return fit_reference(self.data, name, find_property(name), self.train, **options)

    def test_fit_leaves_nothing_that_a_sum_over_elements_explains(self):
        reference = self.make("U0")
        composition = self.data.composition()[self.train]
        rest = self.data.target("U0")[self.train] - reference.baseline(composition)
        np.testing.assert_allclose(composition[:, [1, 6, 7, 8, 9]].T @ rest, 0, atol=1e-6)
        assert reference.scale == pytest.approx(rest.std())
        assert not reference.per_element[[0, 2, 3, 16, 94]].any()

    def test_intensive_properties_get_a_mean(self):
        reference = self.make("homo")
        assert reference.offset == pytest.approx(self.data.target("homo")[self.train].mean())
        assert not reference.per_element.any()

    def test_none_and_given(self):
        assert self.make("U0", references="none", standardize=False)[1:] == (0.0, 1.0)
        given = {"H": -1.0, "C": -2.0, "N": -3.0, "O": -4.0, "F": -5.0}
        assert self.make("U0", references=given).per_element[[1, 6, 7, 8, 9]].tolist() == list(given.values())

    @pytest.mark.parametrize(
        "references, message",
        [
            ("fitt", "data.references must be one of"),
            ({"H": 1.0}, "no value for C, N, O, F"),
            ({"H": "a", "C": 1.0, "N": 1.0, "O": 1.0, "F": 1.0}, "the values must be numbers"),
            ({"Hh": 1.0}, "unknown element in data.references 'Hh'"),
        ],
    )
    def test_errors(self, references, message):
        with pytest.raises(UserError, match=message):
            self.make("U0", references=references)


def test_batches_of_every_epoch_hold_every_molecule_once():
    molecules = np.arange(100, 123)
    batches = TrainingBatches(molecules, seed=1, batch_size=5).from_step(0)
    epochs = [np.concatenate(list(itertools.islice(batches, 5))) for _ in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), molecules)
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_are_a_function_of_seed_and_step():
    molecules = np.arange(23)
    sizes = {"atoms": np.arange(23) % 7 + 1}
    for fill in ({"batch_size": 5}, {"budget": {"atoms": 20}, "sizes": sizes}):
        used = TrainingBatches(molecules, 1, **fill)
        all_steps = list(itertools.islice(used.from_step(0), 20))
        for first in (0, 3, 5, 12):
            for batches in (
                used,
                TrainingBatches(molecules, 1, **fill),
            ):  # one that knows the epochs, one that does not
                later = list(itertools.islice(batches.from_step(first), 20 - first))
                assert len(later) == 20 - first
                for a, b in zip(all_steps[first:], later):
                    np.testing.assert_array_equal(a, b)
    other = next(TrainingBatches(molecules, 2, **fill).from_step(0))
    assert not np.array_equal(all_steps[0], other)


def test_budget_batches_are_full_and_leave_nothing_out():
    rng = np.random.default_rng(0)
    sizes = {"atoms": rng.integers(1, 20, 200), "edges": rng.integers(1, 300, 200)}
    sizes["edges"][17] = 5000  # larger than the budget
    order = rng.permutation(200)
    budget = {"atoms": 90, "edges": 1000}
    batches = list(fill_batches(order, budget=budget, sizes=sizes))
    np.testing.assert_array_equal(np.concatenate(batches), order)
    for batch, following in itertools.zip_longest(batches, batches[1:]):
        fits = all(sizes[name][batch].sum() <= limit for name, limit in budget.items())
        assert fits or batch.tolist() == [17]
        if following is not None:
            more = np.append(batch, following[0])
            assert any(sizes[name][more].sum() > limit for name, limit in budget.items())


@pytest.mark.parametrize(
    "batch_size, budget, message",
    [
        (None, None, "either training.batch_size or training.budget"),
        (32, {"edges": 5}, "either"),
        (0, None, "must be at least 1"),
        (None, {"edge": 5}, "^unknown name in training.budget 'edge'; did you mean 'edges'[?]$"),
        (None, {"edges": 0}, "must be at least 1"),
    ],
)
def test_wrong_budgets(batch_size, budget, message):
    with pytest.raises(UserError, match=message):
        check_budget(batch_size, budget)


@pytest.mark.parametrize("needs, dtype", [((), "float32"), (("atom_edges", "triplets"), "float64")])
def test_pipeline_gives_whole_graphs_to_every_replica(needs, dtype):
    data = sample().select(np.arange(20))
    store = GraphStore(data.N, data.Z, data.R, 5.0, needs, dtype)
    targets = data.target("mu")[:, None]
    batches = [np.array([5, 2, 9, 11, 3]), np.array([1, 0])]
    elements = list(make_dataset(store, targets, lambda: iter(batches), num_replicas=2))
    parts = [[5, 2, 9], [11, 3], [1], [0]]
    weights = [1 / 5, 1 / 5, 1 / 2, 1 / 2]
    for element, part, weight in zip(elements, parts, weights):
        for ours, theirs in zip(element.graph, store.batch(part)):
            np.testing.assert_array_equal(ours, theirs)
            assert type(ours) is type(theirs) is tuple or ours.dtype == theirs.dtype
        np.testing.assert_array_equal(element.targets, targets[part])
        assert float(element.weight) == weight
    assert len(elements) == 4


def test_dataset_names_targets_units_and_baseline():
    dataset = load_dataset(DataConfig(target="U0, mu"))
    assert dataset.names == ["U0", "mu"] and [each.unit for each in dataset.properties.values()] == ["eV", "D"]
    errors = np.abs(dataset.baseline() - dataset.targets).mean(axis=0)
    assert errors[0] < 1.0 < dataset.sigmas["U0"]
    np.testing.assert_allclose(list(dataset.sigmas.values()), dataset.targets.std(axis=0))
    with pytest.raises(UserError, match="only once"):
        load_dataset(DataConfig(target=["U0", "U0"]))
    with pytest.raises(UserError, match=r"unknown data.name 'sampl'; did you mean 'sample'"):
        load_dataset(DataConfig(name="sampl"))


def test_units_of_own_targets():
    assert find_property("yield").unit == ""
    assert find_property("yield", "%").unit == "%"
    assert find_property("mu", "D")[:2] == ("D", False)
    with pytest.raises(UserError, match="data.units.mu = au: mu can be read in e\\*Ang, e\\*a0, D"):
        conversion("mu", "au")


def test_a_target_that_is_not_finite_is_refused_when_it_is_used():
    data = DataContainer(N, Z, R, {"mu": [1, np.nan], "gap": [1, 2]})
    assert data.target("gap").tolist() == [1, 2]
    with pytest.raises(UserError, match=r"target 'mu' is missing or not finite in molecule 1 \(id 1\)"):
        data.target("mu")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "mu", "units": {"mv": "D"}, "path": SAMPLE}, "target in data.units 'mv'; did you mean 'mu'"),
        ({"target": "U0,mu", "references": {"H": 1.0}}, "need a single target; got U0, mu"),
        ({"target": [1]}, "must be a name or a list of names"),
        ({"filter": "releese"}, "data.filter must be one of correct, release; got 'releese'"),
    ],
)
def test_options_that_belong_to_nothing(options, message):
    with pytest.raises(UserError, match=message):
        load_dataset(DataConfig(**options))


def test_elements_must_be_in_the_training_molecules():
    pairs = np.tile([[0.0, 0, 0], [0, 0, 1]], (4, 1))
    data = DataContainer([2] * 4, [1] * 7 + [6], pairs, {"mu": [1, 2, 3, 4]})
    split = Split(np.array([0, 1]), np.array([2]), np.array([3]))
    with pytest.raises(UserError, match="no training molecule contains C"):
        load_dataset(DataConfig(target="mu"), split, data)
    constant = DataContainer([2] * 3, [1] * 6, pairs[:6], {"mu": [2, 2, 2]})
    with pytest.raises(UserError, match="all molecules have the same 'mu'"):
        load_dataset(DataConfig(target="mu"), None, constant)


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut", b"", b"\x93NUMPY\x01\x00"])
def test_files_that_only_look_like_npz(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="not a readable npz"):
        read_file(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.zeros(3))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(UserError, match="not a readable npz"):
        read_file(tmp_path / "b.npz")
