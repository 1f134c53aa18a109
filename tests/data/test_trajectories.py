"""Public trajectories, from files of their layouts made here and put where downloads go."""

import io
import tarfile
import zipfile

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from dimenet_tf.data import DataConfig, load_dataset, trajectories
from dimenet_tf.errors import UserError

Z = np.array([6, 1, 1])
KCAL = units.kcal / units.mol


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    R = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]) + rng.normal(0, 0.1, (count, 3, 3))
    return R, rng.normal(-100, 1, count), rng.normal(0, 1, (count, 3, 3))


def npz_bytes(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def load(cache, **options):
    return load_dataset(DataConfig(target=["energy", "forces"], cache=str(cache), **options))


def test_md17(tmp_path):
    R, E, F = frames(50)
    (tmp_path / "md17_salicylic.npz").write_bytes(npz_bytes(z=Z, R=R, E=E[:, None], F=F))
    data = load(tmp_path, name="md17", molecule="salicylic_acid", num_train=20, num_valid=10)
    assert [len(part) for part in data.split] == [20, 10, 20]
    np.testing.assert_allclose(data.container.target("energy"), E * KCAL, rtol=1e-8)
    assert (tmp_path / "checksums.json").exists()


def test_rmd17(tmp_path):
    R, E, F = frames(60)
    with tarfile.open(tmp_path / trajectories.RMD17_ARCHIVE, "w:bz2") as archive:

        def add(name, content):
            member = tarfile.TarInfo(f"rmd17/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        arrays = {"nuclear_charges": Z, "coords": R, "energies": E, "forces": F, "old_indices": np.arange(60)}
        add("npz_data/rmd17_ethanol.npz", npz_bytes(**arrays))
        for k in range(1, 6):
            add(f"splits/index_train_0{k}.csv", "\n".join(str(i) for i in range(k, k + 20)).encode() + b"\n")
            add(f"splits/index_test_0{k}.csv", "\n".join(str(i) for i in range(40, 60)).encode() + b"\n")
    data = load(tmp_path, name="rmd17", molecule="ethanol", fold=3, num_valid=5)
    assert sorted(np.concatenate(data.split[:2])) == list(range(3, 23)) and len(data.split.valid) == 5
    assert data.split.test.tolist() == list(range(40, 60))
    np.testing.assert_allclose(data.container.target("forces"), F.reshape(-1, 3) * KCAL, rtol=1e-8)
    (tmp_path / trajectories.RMD17_ARCHIVE).unlink()  # parsed once
    assert load(tmp_path, name="rmd17", molecule="ethanol").split.train.min() == 1
    with pytest.raises(UserError, match="data.fold = 6 must be 1"):
        load(tmp_path, name="rmd17", molecule="ethanol", fold=6)


def test_md17_ccsd(tmp_path):
    parts = {"train": frames(40), "test": frames(20, seed=1)}
    with zipfile.ZipFile(tmp_path / "toluene_ccsd_t.zip", "w") as archive:
        for part, (R, E, F) in parts.items():
            archive.writestr(f"toluene_ccsd_t-{part}.npz", npz_bytes(z=Z, R=R, E=E, F=F))
    data = load(tmp_path, name="md17_ccsd", molecule="toluene")
    assert [len(part) for part in data.split] == [38, 2, 20]  # 950 and 50 of 1000
    assert data.split.test.tolist() == list(range(40, 60)) and data.split.train.max() < 40
    np.testing.assert_allclose(data.container.target("energy")[40:], parts["test"][1] * KCAL, rtol=1e-8)
    (tmp_path / "ethanol_ccsd_t.zip").write_bytes(b"an error page")
    with pytest.raises(UserError, match="remove it to download it again"):
        load(tmp_path, name="md17_ccsd", molecule="ethanol")


def test_coll(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectories, "COLL_FRAMES", {"train": 30, "valid": 10, "test": 20})
    for seed, (part, count) in enumerate(trajectories.COLL_FRAMES.items()):
        images = []
        for R, E, F in zip(*frames(count, seed)):
            atoms = Atoms(Z, R)
            atoms.calc = SinglePointCalculator(atoms, energy=E, forces=F)
            images.append(atoms)
        ase.io.write(tmp_path / f"coll_v1.2_AE_{part}.xyz", images, format="extxyz")
    data = load(tmp_path, name="coll")
    assert [len(part) for part in data.split] == [30, 10, 20]
    np.testing.assert_allclose(data.container.target("energy")[40:], frames(20, 2)[1], rtol=1e-7)  # eV
    again = load(tmp_path, name="coll")
    assert again.container.checksum() == data.container.checksum()
    assert again.split.test.tolist() == data.split.test.tolist()
    monkeypatch.setitem(trajectories.COLL_FRAMES, "valid", 11)
    (tmp_path / "coll.npz").unlink()
    with pytest.raises(UserError, match="holds 10 frames, expected 11"):
        load(tmp_path, name="coll")


def refused_and_dropped(cache, index, count, **options):
    """Return the split of a data set of which one frame is bad."""
    with pytest.raises(UserError, match=rf"1 of {count} .* not finite \(molecule {index}, id {index}, atom 1\)"):
        load(cache, **options)
    data = load(cache, **options, on_bad="drop")
    assert [bad.index for bad in data.container.dropped] == [index] and index not in data.container.id
    return [sorted(data.container.id[part]) for part in data.split]


def test_bad_frames_of_data_sets_with_splits(tmp_path, monkeypatch):
    """The frames that are left keep their parts of the split."""
    R, E, F = frames(60)
    R[7, 1] = np.nan
    split = {f"index_{part}_01": np.arange(*ends) for part, ends in (("train", (0, 20)), ("test", (40, 60)))}
    np.savez(tmp_path / "rmd17_ethanol.npz", nuclear_charges=Z, coords=R, energies=E, forces=F, **split)
    train, valid, test = refused_and_dropped(tmp_path, 7, 60, name="rmd17", molecule="ethanol", num_valid=5)
    assert sorted(train + valid) == [i for i in range(20) if i != 7] and test == list(range(40, 60))

    with zipfile.ZipFile(tmp_path / "toluene_ccsd_t.zip", "w") as archive:
        archive.writestr("toluene_ccsd_t-train.npz", npz_bytes(z=Z, R=R[20:], E=E[20:], F=F[20:]))
        archive.writestr("toluene_ccsd_t-test.npz", npz_bytes(z=Z, R=R[:20], E=E[:20], F=F[:20]))
    train, valid, test = refused_and_dropped(tmp_path, 47, 60, name="md17_ccsd", molecule="toluene")
    assert sorted(train + valid) == list(range(40)) and test == [i for i in range(40, 60) if i != 47]

    monkeypatch.setattr(trajectories, "COLL_FRAMES", {"train": 30, "valid": 10, "test": 20})
    for part, rows in (("train", range(30, 60)), ("valid", range(10)), ("test", range(10, 30))):
        images = [Atoms(Z, R[i]) for i in rows]
        for i, atoms in zip(rows, images):
            atoms.calc = SinglePointCalculator(atoms, energy=E[i], forces=F[i])
        ase.io.write(tmp_path / f"coll_v1.2_AE_{part}.xyz", images, format="extxyz")
    parts = refused_and_dropped(tmp_path, 37, 60, name="coll")
    assert parts == [list(range(30)), [i for i in range(30, 40) if i != 37], list(range(40, 60))]


def test_an_error_page_in_the_place_of_a_file(tmp_path):
    (tmp_path / "md17_ethanol.npz").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="not a readable npz .*; remove .*md17_ethanol.npz to download it again"):
        load(tmp_path, name="md17", molecule="ethanol")
    (tmp_path / "md17_ethanol.npz").unlink()
    (tmp_path / "checksums.json").write_text("{")
    R, E, F = frames(50)
    (tmp_path / "md17_ethanol.npz").write_bytes(npz_bytes(z=Z, R=R, E=E, F=F))
    with pytest.raises(UserError, match="checksums.json is damaged: remove it"):
        load(tmp_path, name="md17", molecule="ethanol")


@pytest.mark.parametrize("name", ["md17", "rmd17", "md17_ccsd"])
def test_without_a_network_the_place_of_the_file_is_named(tmp_path, monkeypatch, name):
    for mirrors in ("SGDML", "FIGSHARE"):
        monkeypatch.setattr(trajectories, mirrors, ("http://127.0.0.1:9/{}",))
    with pytest.raises(UserError, match="could not be downloaded .* put the file at .* by hand"):
        load(tmp_path, name=name, molecule="ethanol")
