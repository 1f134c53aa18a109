"""Pickles of tensors and of PyTorch Geometric's `Data`, written opcode by opcode without PyTorch."""

import pickle
import struct

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<i8": "LongStorage", "<i4": "IntStorage"}


def plain(value) -> bytes:
    """Return the opcodes of a plain value, without those that begin and end a pickle."""
    return pickle.dumps(value, 2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    """Return the opcode that looks a global name up."""
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def whole(opcodes: bytes) -> bytes:
    return b"\x80\x04" + opcodes + b"."


def storage_stream(values: np.ndarray, count=None, kind=None, key="0") -> bytes:
    """Return the stream of `torch.save` before version 1.6 for a storage; `count` and `kind` may be false."""
    kind = name("torch", STORAGES[values.dtype.str]) if kind is None else kind
    count = values.size if count is None else count
    pid = b"(" + plain("storage") + kind + plain(key) + plain("cpu") + plain(count) + b"NtQ"
    parts = [whole(plain(MAGIC)), whole(plain(1001)), whole(plain({"little_endian": True})), whole(pid)]
    return b"".join([*parts, whole(plain([key])), struct.pack("<q", count), values.tobytes()])


def tensor(values: np.ndarray, offset=0, size=None, stride=None, stream=None) -> bytes:
    """Return the opcodes of a tensor, whose offset, size and stride may be false."""
    values = np.array(values, order="C")
    size = values.shape if size is None else size
    stride = tuple(s // values.itemsize for s in values.strides) if stride is None else stride
    stream = storage_stream(values) if stream is None else stream
    storage = call(name("torch.storage", "_load_from_bytes"), b"B" + struct.pack("<I", len(stream)) + stream)
    hooks = call(name("collections", "OrderedDict"))
    return call(
        name("torch._utils", "_rebuild_tensor_v2"), storage, plain(offset), plain(size), plain(stride), b"\x89", hooks
    )


def data(release=2, **attributes) -> bytes:
    """Return a pickle of PyTorch Geometric's `Data`, as its release 1 or 2 keeps attributes."""
    items = b"".join(
        plain(key) + (tensor(value) if isinstance(value, np.ndarray) else plain(value))
        for key, value in attributes.items()
    )
    state = b"}(" + items + b"u"
    if release == 2:
        mapping = b"}(" + plain("_mapping") + state + b"u"
        store = name("torch_geometric.data.storage", "GlobalStorage") + b")\x81" + mapping + b"b"
        state = b"}(" + plain("_store") + store + b"u"
    return whole(name("torch_geometric.data.data", "Data") + b")\x81" + state + b"b")
