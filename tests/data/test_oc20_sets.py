"""OC20's tasks as data sets: splits, labels, fixed atoms."""

import dataclasses
import shutil

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase_db_backends.aselmdb import LMDBDatabase

from dimenet_tf.config.build import data_config
from dimenet_tf.config.schema import resolve
from dimenet_tf.data import DataConfig, DataContainer, load_dataset, oc20, oc20_sample, read_file
from dimenet_tf.data.dataset import load_container
from dimenet_tf.errors import UserError
from dimenet_tf.structures.checks import Checks
from dimenet_tf.structures.oc20 import read_slabs
from dimenet_tf.structures.outliers import find_outliers
from helpers.paths import ROOT

FILES = ROOT / "tests/files/oc20"


@pytest.fixture
def is2re(tmp_path):
    """Folder of IS2RE with two validation splits; the training split has all elements."""
    for split, source in {"train": "train", "val_id": "train", "val_ood_cat": "train"}.items():
        shutil.copytree(FILES / "is2re" / source, tmp_path / "is2re" / split)
    return tmp_path / "is2re"


@pytest.fixture
def s2ef(tmp_path):
    """Folder of S2EF: a training split in the old format, a validation split in the new one."""
    shutil.copytree(FILES / "s2ef/val_id", tmp_path / "s2ef/train")
    shutil.copy(FILES / "s2ef/val_id.aselmdb", tmp_path / "s2ef/val_ood_ads.aselmdb")
    return tmp_path / "s2ef"


def test_is2re_learns_the_relaxed_energy_of_initial_structures(is2re):
    data = load_dataset(DataConfig(name="oc20_is2re", path=str(is2re), target="energy"))
    slabs = read_slabs(FILES / "is2re/train")
    train = data.container.select(data.split.train)
    np.testing.assert_array_equal(train.labels("energy"), slabs.energy_relaxed)
    np.testing.assert_array_equal(train.R, slabs.R)
    np.testing.assert_array_equal(train.cells.cell, slabs.cell)
    np.testing.assert_array_equal(train.fixed, slabs.fixed)
    assert train.id.tolist() == [f"train/{sid}" for sid in slabs.sid]
    assert [set(oc20.split_of(data.container.id[part])) for part in data.split] == [
        {"train"},
        {"val_id"},
        {"val_ood_cat"},
    ]


def test_adsorption_energies_are_centered_not_fitted_to_elements(is2re):
    data = load_dataset(DataConfig(name="oc20_is2re", path=str(is2re), target="energy"))
    labels = data.container.select(data.split.train).labels("energy")
    reference = data.fitted("energy").reference
    assert not reference.per_element.any()
    assert (reference.offset, reference.scale) == pytest.approx((labels.mean(), labels.std()))
    fitted = load_dataset(DataConfig(name="oc20_is2re", path=str(is2re), target="energy", references="fit"))
    assert fitted.fitted("energy").reference.per_element.any()


@pytest.mark.parametrize("only", ["val_id", "val_ood_ads"])
def test_with_one_validation_split_a_share_of_train_validates(s2ef, only):
    (s2ef / "val_ood_ads.aselmdb").rename(s2ef / f"{only}.aselmdb")
    data = load_dataset(DataConfig(name="oc20_s2ef", path=str(s2ef), target="energy", num_valid=1))
    assert [set(oc20.split_of(data.container.id[part])) for part in data.split] == [{"train"}, {"train"}, {only}]
    assert [len(part) for part in data.split] == [3, 1, 4]


def test_s2ef_has_forces_of_free_atoms(s2ef):
    config = DataConfig(name="oc20_s2ef", path=str(s2ef), target="energy,forces", num_valid=1)
    data = load_dataset(config)
    slabs = read_slabs(FILES / "s2ef/val_id")
    assert data.num_labels() == {"energy": 8, "forces": 8}
    train = data.container[:4]
    assert train.id.tolist() == [f"train/{sid}/{frame}" for sid, frame in zip(slabs.sid, slabs.frame)]
    np.testing.assert_array_equal(train.labels("energy"), slabs.energy)
    forces = train.labels("forces")
    np.testing.assert_array_equal(np.isnan(forces).all(axis=1), slabs.fixed)
    np.testing.assert_array_equal(forces[~slabs.fixed], slabs.forces[~slabs.fixed])
    scale = data.fitted("energy").reference.scale
    trained = data.container.select(data.split.train).labels("forces")
    assert scale == pytest.approx(np.sqrt(np.nanmean(trained**2)))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: shutil.rmtree(folder / "train"), "has no train: IS2RE needs train and at least one validation"),
        (
            lambda folder: [shutil.rmtree(folder / name) for name in ("val_id", "val_ood_cat")],
            "has none of val_id, val_ood_ads, val_ood_cat, val_ood_both",
        ),
        (
            lambda folder: shutil.copytree(FILES / "s2ef/val_id", folder / "val_ood_ads"),
            "has no energy_relaxed, which IS2RE learns; is it a test set, or of S2EF \\(data.name=oc20_s2ef\\)",
        ),
    ],
)
def test_incomplete_folders_are_refused(is2re, change, message):
    change(is2re)
    with pytest.raises(UserError, match=message):
        load_container(DataConfig(name="oc20_is2re", path=str(is2re), target="energy"))


