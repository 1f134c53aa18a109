"""Files in OC20's formats: the same frames in all of them, and messages for what is missing or damaged."""

import contextlib
import lzma
import pickle
import shutil
import sys
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase_db_backends.aselmdb import LMDBDatabase
from hypothesis import given, settings
from hypothesis import strategies as st

from dimenet_tf.errors import UserError
from dimenet_tf.structures.oc20 import read_slabs
from dimenet_tf.structures.slabs import Slabs, SlabsBuilder, voigt_stress
from helpers.paths import FILES
from helpers.torch_pickles import call, data, name, plain, whole

OC20 = FILES / "oc20"
RNG = np.random.default_rng(0)
PARTS = ("R", "Z", "cell", "pbc", "tags", "fixed", "forces", "energy", "sid")


def write_lmdb(path, values, length=True, **more):
    """Write an LMDB file; `length` is True, False or the value to write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 28) as file, file.begin(write=True) as write:
        for key, value in enumerate(values):
            write.put(str(key).encode(), value)
        if length is not False:
            write.put(b"length", b"%d" % len(values) if length is True else length)
        for key, value in more.items():
            write.put(key.encode(), value)
    return path


def structure(atoms=3, **changes):
    """Return the attributes of a structure as an IS2RE file has them."""
    attributes = {
        "pos": RNG.normal(size=(atoms, 3)).astype(np.float32),
        "cell": np.eye(3, dtype=np.float32)[None] * 10,
        "atomic_numbers": np.full(atoms, 8.0, np.float32),
        "natoms": atoms,
        "tags": np.zeros(atoms, np.int64),
        "fixed": np.ones(atoms, np.float32),
        "sid": 7,
        "y_init": -1.0,
        "y_relaxed": -1.5,
        "pos_relaxed": RNG.normal(size=(atoms, 3)).astype(np.float32),
    }
    return {key: value for key, value in {**attributes, **changes}.items() if value is not ...}


def atoms_of(slabs: Slabs, index: int) -> slice:
    last = np.cumsum(slabs.N)[index]
    return slice(last - slabs.N[index], last)


# ----------------------------------------------------------------------------------------------------- what is read


@pytest.fixture
def frames():
    return read_slabs(OC20 / "s2ef/val_id")


def test_s2ef_as_released(frames):
    assert frames.N.tolist() == [13] * 4 and set(frames.Z) == {29, 8}
    assert frames.sid.tolist() == [497] * 4 and frames.frame.tolist() == [0, 4, 8, 12]
    assert (
        frames.tags[:13].tolist() == [0] * 4 + [1] * 8 + [2] and frames.fixed[:13].tolist() == [True] * 4 + [False] * 9
    )
    np.testing.assert_allclose(frames.energy[0], 3.720627864825687 - 2.824913, rtol=1e-12)
    assert (frames.reference == 2.824913).all() and frames.pbc.all() and frames.R.dtype == np.float64
    assert frames.forces[12].tolist() == [0.02918750, -0.03639309, -2.70116632]
    assert frames.R[13 + 4].tolist() == [0.00163264, 1.46444819, 9.07831960]
    assert (frames.energy_relaxed, frames.R_relaxed, frames.stress, frames.charge, frames.spin) == (None,) * 5
    assert frames.notes == ()


def test_aselmdb_has_the_frames_of_s2ef(frames):
    rows = read_slabs(OC20 / "s2ef/val_id.aselmdb")
    for part in (*PARTS, "reference", "frame", "N"):
        np.testing.assert_allclose(getattr(rows, part), getattr(frames, part), atol=6e-9, err_msg=part)


@pytest.mark.parametrize("release", [1, 2])
def test_s2ef_in_lmdb_has_the_frames_of_s2ef(tmp_path, frames, release):
    values = []
    for i in range(4):
        at = atoms_of(frames, i)
        values.append(
            data(
                release,
                edge_index=np.zeros((2, 50), np.int64),
                pos=frames.R[at].astype(np.float32),
                cell=frames.cell[i : i + 1].astype(np.float32),
                atomic_numbers=frames.Z[at].astype(np.float32),
                natoms=13,
                tags=frames.tags[at].astype(np.int64),
                fixed=frames.fixed[at].astype(np.float32),
                force=frames.forces[at].astype(np.float32),
                y=float(frames.energy[i]),
                sid=np.array([497]),
                fid=np.array([4 * i]),
            )
        )
    found = read_slabs(write_lmdb(tmp_path / "data.lmdb", values))
    assert found.R.dtype == found.forces.dtype == found.cell.dtype == np.float32 and found.reference is None
    for part in (*PARTS, "frame", "N"):
        np.testing.assert_allclose(getattr(found, part), getattr(frames, part), rtol=1e-6, atol=1e-7, err_msg=part)


def test_is2re_has_the_first_frame_of_s2ef(frames):
    """The layout of PyTorch Geometric 2.x, with neighbor lists."""
    found = read_slabs(OC20 / "is2re/val_id")
    assert found.sid.tolist() == [497, 498, 499] and found.R.dtype == np.float32
    for part in ("R", "Z", "tags", "fixed"):
        np.testing.assert_allclose(getattr(found, part)[:13], getattr(frames, part)[:13], atol=1e-6, err_msg=part)
    np.testing.assert_allclose(found.cell[0], frames.cell[0], atol=1e-6)
    np.testing.assert_allclose(found.energy[0], frames.energy[0], atol=1e-6)
    assert found.energy_relaxed[0] < found.energy[0] and found.R_relaxed.shape == found.R.shape
    moved = np.abs(found.R_relaxed - found.R).max(axis=1) > 1e-6
    assert moved.any() and not (moved & found.fixed).any()


def test_is2re_in_the_layout_of_release_1():
    found = read_slabs(OC20 / "is2re/train/data.lmdb")
    assert len(found.N) == 6 and found.N.sum() == len(found.Z) == len(found.R) == len(found.R_relaxed) == len(
        found.tags
    )
    np.testing.assert_allclose(found.energy[0], 0.7109235126603624, rtol=1e-15)
    np.testing.assert_allclose(found.energy_relaxed[0], 0.108872623529503, rtol=1e-15)
    assert found.forces is None and found.frame is None and found.pbc.all() and (found.fixed == (found.tags == 0)).all()


@pytest.mark.parametrize("length", [True, False, pickle.dumps(3), pickle.dumps(3, 0), pickle.dumps(np.int64(3))])
def test_the_number_of_structures(tmp_path, length):
    path = write_lmdb(tmp_path / "data.lmdb", [data(1, **structure(sid=i)) for i in range(3)], length)
    assert read_slabs(path).sid.tolist() == [0, 1, 2]


def test_files_of_a_folder_are_read_in_natural_order(tmp_path):
    for i in (10, 9, 1):
        write_lmdb(
            tmp_path / f"data.{i:04}.lmdb" if i == 1 else tmp_path / f"data.{i}.lmdb", [data(2, **structure(sid=i))]
        )
    assert read_slabs(tmp_path).sid.tolist() == [1, 9, 10]


def test_several_pairs_without_compression(tmp_path, frames):
    for number in (2, 10):
        for kind in ("extxyz", "txt"):
            text = lzma.decompress((OC20 / f"s2ef/val_id/0.{kind}.xz").read_bytes())
            (tmp_path / f"{number}.{kind}").write_bytes(text)
    (tmp_path / "2.txt").write_text("random1,frame0,1.5\n" * 4)
    found = read_slabs(tmp_path)
    assert found.sid.tolist() == [1] * 4 + [497] * 4
    np.testing.assert_allclose(found.energy[:4] + 1.5, frames.energy + frames.reference)
    np.testing.assert_array_equal(found.R, np.tile(frames.R, (2, 1)))


def test_a_folder_that_is_one_lmdb_environment(tmp_path):
    with lmdb.open(str(tmp_path / "env"), map_size=1 << 20) as file, file.begin(write=True) as write:
        write.put(b"0", data(2, **structure()))
    assert len(read_slabs(tmp_path / "env").N) == 1


def test_rows_with_stress_charge_and_spin(tmp_path):
    """OMat24 has stresses, OMol25 charge and spin in `data`."""
    with LMDBDatabase(tmp_path / "a.aselmdb") as rows:
        for charge in (-1, 2):
            atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], constraint=FixCartesian(0))
            atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=np.ones((2, 3)), stress=np.arange(6.0))
            rows.write(atoms, data={"charge": charge, "spin": 2, "source": "x"})
        rows.write(atoms, data={"charge": 0, "spin": 3, "source": "y"})
    found = read_slabs(tmp_path)
    assert found.charge.tolist() == [-1, 2, 0] and found.spin.tolist() == [2, 2, 3] and found.tags is None
    assert found.stress.tolist() == [[0, 1, 2, 3, 4, 5]] * 3 and not found.pbc.any() and found.sid is None
    assert found.energy.tolist() == [-2] * 3 and not found.fixed.any()
    assert found.notes == (f"{tmp_path}: constraints of the kind FixCartesian are not read",)


def test_stress_in_both_forms():
    full = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3.0]])
    assert voigt_stress(full[None], "x").tolist() == [1, 2, 3, 4, 5, 6] == voigt_stress(np.arange(1, 7), "x").tolist()
    with pytest.raises(UserError, match="x: the stress is not symmetric"):
        voigt_stress(np.arange(9), "x")


def test_a_test_set_has_no_labels(tmp_path):
    hidden = dict.fromkeys(("y_init", "y_relaxed", "pos_relaxed"), ...)
    found = read_slabs(write_lmdb(tmp_path / "data.lmdb", [data(1, **structure(**hidden))]))
    assert found.energy is None and found.energy_relaxed is None and found.R_relaxed is None
    assert found.notes == (f"{tmp_path / 'data.lmdb'}: the structures have no energies, as in a test set",)


def test_names_of_systems_that_are_no_numbers():
    builder = SlabsBuilder("x")
    for sid in ("random12", "mp-3"):
        builder.add("x", Z=[1], R=np.zeros((1, 3)), cell=np.eye(3), pbc=[False] * 3, sid=sid, frame="frame7")
    slabs = builder.finish()
    assert slabs.sid.tolist() == ["12", "mp-3"] and slabs.frame.tolist() == [7, 7]


def test_memory_holds_the_arrays_once(tmp_path):
    lists = {"edge_index": np.zeros((2, 300), np.int64), "cell_offsets": np.zeros((300, 3), np.int64)}
    values = [data(2, **structure(60), **lists)] * 500
    path = write_lmdb(tmp_path / "data.lmdb", values)
    read_slabs(OC20 / "is2re/train")  # modules are imported
    tracemalloc.start()
    try:
        slabs = read_slabs(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    stored = sum(field.nbytes for field in slabs if isinstance(field, np.ndarray))
    assert stored > 9e5 and peak < 1.7 * stored


def test_reading_leaves_the_folder_as_it_is(tmp_path):
    for source in (OC20 / "is2re/train/data.lmdb", OC20 / "s2ef/val_id.aselmdb"):
        path = tmp_path / source.name
        shutil.copy(source, path)
        before = path.read_bytes()
        path.chmod(0o444)
        read_slabs(path)
        assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


# ------------------------------------------------------------------------------------------------- what is refused

BAD = {
    "no positions": (structure(pos=...), r"pos; it has atomic_numbers, cell, "),
    "no numbers": (structure(atomic_numbers=..., cell=...), r"atomic_numbers, cell; it has fixed,"),
    "natoms": (structure(natoms=4), r"natoms is 4, but there are 3 atomic numbers"),
    "shape": (structure(pos=np.zeros((4, 3), np.float32)), r"R has shape \(4, 3\), expected \(3, 3\)"),
    "relaxed": (structure(pos_relaxed=np.zeros((2, 3), np.float32)), r"R_relaxed has shape \(2, 3\)"),
    "tags": (structure(tags=np.zeros(2)), r"tags has shape \(2,\), expected \(3,\)"),
    "fraction": (structure(tags=np.full(3, 0.5)), r"tags must be whole numbers"),
    "large tag": (structure(tags=np.full(3, 300)), r"tags must be whole numbers"),
    "fixed": (structure(fixed=np.full(3, 2.0)), r"fixed must be 0 or 1"),
    "number 0": (structure(atomic_numbers=np.zeros(3)), r"expected a list of atomic numbers of at least 1"),
    "no atoms": (structure(0, pos_relaxed=...), r"expected a list of atomic numbers"),
    "not finite": (structure(pos=np.full((3, 3), np.nan, np.float32)), r"R is not finite"),
    "double": (structure(pos=np.zeros((3, 3))), r"R is float64, but float32 in the structures before it"),
    "energy": (structure(y_relaxed="low"), r"energy_relaxed must be numbers, got 'low'"),
    "label of some": (structure(y_relaxed=...), r"no energy_relaxed, unlike the structures before it"),
    "label of others": (structure(force=np.zeros((3, 3))), r"forces, unlike the structures before it"),
    "sid": (structure(sid=1.5), r"sid must be a whole number or a name, got 1.5"),
}


@pytest.mark.parametrize(("attributes", "message"), BAD.values(), ids=BAD)
def test_bad_structures_are_named(tmp_path, attributes, message):
    path = write_lmdb(tmp_path / "data.lmdb", [data(2, **structure()), data(2, **attributes)])
    with pytest.raises(UserError, match=rf"data.lmdb, key '1'(:| lacks| has) {message}"):
        read_slabs(path)


def test_code_in_a_file_is_refused(tmp_path):
    hostile = whole(call(name("os", "system"), plain(f"touch {tmp_path}/canary")))
    message = "is not read: the pickle asks for os.system"
    path = write_lmdb(tmp_path / "data.lmdb", [data(2, **structure()), hostile])
    with pytest.raises(UserError, match=rf"data.lmdb, key '1' {message}"):
        read_slabs(path)
    path = write_lmdb(tmp_path / "other.lmdb", [data(2, **structure())], hostile)
    with pytest.raises(UserError, match=rf"other.lmdb, key 'length' {message}"):
        read_slabs(path)
    assert not (tmp_path / "canary").exists()


def test_lmdb_files_that_lack_entries(tmp_path):
    one = data(2, **structure())
    with pytest.raises(UserError, match=r"a.lmdb, key '1' is missing"):
        read_slabs(write_lmdb(tmp_path / "a.lmdb", [one], b"2", x=one))
    with pytest.raises(UserError, match=r"key 'length': expected a number of structures, at most 1; got 5"):
        read_slabs(write_lmdb(tmp_path / "b.lmdb", [one], b"5"))
    with pytest.raises(UserError, match=r"key 'length': .* got 'x'"):
        read_slabs(write_lmdb(tmp_path / "c.lmdb", [one], pickle.dumps("x")))
    with pytest.raises(UserError, match="d.lmdb holds no structures"):
        read_slabs(write_lmdb(tmp_path / "d.lmdb", []))
    with pytest.raises(UserError, match=r"e.lmdb, key '0': expected .* class Data, got \{'a': 1\}"):
        read_slabs(write_lmdb(tmp_path / "e.lmdb", [pickle.dumps({"a": 1})]))
    with pytest.raises(UserError, match=r"f.lmdb, key '0' is not a complete pickle"):
        read_slabs(write_lmdb(tmp_path / "f.lmdb", [one[:100]]))


@pytest.mark.parametrize("size", [0, 100, 5000, 20480, 30000])
@pytest.mark.parametrize("source", ["is2re/train/data.lmdb", "s2ef/val_id.aselmdb"])
def test_truncated_databases_are_refused(tmp_path, source, size):
    path = tmp_path / (OC20 / source).name
    whole_file = (OC20 / source).read_bytes()
    path.write_bytes(whole_file[: min(size, len(whole_file) - 1)])
    with pytest.raises(UserError, match=rf"{path.name} is (truncated|not a readable LMDB file)"):
        read_slabs(path)


def test_damaged_rows_are_refused(tmp_path):
    path = write_lmdb(tmp_path / "a.aselmdb", [], False, **{"1": b"zzz", "nextid": zlib.compress(b"2")})
    with pytest.raises(UserError, match=r"a.aselmdb could not be read by ASE"):
        read_slabs(path)


def entry(path, key: bytes) -> bytes:
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as file, file.begin() as read:
        return read.get(key)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(["is2re/train/data.lmdb", "is2re/val_id/data.lmdb", "s2ef/val_id.aselmdb"]), st.data())
def test_damaged_entries_are_read_or_refused(source, draw):
    rows = source.endswith(".aselmdb")
    value = entry(OC20 / source, b"1")
    value = bytearray(zlib.decompress(value) if rows else value)
    for place in draw.draw(st.lists(st.integers(0, len(value) - 1), min_size=1, max_size=3)):
        value[place] ^= 1 << draw.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.aselmdb" if rows else "data.lmdb")
        if rows:
            write_lmdb(path, [], False, **{"1": zlib.compress(bytes(value)), "nextid": zlib.compress(b"2")})
        else:
            write_lmdb(path, [bytes(value)])
        with contextlib.suppress(UserError):
            assert len(read_slabs(path).N) == 1


def test_a_database_of_ase_under_another_name(tmp_path):
    shutil.copy(OC20 / "s2ef/val_id.aselmdb", tmp_path / "data.lmdb")
    with pytest.raises(UserError, match=r"data.lmdb is a database of ASE: rename it to \*.aselmdb"):
        read_slabs(tmp_path)


def pair(folder, lines: str, cut=0):
    text = lzma.decompress((OC20 / "s2ef/val_id/0.extxyz.xz").read_bytes())
    (folder / "0.extxyz").write_bytes(text[: len(text) - cut])
    (folder / "0.txt").write_text(lines)
    return folder


LINE = "random1,frame0,1.5\n"


@pytest.mark.parametrize(
    ("lines", "cut", "message"),
    [
        (LINE * 3, 0, "0.txt has 3 lines, fewer than .*0.extxyz has frames"),
        (LINE * 5, 0, "0.txt has more lines than .*0.extxyz has frames, 4"),
        (LINE + "random1,frame0,low\n" + LINE * 2, 0, "0.txt, line 2: expected 'system,frame,reference energy', got"),
        (LINE + "random1\n" + LINE * 2, 0, "0.txt, line 2: expected"),
        (LINE * 3 + "random1,frame0,nan\n", 0, "0.extxyz, frame 3: energy is not finite"),
        (LINE * 3 + "random1,frame0\n", 0, "frame 3 has no reference, unlike the structures before it"),
        (LINE * 4, 200, "0.extxyz ends inside molecule 3"),
    ],
)
def test_bad_pairs_are_refused(tmp_path, lines, cut, message):
    with pytest.raises(UserError, match=message):
        read_slabs(pair(tmp_path, lines, cut))


def test_a_pair_needs_both_files(tmp_path):
    (pair(tmp_path, LINE) / "0.txt").unlink()
    with pytest.raises(UserError, match=r"0.extxyz needs 0.txt.xz or 0.txt in its folder"):
        read_slabs(tmp_path)


def test_paths_without_a_known_kind_of_file(tmp_path):
    with pytest.raises(UserError, match="no such file or folder: .*none"):
        read_slabs(tmp_path / "none")
    with pytest.raises(UserError, match=r"expected \*.lmdb, \*.aselmdb, or .*; found none"):
        read_slabs(tmp_path)
    pair(tmp_path, LINE)
    shutil.copy(OC20 / "s2ef/val_id.aselmdb", tmp_path)
    with pytest.raises(UserError, match="found files of several kinds"):
        read_slabs(tmp_path)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ase_db_backends.aselmdb", None)
    with pytest.raises(UserError, match=r'ase_db_backends is not installed; .* "dimenet-tf\[oc20\]"'):
        read_slabs(OC20 / "s2ef/val_id.aselmdb")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match=r'lmdb is not installed; .* "dimenet-tf\[oc20\]"'):
        read_slabs(OC20 / "is2re/train")


def test_fixed_atoms_of_a_row(tmp_path):
    with LMDBDatabase(tmp_path / "a.aselmdb") as rows:
        rows.write(Atoms("OHH", np.eye(3), constraint=FixAtoms([1])))
    found = read_slabs(tmp_path)
    assert found.fixed.tolist() == [False, True, False] and found.energy is None and len(found.notes) == 1
