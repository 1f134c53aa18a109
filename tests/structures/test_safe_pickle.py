"""Pickles are read without running what they ask for."""

import collections
import copyreg
import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimenet_tf.errors import UserError
from dimenet_tf.structures.safe_pickle import load_plain, reading_pickle
from dimenet_tf.structures.torch_archive import ALLOWED, data_attributes, load_stream, load_tensors, read_torch_archive
from helpers.paths import FILES
from helpers.torch_pickles import MAGIC, call, data, name, plain, storage_stream, tensor, whole

TORCH = FILES / "torch"
X = np.arange(12, dtype=np.float32).reshape(3, 4)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
        | st.frozensets(st.text(max_size=3), max_size=3)
    ),
    max_leaves=8,
)


# -------------------------------------------------------------------------------------------------- what is read


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    assert load_plain(pickle.dumps(value, protocol), "x") == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [X, X.T, X[:, ::2], X.astype(">i2"), X > 3, X * 1j, np.array(["ab", "c"]), np.zeros((0, 3)), np.array(2.5)],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_numpy_arrays_are_read(array, protocol):
    found, again, scalar = load_plain(pickle.dumps([array, array, array.dtype.type()], protocol), "x")
    assert found is again and found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert scalar == array.dtype.type()
    np.testing.assert_array_equal(found, array)


def test_containers_of_checkpoints_become_dicts():
    value = [collections.OrderedDict(a=1), collections.defaultdict(list, a=[]), collections.Counter("aa")]
    value[0]._metadata = {"version": 1}
    found = load_plain(pickle.dumps(value, 2), "x")
    assert found == [{"a": 1}, {"a": []}, {"a": 2}] and {type(one) for one in found} == {dict}


@pytest.mark.parametrize("path", ["/data/oc20", "data"])
def test_paths_become_strings(path):
    assert load_plain(pickle.dumps(Path(path)), "x") == path


@pytest.mark.parametrize("file", ["checkpoint.pt", "checkpoint_legacy.pt"])
def test_archives_of_torch(file):
    found = read_torch_archive(TORCH / file)
    with np.load(TORCH / "expected.npz") as expected:
        assert set(found["state_dict"]) == set(expected.files)
        for key in expected.files:
            assert found["state_dict"][key].dtype == expected[key].dtype, key
            np.testing.assert_array_equal(found["state_dict"][key], expected[key], err_msg=key)
    assert found["epoch"] == 1.5 and found["normalizers"]["target"]["std"] == 2
    assert found["config"] == {"device": "cuda:0", "shape": (3, 4), "lr": 1e-3, "names": ["a", None]}
    assert found["defaults"] == {"a": [1]} and found["counts"] == {2: 2} and found["scheduler"]["lr_lambdas"] == [None]
    assert found["optimizer"]["state"][0]["max_exp_avg_sq"].shape == (2, 2)
    assert found["module"]["bias"].shape == (2,)


def test_data_of_pytorch_geometric_as_it_writes_it():
    found = data_attributes(load_tensors((TORCH / "data.pkl").read_bytes(), "x"), "x")
    with np.load(TORCH / "expected.npz") as expected:
        np.testing.assert_array_equal(found["pos"], expected["float32"][:, :3])
    assert found["cell"].shape == (1, 3, 3) and found["atomic_numbers"].tolist() == [8, 1, 1] and found["natoms"] == 3


@pytest.mark.parametrize("release", [1, 2])
def test_data_of_both_releases(release):
    found = data_attributes(load_tensors(data(release, pos=X, natoms=3), "x"), "x")
    np.testing.assert_array_equal(found["pos"], X)
    assert found["natoms"] == 3


def test_views_of_a_storage():
    found = load_tensors(whole(tensor(X, offset=1, size=(2, 2), stride=(4, 2))), "x")
    assert found.tolist() == [[1, 3], [5, 7]]


def test_something_else_than_data_is_named():
    with pytest.raises(UserError, match=r"data.lmdb, key '0': expected .* class Data, got \[1\]"):
        data_attributes(load_tensors(pickle.dumps([1]), "x"), "data.lmdb, key '0'")