def test_a_data_set_of_a_folder_needs_the_folder(tmp_path):
    with pytest.raises(UserError, match="data.name=oc20_s2ef needs data.path, the folder that holds train, val_id"):
        load_container(DataConfig(name="oc20_s2ef", target="energy"))
    with pytest.raises(UserError, match="must be a folder with train and val_id"):
        load_container(DataConfig(name="oc20_s2ef", path=str(tmp_path / "none"), target="energy"))


def test_of_a_folder_and_a_file_of_one_split_the_folder_is_read(s2ef):
    shutil.copy(FILES / "s2ef/val_id.aselmdb", s2ef / "train.aselmdb")
    (note,) = load_container(DataConfig(name="oc20_s2ef", path=str(s2ef), target="energy")).notes
    assert note == f"{s2ef / 'train'} is read, {s2ef / 'train.aselmdb'} is not: a split is read from one of them"


def test_tags_tell_the_fixed_atoms_where_files_do_not():
    slabs = read_slabs(FILES / "is2re/train")
    np.testing.assert_array_equal(oc20.fixed_atoms(slabs._replace(fixed=None)), slabs.tags == 0)
    assert not oc20.fixed_atoms(slabs._replace(fixed=None, tags=None)).any()


def test_relaxations_of_is2re_are_further_frames_without_forces(s2ef, is2re):
    shutil.copytree(FILES / "s2ef/val_id", s2ef / "val_id")
    section = {"name": "oc20_s2ef", "path": str(s2ef), "target": "energy,forces", "outliers": "keep"}
    data = load_dataset(data_config(resolve({"data": {**section, "relaxations": str(is2re)}})))
    slabs = read_slabs(FILES / "is2re/train")
    more = len(slabs.N)
    assert data.num_labels() == {"energy": 12 + 2 * more, "forces": 12}
    assert [len(part) for part in data.split] == [4 + 2 * more, 4, 4]
    assert set(oc20.split_of(data.container.id[data.split.train])) == {"train"}
    initial, relaxed = data.container[-2 * more : -more], data.container[-more:]
    assert initial.id[0] == f"train/{slabs.sid[0]}/initial" and relaxed.id[-1] == f"train/{slabs.sid[-1]}/relaxed"
    np.testing.assert_array_equal(initial.R, slabs.R)
    np.testing.assert_array_equal(initial.labels("energy"), slabs.energy)
    np.testing.assert_array_equal(relaxed.R, slabs.R_relaxed)
    np.testing.assert_array_equal(relaxed.labels("energy"), slabs.energy_relaxed)
    np.testing.assert_array_equal(relaxed.fixed, slabs.fixed)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"relaxations": "{is2re}", "name": "oc20_is2re"}, "belongs to data.name=oc20_s2ef"),
        ({"relaxations": "{s2ef}/train"}, "must be a folder of IS2RE; it has no train"),
        ({"relaxations": "{s2ef}"}, "has no y_relaxed and pos_relaxed, which data.relaxations adds"),
    ],
)
def test_wrong_relaxations_are_refused(s2ef, is2re, changes, message):
    changes = {key: value.format(s2ef=s2ef, is2re=is2re) for key, value in changes.items()}
    config = DataConfig(name="oc20_s2ef", path=str(s2ef), target="energy,forces")
    with pytest.raises(UserError, match=message):
        load_container(dataclasses.replace(config, **changes))


# fixed atoms


def two_molecules(**options) -> DataContainer:
    """Water whose first atom is fixed and lacks its force, and hydrogen."""
    R = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0, 0, 0], [0.74, 0, 0]])
    forces = np.arange(15.0).reshape(5, 3)
    forces[0] = np.nan
    return DataContainer([3, 2], [8, 1, 1, 1, 1], R, {"energy": [-14.0, -31.0], "forces": forces}, **options)


