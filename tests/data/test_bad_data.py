"""Bad molecules are found when data are loaded, named, and refused or dropped; never in silence."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from dimenet_tf.config.schema import resolve
from dimenet_tf.data import Checks, DataConfig, DataContainer, Split, ethanol_xtb, from_atoms, load_dataset, read_file
from dimenet_tf.data.dataset import describe, load_container
from dimenet_tf.data.embedded import FOLDER, sample
from dimenet_tf.errors import UserError
from dimenet_tf.structures.limits import ALL_PAIRS, nearest
from helpers.paths import ROOT

GOOD = sample().select(range(40))
MU = GOOD.target("mu")


def molecules() -> list[dict]:
    """The good molecules one by one, to spoil some of them."""
    atoms = np.split(np.arange(GOOD.N.sum()), np.cumsum(GOOD.N)[:-1])
    return [
        {"Z": GOOD.Z[a].astype(int), "R": GOOD.R[a].astype(float), "mu": MU[i], "id": 100 + i}
        for i, a in enumerate(atoms)
    ]


def spoiled(index: int, **changes) -> list[dict]:
    rows = molecules()
    for key, change in changes.items():
        rows[index][key] = change(rows[index][key]) if callable(change) else change
    return rows


def arrays(rows: list[dict]) -> dict[str, np.ndarray]:
    return {
        "N": np.array([len(row["Z"]) for row in rows]),
        "Z": np.concatenate([row["Z"] for row in rows]),
        "R": np.concatenate([row["R"] for row in rows]),
        "mu": np.array([row["mu"] for row in rows]),
        "id": np.array([row["id"] for row in rows]),
    }


def put(at: tuple, value):
    """A change of one number of an array."""

    def change(array):
        array = array.copy()
        array[at] = value
        return array

    return change


def at_distance(distance: float):
    """A change that moves the second atom close to the first."""
    return lambda R: np.concatenate([R[:1], R[:1] + [0, 0, distance], R[2:]])


def chain(atoms: int) -> dict:
    return {"Z": np.full(atoms, 6), "R": np.arange(atoms)[:, None] * [1.5, 0, 0]}


BAD = {  # what becomes of molecule 7, and the reason
    "NaN": ({"R": put((2, 1), np.nan)}, "a coordinate that is not finite (atom 2)"),
    "infinity": ({"R": put((0, 0), np.inf)}, "a coordinate that is not finite (atom 0)"),
    "Z = 0": ({"Z": put((3,), 0)}, "an atomic number that is not in 1 ... 94 (atom 3)"),
    "Z = 95": ({"Z": put((0,), 95)}, "an atomic number that is not in 1 ... 94 (atom 0)"),
    "Z = -6": ({"Z": put((0,), -6)}, "an atomic number that is not in 1 ... 94 (atom 0)"),
    "the same place": ({"R": at_distance(0.0)}, "two atoms closer than 0.3 Ang (0 Ang)"),
    "too close": ({"R": at_distance(0.25)}, "two atoms closer than 0.3 Ang (0.25 Ang)"),
    "single atom": (
        {"Z": np.array([6]), "R": np.zeros((1, 3))},
        "a single atom, of which these models predict nothing but the reference energy",
    ),
    "no atoms": ({"Z": np.empty(0, int), "R": np.empty((0, 3))}, "no atoms"),
    "id twice": ({"id": 103}, "an id that an earlier molecule has"),
    "huge": (chain(1001), "more than 1000 atoms (1001)"),
    "no target": ({"mu": np.nan}, "target 'mu' missing or not finite"),
}
IN_XYZ = [name for name in BAD if name not in ("Z = -6", "Z = 95", "no atoms")]  # which the format cannot hold


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".npz":
        np.savez(path, **arrays(rows))
        return str(path)
    frames = []
    for row in rows:
        atoms = Atoms(row["Z"], row["R"])
        atoms.info["id"] = row["id"]
        if np.isfinite(row["mu"]):
            atoms.info["mu"] = row["mu"]
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return str(path)


@pytest.mark.parametrize("name, kind", [*((name, "npz") for name in BAD), *((name, "xyz") for name in IN_XYZ)])
def test_each_kind_of_badness(tmp_path, name, kind):
    changes, reason = BAD[name]
    rows = spoiled(7, **changes)
    identity = changes.get("id", 107)
    config = {"path": write(tmp_path / f"data.{kind}", rows), "target": "mu"}
    fault, _, detail = reason.partition(" (")
    with pytest.raises(UserError) as error:
        load_dataset(DataConfig(**config))
    detail = f", {detail[:-1]}" if detail else ""
    assert str(error.value) == (
        f"{config['path']}: 1 of 40 molecules cannot be used: 1 with {fault} (molecule 7, id {identity}{detail}); "
        "in a configuration, data.on_bad=drop leaves them out"
    )
    data = load_container(DataConfig(**config, on_bad="drop"))
    assert [(bad.index, bad.id, bad.reason) for bad in data.dropped] == [(7, identity, reason)]
    others = arrays([row for i, row in enumerate(rows) if i != 7])
    for key in ("N", "Z", "id"):
        np.testing.assert_array_equal(getattr(data, key), others[key])
    if kind == "npz":  # bit for bit; texts have eight digits
        assert data.R.dtype == np.float64 and data.R.tobytes() == others["R"].tobytes()
        rest = DataContainer(*(others[key] for key in "NZR"), {"mu": others["mu"]})
        assert data.checksum() == rest.checksum()
    np.testing.assert_allclose(data.R, others["R"], atol=1e-7)
    np.testing.assert_allclose(data.target("mu"), others["mu"])


def several() -> list[dict]:
    rows = molecules()
    for index in (5, 20, 21):
        rows[index]["R"] = at_distance(0.1)(rows[index]["R"])
    rows[5]["mu"] = np.nan  # the first fault counts
    rows[30]["id"] = rows[3]["id"]
    return rows


def test_several_at_once_are_counted_with_the_first_of_each_kind(tmp_path):
    path = write(tmp_path / "data.npz", several())
    with pytest.raises(UserError) as error:
        read_file(path)
    assert str(error.value).startswith(
        f"{path}: 4 of 40 molecules cannot be used: 3 with two atoms closer than 0.3 Ang "
        "(first: molecule 5, id 105, 0.1 Ang); 1 with an id that an earlier molecule has (molecule 30, id 103)"
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["npz", "layout"])
def test_the_files_split_is_renumbered(tmp_path, kind):
    parts = {"train_idx": np.r_[20:40], "val_idx": np.r_[4:8], "test_idx": np.r_[3, 2, 1, 21 - 2]}
    if kind == "layout":
        ethanol = ethanol_xtb().select(range(40))
        R = ethanol.R.reshape(40, 9, 3).copy()
        R[[5, 20, 21, 30], 0] = R[[5, 20, 21, 30], 1]
        content = {"z": ethanol.Z[:9], "R": R, "E": ethanol.target("energy")}
        options = {"target": "energy", "units": {"energy": "eV"}}
    else:
        content, options = arrays(several()), {"target": "mu"}
    np.savez(tmp_path / "data.npz", **content, **parts)
    dataset = load_dataset(DataConfig(path=str(tmp_path / "data.npz"), on_bad="drop", **options))
    assert [bad.index for bad in dataset.container.dropped] == [5, 20, 21, 30]
    original = np.delete(np.arange(40), [5, 20, 21, 30])
    assert original[dataset.split.train].tolist() == [i for i in range(20, 40) if i not in (20, 21, 30)]
    assert original[dataset.split.valid].tolist() == [4, 6, 7]
    assert original[dataset.split.test].tolist() == [3, 2, 1, 19]
    assert describe(dataset)["dropped"] == 4 and describe(dataset)["molecules"] == 36
    np.savez(tmp_path / "data.npz", **content, **{**parts, "test_idx": [40]})
    with pytest.raises(UserError, match=r"the split's test molecules are not all in 0 \.\.\. 39"):
        load_dataset(DataConfig(path=str(tmp_path / "data.npz"), on_bad="drop", **options))


def test_only_targets_that_are_learned_must_be_there(tmp_path):
    rows = spoiled(7, mu=np.nan)
    np.savez(tmp_path / "data.npz", **arrays(rows), gap=GOOD.target("gap"))
    config = {"path": str(tmp_path / "data.npz"), "target": "gap"}
    assert len(load_dataset(DataConfig(**config)).container) == 40
    assert len(read_file(config["path"])) == 40


def test_frames_without_forces(tmp_path):
    """Extended XYZ of which only some frames have what is learned."""
    data, frames = ethanol_xtb().select(range(30)), []
    for i in range(30):
        one = data.select([i])
        atoms = Atoms(one.Z, one.R)
        results = {"energy": one.target("energy")[0], "forces": one.target("forces")}
        if i in (4, 9):
            del results["forces"]
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    ase.io.write(tmp_path / "data.extxyz", frames)
    config = {"path": str(tmp_path / "data.extxyz"), "target": "energy,forces"}
    dataset = load_dataset(DataConfig(**config))
    assert len(dataset.container) == 30 and dataset.num_labels() == {"energy": 30, "forces": 28}
    assert len(load_dataset(DataConfig(**{**config, "target": "energy"})).container) == 30


def test_a_container_is_strict():
    rows = several()
    held = arrays(rows)
    for key in ("mu", "id"):
        del held[key]
    with pytest.raises(UserError, match=r"here: 3 of 40 .* two atoms closer than 0.3 Ang \(first: molecule 5, id 5"):
        DataContainer(**held, source="here")
    data = DataContainer(**held, check=False).checked(Checks("drop"))
    twice = data.checked(Checks("drop", max_atoms=int(data.N.max()) - 1))
    assert data.select([0, 5]).id.tolist() == [0, 6]
    # numbered as in the arrays, also when dropped in a second step
    assert [bad.index for bad in twice.dropped] == sorted({5, 20, 21} | {bad.id for bad in twice.dropped})
    assert len(twice.dropped) + len(twice) == 40 > len(twice) + 3


@pytest.mark.parametrize("on_bad", ["error", "drop"])
def test_nothing_but_bad_molecules(tmp_path, on_bad):
    rows = molecules()[:3]
    for row in rows:
        row["R"] = row["R"] * np.nan
    path = write(tmp_path / "data.npz", rows)
    with pytest.raises(UserError, match="none of the 3 molecules can be used: 3 with a coordinate that is not finite"):
        load_container(DataConfig(path=path, target="mu", on_bad=on_bad))


@pytest.mark.parametrize("on_bad", ["error", "drop"])
def test_arrays_that_do_not_fit_are_errors_in_any_case(tmp_path, on_bad):
    held = arrays(molecules())
    for key, message in (("Z", "Z has shape"), ("R", "R has shape"), ("id", "id has shape"), ("mu", "target 'mu' has")):
        np.savez(tmp_path / "data.npz", **{**held, key: held[key][1:]})
        with pytest.raises(UserError, match=message):
            load_container(DataConfig(path=str(tmp_path / "data.npz"), target="mu", on_bad=on_bad))


def test_numbers_are_never_rounded():
    """A Z that is no whole number, or one that int32 cannot hold, is bad rather than another element."""
    for Z in (np.array([8, 1, 1.5]), np.array([8, 1, 2**32 + 1]), np.array([8, 1, np.nan])):
        with pytest.raises(UserError, match=r"an atomic number that is not in 1 ... 94 \(molecule 0, id 0, atom 2\)"):
            DataContainer([3], Z, molecule("H2O").positions)
    with pytest.raises(UserError, match="Z has shape"):
        DataContainer([2.5], [8, 1], np.zeros((2, 3)))


@pytest.mark.parametrize("count", [8, 50])
def test_nearest_is_the_nearest_in_the_molecule(count):
    """Against all pairs, with molecules on top of each other and atoms at one place."""
    rng = np.random.default_rng(0)
    N = rng.integers(2, 12, count)
    owner = np.repeat(np.arange(count), N)
    assert (len(owner) <= ALL_PAIRS) == (count == 8)
    R = rng.uniform(0, 4, (N.sum(), 3))
    R[3] = R[2] = R[1]
    all_pairs = np.linalg.norm(R[:, None] - R, axis=-1)
    all_pairs[(owner[:, None] != owner) | np.eye(len(R), dtype=bool)] = np.inf
    expected = np.where(all_pairs.min(axis=1) < 1.5, all_pairs.min(axis=1), np.inf)
    distance, neighbor = nearest(owner, R, 1.5)
    np.testing.assert_allclose(distance, expected)
    found = np.isfinite(distance)
    assert found.any() and not found.all() and (neighbor[~found] == np.flatnonzero(~found)).all()
    np.testing.assert_allclose(all_pairs[found, neighbor[found]], distance[found])
    together = np.concatenate([molecule("H2O").positions] * 2)
    DataContainer([3, 3], [8, 1, 1] * 2, together)  # different molecules may be at one place


@pytest.mark.parametrize("unit, size", [("a0", 0.52917721), ("nm", 10.0)])
@pytest.mark.parametrize("name", ["sample", "ethanol_xtb"])
@pytest.mark.parametrize("on_bad", ["error", "drop"])
def test_positions_in_another_unit(tmp_path, name, unit, size, on_bad):
    data = {"sample": sample, "ethanol_xtb": ethanol_xtb}[name]().select(range(0, 2000, 10))
    R = data.R / size
    R[7] = np.nan  # what else is wrong does not matter
    held = {"N": data.N, "Z": data.Z, "R": R, "y": np.arange(200.0)}
    np.savez(tmp_path / "data.npz", **held)
    config = {"path": str(tmp_path / "data.npz"), "target": "y", "on_bad": on_bad}
    with pytest.raises(UserError, match=rf"data.npz: bonds are typically .* in {unit}, .*R={unit}, or .*R=Ang"):
        load_container(DataConfig(**config))
    held["R"][7] = data.R[7] / size
    np.savez(tmp_path / "data.npz", **held)
    read = load_container(DataConfig(**config, units={"R": unit}))
    np.testing.assert_allclose(read.R, data.R, rtol=1e-6)
    if unit == "a0":  # somebody may know better
        np.testing.assert_array_equal(read_file(config["path"], units={"R": "Ang"}).R, held["R"])


@pytest.mark.parametrize("name", ["sample.npz", "ethanol_xtb.npz"])
def test_the_embedded_files_pass(name):
    data = read_file(FOLDER / name, units={"energy": "eV"})
    assert len(data) == 2000 and len(data.dropped) == 0


def test_unusual_molecules_pass():
    """Nothing is concluded from distances of other elements than those of organic chemistry."""
    argon = Atoms("Ar4", [[0, 0, 0], [3.8, 0, 0], [0, 3.8, 0], [0, 0, 3.8]])
    helium = Atoms("He2", [[0, 0, 0], [2.97, 0, 0]])
    metal = bulk("Cu", cubic=True).repeat(2)
    metal.pbc = False
    salt = Atoms("LiF", [[0, 0, 0], [1.6, 0, 0]])
    water = molecule("H2O")
    cluster = water.copy()
    for shift in ([3, 0, 0], [0, 3, 0]):
        more = water.copy()
        more.translate(shift)
        cluster += more
    ion = cluster + Atoms("Na", [[-2.4, 0, 0]])
    names = ("H2", "N2", "O2", "F2", "CO", "HF", "C2H2", "C6H6", "P2", "Cl2", "NaCl", "Li2", "SiH4", "CH3SH")
    unusual = [argon, helium, metal, salt, cluster, ion, *map(molecule, names)]
    for atoms in unusual:
        atoms.set_initial_magnetic_moments(None)  # ASE's O2 is a triplet
        assert len(from_atoms([atoms])) == 1
    assert len(from_atoms(unusual)) == len(unusual)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"on_bad": "ignore"}, "data.on_bad must be one of error, drop; got 'ignore'"),
        ({"max_atoms": 0}, "data.max_atoms = 0 must be greater than 0"),
        ({"max_atoms": "many"}, "data.max_atoms = 'many' must be an integer or None"),
        ({"on_bad": None}, "data.on_bad = None must be a string"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(UserError, match=message):
        load_container(DataConfig(**resolve({"data": options})["data"]))


def test_named_data_sets_have_a_limit_too():
    with pytest.raises(UserError, match="ethanol_xtb.npz: none of the 2000 .* with more than 8 atoms"):
        load_container(DataConfig(name="ethanol_xtb", target="energy", max_atoms=8))
    data = load_container(DataConfig(target="mu", max_atoms=12, on_bad="drop"))
    assert data.N.max() == 12 and len(data) + len(data.dropped) == 2000
    assert len(load_container(DataConfig(target="mu", max_atoms=None))) == 2000


def run(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_a_run_tells_what_it_dropped(tmp_path):
    write(tmp_path / "data.npz", several())
    tiny = "model.name=dimenet_pp model.emb_size=8 model.num_blocks=1 training.batch_size=8 training.warmup_steps=2"
    given = [*tiny.split(), "training.num_steps=2", "data.path=data.npz", "data.target=mu"]
    printed = run("run_train.py", "with", *given, "data.on_bad=drop", "run=runs/9", cwd=tmp_path)
    line = "dropped 4 of 40 molecules: 3 with two atoms closer than 0.3 Ang; 1 with an id that an earlier molecule has"
    assert f"{line} (runs/9/dropped.csv)\n" in printed
    folder = tmp_path / "runs/9"
    with (folder / "dropped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["index"], row["id"]) for row in rows] == [("5", "105"), ("20", "120"), ("21", "121"), ("30", "103")]
    assert rows[0]["reason"] == "two atoms closer than 0.3 Ang (0.1 Ang)"
    described = json.loads((folder / "data.json").read_text())
    assert described["dropped"] == 4 and described["molecules"] == 36
    test = len(Split.load(folder / "split.npz").test)
    assert f"{test} test molecules" in run("run_eval.py", "with", "run=runs/9", cwd=tmp_path)