# ------------------------------------------------------------------------------------------------- what is refused


def touch() -> bytes:
    return plain("touch canary")


def python() -> bytes:
    return plain("open('canary', 'w').close()")


def as_zip(pickled: bytes, compression=zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for key, value in {"data.pkl": pickled, **entries}.items():
            archive.writestr(f"archive/{key}", value)
    return file.getvalue()


def array_state(dtype: str, raw: bytes) -> bytes:
    shell = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), plain((0,)), plain(b"b"))
    kind = call(name("numpy", "dtype"), plain(dtype), b"\x89", b"\x88")
    return shell + b"(" + plain(1) + plain((2,)) + kind + b"\x89" + raw + b"tb"


SYSTEM = call(name("os", "system"), touch())
IMPORT = call(name("builtins", "__import__"), plain("os"))
RUNS = {  # `pickle.loads` runs these
    "os.system": SYSTEM,
    "posix.system": call(name(os.name, "system"), touch()),
    "builtins.eval": call(name("builtins", "eval"), python()),
    "builtins.exec": call(name("builtins", "exec"), python()),
    "getattr": call(call(name("builtins", "getattr"), IMPORT, plain("system")), touch()),
    "dotted": plain("os") + plain("path.os.system") + b"\x93(" + touch() + b"tR",
    "attrgetter": call(call(call(name("operator", "attrgetter"), plain("system")), IMPORT), touch()),
    "partial": call(call(name("functools", "partial"), name("os", "system"), touch())),
    "INST": b"(" + touch() + b"ios\nsystem\n",
    "OBJ": b"(" + name("os", "system") + touch() + b"o",
    "pickle.loads": call(name("pickle", "loads"), plain(whole(SYSTEM))),
    "EXT1": b"\x82\xf0(" + touch() + b"tR",
    "in a dict": b"}(" + plain("a") + SYSTEM + b"u",
    "popped": SYSTEM + b"0N",
}
CANARY = {  # ways into this reader
    "tensor's bytes": tensor(X, stream=whole(SYSTEM)),
    "storage's type": tensor(X, stream=storage_stream(X, kind=SYSTEM)),
    "storage's pickle": tensor(X, stream=whole(plain(MAGIC)) + whole(plain(1001)) + whole(SYSTEM)),
    "tensor in a tensor's bytes": tensor(X, stream=b"".join(map(whole, [plain(MAGIC), plain(1001), tensor(X)]))),
    "zip in a tensor's bytes": tensor(X, stream=as_zip(whole(SYSTEM))),
    "hooks": call(name("torch._utils", "_rebuild_tensor_v2"), *[b"N"] * 5, SYSTEM),
    "torch.load": call(name("torch", "load"), plain("canary")),
    "dotted torch": plain("torch") + plain("serialization.os.system") + b"\x93(" + touch() + b"tR",
    "dunder of an allowed name": name("collections", "OrderedDict.__class__"),
    "call of a class": call(name("builtins", "str"), plain("a")),
    "call of Data": call(name("torch_geometric.data.data", "Data")),
    "call of a string": call(plain("a")),
    "copyreg": call(name("copyreg", "_reconstructor"), name("builtins", "list"), name("builtins", "object"), b"N"),
    "NEWOBJ of a function": name("collections", "OrderedDict") + b")\x81",
    "NEWOBJ_EX": name("torch_geometric.data.data", "Data") + b")}\x92",
    "BUILD of a function": name("_codecs", "encode") + b"N}" + plain("__defaults__") + plain((1,)) + b"s\x86b",
    "BUILD of a class": name("torch_geometric.data.data", "Data") + b"}" + plain("call") + name("os", "system") + b"sb",
    "BUILD of a class, harmless": name("torch_geometric.data.data", "Data") + b"}" + plain("record") + plain(0) + b"sb",
    "slots of a record": name("torch_geometric.data.data", "Data") + b")\x81N}" + plain("a") + plain(1) + b"s\x86b",
    "state of a tensor": tensor(X) + plain((1, (3,))) + b"b",
    "APPEND to a record": name("torch_geometric.data.data", "Data") + b")\x81Na",
    "item of an array": tensor(X) + plain(0) + plain(0) + b"s",
    "array of objects": array_state("O8", b"]" + plain([1, 2])),
    "array without its bytes": array_state("f8", plain(b"")),
    "array with fields": call(name("numpy", "dtype"), plain("f8"), b"\x89", b"\x88") + plain((3, "<", 1, 1, 1)) + b"b",
    "scalar": call(name("numpy.core.multiarray", "scalar"), plain("f8"), plain(b"12345678")),
    "offset": tensor(X, offset=1),
    "negative offset": tensor(X, offset=-1),
    "size": tensor(X, size=(3, 5)),
    "size of strings": tensor(X, size=("3", "4")),
    "stride": tensor(X, stride=(1, 6)),
    "negative stride": tensor(X, stride=(-4, 1)),
    "huge stride": tensor(X, stride=(2**62, 2**62)),
    "stride 0": tensor(X, size=(1 << 20, 1 << 20), stride=(0, 0)),
    "storage that is longer than its bytes": tensor(X, stream=storage_stream(X, count=13)),
    "storage of 1 TB": tensor(X, stream=storage_stream(X, count=1 << 38)),
    "persistent id": plain(("module", "os")) + b"Q",
    "text persistent id": b"Pos.system\n",
    "out-of-band buffer": b"\x97",
    "tuple as a key": b"}" + plain((1, 2)) + b"Ns",
    "bytes8 of 1 TB": b"\x8e" + struct.pack("<Q", 1 << 40),
    "bytearray of 1 TB": b"\x96" + struct.pack("<Q", 1 << 40),
    "text of 2 GB": b"X" + struct.pack("<I", (1 << 31) - 1),
    "integer of 2 GB": b"\x8b" + struct.pack("<i", (1 << 31) - 1),
    "frame of 1 TB": b"\x95" + struct.pack("<Q", 1 << 40),
    "memo that is missing": b"h\x07",
    "empty stack": b"0",
    "unknown opcode": b"\xff",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Working directory in which nothing may appear."""
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("os", "system", 0xF0)
    yield tmp_path
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("opcodes", RUNS.values(), ids=RUNS)
def test_hostile_pickles_are_refused(folder, opcodes):
    for read in (load_plain, load_tensors):
        with pytest.raises(UserError, match=r"^data.lmdb, key '3' is not read: the pickle (asks for|uses the opcode) "):
            read(whole(opcodes), "data.lmdb, key '3'")
        assert list(folder.iterdir()) == []
    pickle.loads(whole(opcodes))
    assert [file.name for file in folder.iterdir()] == ["canary"]  # the pickle is hostile indeed


@pytest.mark.parametrize("opcodes", CANARY.values(), ids=CANARY)
def test_what_reaches_beyond_the_data_is_refused(folder, opcodes):
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"^data.lmdb is not "):
            load_tensors(whole(opcodes), "data.lmdb")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    assert list(folder.iterdir()) == []
    assert load_tensors(data(1, pos=X), "x").name == "torch_geometric.data.data.Data"  # the reader is as before


def test_large_numbers_in_the_memo_take_no_memory():
    """The unpickler in C would fill 32 GB."""
    tracemalloc.start()
    try:
        assert load_plain(b"\x80\x04Nr" + struct.pack("<I", (1 << 31) - 1) + b".", "x") is None
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "opcodes",
    [
        plain([0] * 50_000) + b"q\xc8" + call(name("builtins", "set"), b"h\xc8") * 1000,
        plain("\xe9" * 50_000) + b"q\xc8" + call(name("_codecs", "encode"), b"h\xc8", plain("latin1")) * 1000,
    ],
    ids=["list", "text"],
)
def test_calls_with_the_same_value_are_limited(opcodes):
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="makes more of its values than it holds"):
            load_tensors(whole(opcodes), "x")
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_storages_of_an_archive_are_made_once():
    pid = b"(" + plain("storage") + name("torch", "BoolStorage") + plain("0") + plain("cpu") + plain(100_000) + b"t"
    content = as_zip(whole(pid + b"q\xc80](" + b"h\xc8Q" * 1000 + b"e"), **{"data/0": bytes(100_000)})
    tracemalloc.start()
    try:
        load_stream(content, ALLOWED)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_the_refused_name_is_told():
    with pytest.raises(UserError, match=r"asks for torch.serialization.os.system; only tensors"):
        load_tensors(whole(CANARY["dotted torch"]), "x")
    with pytest.raises(UserError, match="asks for argparse.Namespace;"):
        load_tensors(whole(call(name("argparse", "Namespace"))), "x")


def test_deep_nesting_and_shared_items_end_in_a_message():
    deep = sys.getrecursionlimit() * 10
    with pytest.raises(UserError, match="class Data"):
        data_attributes(load_tensors(whole(b"N" + b"\x85" * deep), "x"), "x")
    shared = b"]" + b"".join(
        b"\x94" + b"]" + b"(" + b"h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"e" for i in range(60)
    )
    with pytest.raises(UserError, match="the pickle calls"):  # the name of the callable would have 2**60 brackets
        load_tensors(whole(shared + b")R"), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (as_zip(whole(SYSTEM)), "asks for os.system"),
        (as_zip(whole(plain(1)), zipfile.ZIP_DEFLATED), "compressed"),
        (as_zip(whole(plain(1)), byteorder=b"big"), "big-endian"),
        (
            as_zip(whole(b"(" + plain("storage") + name("torch", "FloatStorage") + plain("0") * 2 + plain(9) + b"tQ")),
            "no item named 'archive/data/0'",
        ),
        (as_zip(b"", **{"other/data.pkl": b""})[:-30], "not a zip file"),
        (whole(SYSTEM), "asks for os.system"),
        (whole(plain(MAGIC)) + whole(plain(1001)) + whole(SYSTEM), "asks for os.system"),
        (whole(plain(7)), "not one of torch.save"),
        (storage_stream(X)[:-1], "ends in storage '0'"),
        (b"", "EOFError"),
    ],
)
def test_hostile_and_broken_archives_are_refused(folder, content, message):
    (folder / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=rf"^model.pt is not .*{message}"):
        read_torch_archive("model.pt")
    assert [file.name for file in folder.iterdir()] == ["model.pt"]


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file: .*none.pt"):
        read_torch_archive(tmp_path / "none.pt")


# ------------------------------------------------------------------------------------------------------ damaged files


WHOLE = [(TORCH / file).read_bytes() for file in ("checkpoint.pt", "checkpoint_legacy.pt")]


def read_any(content: bytes) -> None:
    """Read bytes as an archive and as a pickle; only a UserError may come out."""
    for read in (lambda: load_tensors(content, "x"), lambda: load_stream(content, ALLOWED)):
        try:
            with reading_pickle("x"):
                read()
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from([*WHOLE, data(2, pos=X, cell=X, natoms=3)]), st.data())
def test_damaged_files_are_read_or_refused(content, draw):
    damaged = bytearray(content[: draw.draw(st.integers(0, len(content)))])
    for place in draw.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=4)) if damaged else []:
        damaged[place] ^= 1 << draw.draw(st.integers(0, 7))
    read_any(bytes(damaged))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([bytes([code]) for code in range(256)] + [tensor(X), *map(plain, (0, "a", (1,)))])))
def test_random_opcodes_are_read_or_refused(opcodes):
    read_any(b"\x80\x04" + b"".join(opcodes))


@pytest.mark.parametrize("content", [*WHOLE, data(2, pos=X, natoms=3)], ids=["zip", "legacy", "data"])
def test_truncated_files_are_refused(content):
    read = load_tensors if content not in WHOLE else lambda part, where: load_stream(part, ALLOWED)
    for length in range(0, len(content), len(content) // 50):
        with pytest.raises(UserError), reading_pickle("x"):
            read(content[:length], "x")