def test_a_fixed_atom_does_not_take_the_forces_of_the_others():
    assert two_molecules().labelled("forces").tolist() == [False, True]
    data = two_molecules(fixed=[True, False, False, False, False])
    assert data.labelled("forces").tolist() == [True, True]
    assert np.isnan(data.labels("forces")).any(axis=1).tolist() == [True, False, False, False, False]
    data.targets["forces"][1] = np.nan  # a free atom without a force: the molecule lacks forces
    assert data.labelled("forces").tolist() == [False, True]
    assert np.isnan(data.labels("forces")).any(axis=1).tolist() == [True, True, True, False, False]


def test_a_molecule_without_free_atoms_has_no_forces():
    data = two_molecules(fixed=[False, False, False, True, True])
    data.targets["forces"][0] = 0
    assert data.labelled("forces").tolist() == [True, False]


def test_fixed_atoms_follow_their_molecules(tmp_path):
    fixed = np.array([True, False, False, False, True])
    data = two_molecules(fixed=fixed)
    assert data.select([1, 0]).fixed.tolist() == [False, True, True, False, False]
    assert data.checksum() != two_molecules().checksum()
    assert data[0].constraints[0].index.tolist() == [0]
    assert not two_molecules()[0].constraints
    with pytest.raises(UserError, match="fixed has shape"):
        two_molecules(fixed=[True, False])
    path = tmp_path / "fixed.npz"
    np.savez(path, N=data.N, Z=data.Z, R=data.R, fixed=fixed, **data.targets)
    np.testing.assert_array_equal(read_file(path).fixed, fixed)


def test_forces_on_fixed_atoms_are_no_outliers():
    rng = np.random.RandomState(0)
    R = np.tile([[0, 0, 0], [0.74, 0, 0]], (20, 1))
    forces = rng.normal(size=(40, 3))
    forces[[6, 11]] = 1e4  # the first atom of molecule 3, the second of molecule 5
    fixed = np.arange(40) % 2 == 0
    data = DataContainer([2] * 20, [1] * 40, R, {"forces": forces}, fixed=fixed)
    (found,) = find_outliers(data, "forces", np.ones(20, bool)).items()
    assert found[0] == 5 and found[1].startswith("10000 eV/Ang at atom 1,")


# the embedded slabs


def test_the_embedded_slabs():
    data = oc20_sample(Checks(targets=["energy"]))
    splits = oc20.split_of(data.id)
    assert {name: int((splits == name).sum()) for name in np.unique(splits)} == {
        "train": 200,
        "val_id": 30,
        "val_ood_ads": 30,
        "val_ood_cat": 30,
        "val_ood_both": 30,
    }
    assert data.cells.pbc.all() and 0.2 < data.fixed.mean() < 0.5
    assert set(data.elements) == set(data.select(data.split.train).elements)
    # what the splits are named after: alloys of `val_ood_cat` do not occur in training
    slabs = [frozenset(set(atoms.numbers) - {1, 6, 7, 8}) for atoms in data]
    known = {metals for metals, split in zip(slabs, splits) if split in ("train", "val_id", "val_ood_ads")}
    unknown = {metals for metals, split in zip(slabs, splits) if split in ("val_ood_cat", "val_ood_both")}
    assert not known & unknown


def write_rows(path, charge=0):
    """A file of the newer format with a stress, as of OMat24, and the charge that OMol25 stores."""
    atoms = bulk("Cu", cubic=True)
    with LMDBDatabase(path) as rows:
        for i in range(3):
            frame = atoms.copy()
            frame.rattle(0.05, seed=i)
            stress = np.arange(6) * 1e-3 + i
            frame.calc = SinglePointCalculator(frame, energy=-1.0 - i, forces=np.full((4, 3), 0.1), stress=stress)
            rows.write(frame, data={"charge": charge, "spin": 1})


def test_files_with_stress_train_it(tmp_path):
    for split in ("train", "val_id"):
        write_rows(tmp_path / f"{split}.aselmdb")
    config = DataConfig(name="oc20_s2ef", path=str(tmp_path), target=["energy", "forces", "stress"])
    stress = load_dataset(config).container.labels("stress")
    assert stress.shape == (6, 3, 3)
    np.testing.assert_allclose(stress[1], stress[1].T)
    np.testing.assert_allclose(stress[1][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], np.arange(6) * 1e-3 + 1)


def test_ions_are_refused(tmp_path):
    write_rows(tmp_path / "train.aselmdb", charge=1)
    write_rows(tmp_path / "val_id.aselmdb")
    with pytest.raises(UserError, match=r"charge"):
        load_dataset(DataConfig(name="oc20_s2ef", path=str(tmp_path), target=["energy", "forces"]))
