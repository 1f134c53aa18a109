"""Files of `torch.save` and pickled tensors, read as NumPy arrays. PyTorch is not needed, and no code is run."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.safe_pickle import (
    PLAIN,
    Global,
    Record,
    Refused,
    SafeUnpickler,
    brief,
    global_table,
    reading_pickle,
)

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch.save before version 1.6
ZIP = b"PK\x03\x04"
STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "<c8",
    "torch.ComplexDoubleStorage": "<c16",
}


class Storage:
    """Memory that tensors are views of, (elements,)."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def _itemsize(kind: str) -> int:
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


def _values(raw: bytes, kind: str) -> np.ndarray:
    """Return the elements of a storage. bfloat16 is the upper half of a float32."""
    if kind == "bfloat16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    if kind == "bool":
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, kind)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """Return a view of a storage, never beyond its ends."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        raise Refused("the pickle holds a tensor without a storage, a size and a stride")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 32 or not all(type(n) is int and n >= 0 for n in numbers):
        raise Refused(f"the pickle holds a tensor of size {brief(size)} and stride {brief(stride)}")
    values, count = storage.values, math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if count and (last >= len(values) or count > len(values)):
        form = f"offset {offset}, size {brief(size)}, stride {brief(stride)}"
        raise Refused(f"the pickle holds a tensor of more than the {len(values)} elements of its storage ({form})")
    if not count:
        return np.zeros(size, values.dtype)
    item = values.itemsize
    return np.ndarray(size, values.dtype, values.data, offset * item, [step * item for step in stride])


def _tensor_of_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _load_from_bytes(data: Any) -> Storage:
    """Read the stream of `torch.save` that a pickled tensor holds its storage in."""
    if type(data) not in (bytes, bytearray):
        raise Refused("the pickle holds a tensor without bytes")
    storage = load_stream(bytes(data), STORAGE_ONLY)
    if type(storage) is not Storage:
        raise Refused(f"the pickle holds {type(storage).__name__} in the place of a tensor's storage")
    return storage


def _device(*parts: Any) -> str:
    return ":".join(str(part) for part in parts if type(part) in (str, int))


def _size(sizes: Any = ()) -> tuple:
    if type(sizes) not in (list, tuple):
        raise Refused("the pickle holds a torch.Size without sizes")
    return tuple(sizes)


STORAGE_ONLY = global_table(*map(Global, STORAGES))
ALLOWED = {
    **PLAIN,
    **STORAGE_ONLY,
    **global_table(
        Global("torch._utils._rebuild_tensor", _rebuild_tensor),
        Global("torch._utils._rebuild_tensor_v2", _rebuild_tensor),
        Global("torch._utils._rebuild_parameter", _tensor_of_parameter),
        Global("torch.storage._load_from_bytes", _load_from_bytes),
        Global("torch.device", _device),
        Global("torch.Size", _size),
        *(
            Global(f"torch.{name}")
            for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
        ),
        Global("torch_geometric.data.data.Data", record=True),
        Global("torch_geometric.data.data.DataEdgeAttr"),
        Global("torch_geometric.data.data.DataTensorAttr"),
        Global("torch_geometric.data.storage.GlobalStorage", record=True),
    ),
}
"""Names of tensors, of a checkpoint's settings and of PyTorch Geometric's `Data`."""


class _TorchUnpickler(SafeUnpickler):
    """Unpickler whose persistent ids are storages."""

    def __init__(
        self, data: bytes | io.BytesIO, allowed: dict[str, Global], load: Callable[[str, str, int], Storage]
    ) -> None:
        super().__init__(data, allowed)
        self.load_storage = load

    def persistent_load(self, pid: Any) -> Storage:
        if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage" or type(pid[1]) is not Global:
            raise Refused(f"the pickle holds a persistent id that is no storage: {brief(pid)}")
        _, kind, key, _, count, *view = pid
        if kind.name not in STORAGES or type(key) is not str or type(count) is not int or count < 0 or any(view):
            raise Refused(f"the pickle holds a storage in an unknown form: {brief(pid)}")
        return self.load_storage(STORAGES[kind.name], key, count)


def load_stream(data: bytes, allowed: dict[str, Global]) -> Any:
    """Read what `torch.save` wrote, in the form of zip archives or in that of versions before 1.6.

    Raises
    ------
    Refused, and errors of any kind for broken data; see `reading_pickle`.
    """
    stream = io.BytesIO(data)
    return _load_zip(stream, len(data), allowed) if data.startswith(ZIP) else _load_legacy(stream, len(data), allowed)


def _load_zip(file: io.BytesIO | Path, size: int, allowed: dict[str, Global]) -> Any:
    raw: dict[str, bytes] = {}
    storages: dict[tuple[str, str], Storage] = {}
    left = size

    with ZipFile(file) as archive:

        def read(name: str) -> bytes:
            nonlocal left
            if name not in raw:
                entry = archive.getinfo(name)
                left -= entry.file_size
                if entry.compress_type != ZIP_STORED or left < 0:
                    raise Refused(f"the archive's entry {name:.100} is compressed or larger than the file")
                raw[name] = archive.read(entry)
            return raw[name]

        def load_storage(kind: str, key: str, count: int) -> Storage:
            found = read(f"{root}/data/{key}")
            if len(found) != count * _itemsize(kind):
                raise Refused(f"the archive holds {len(found)} bytes for {count} elements of type {kind}")
            if (kind, key) not in storages:
                storages[kind, key] = Storage(_values(found, kind))
            return storages[kind, key]

        roots = [name[:-9] for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1:
            raise Refused("the archive has no entry data.pkl: it is not one of torch.save")
        root = roots[0]
        if f"{root}/byteorder" in archive.namelist() and read(f"{root}/byteorder") != b"little":
            raise Refused("the archive holds big-endian numbers")
        return _TorchUnpickler(read(f"{root}/data.pkl"), allowed, load_storage).load()


def _load_legacy(stream: io.BytesIO, size: int, allowed: dict[str, Global]) -> Any:
    if SafeUnpickler(stream).load() != MAGIC or SafeUnpickler(stream).load() != PROTOCOL:
        raise Refused("the stream is not one of torch.save")
    if SafeUnpickler(stream).load().get("little_endian") is not True:
        raise Refused("the stream holds big-endian numbers")
    storages: dict[str, tuple[str, Storage]] = {}
    left = size

    def load_storage(kind: str, key: str, count: int) -> Storage:
        """Return memory that is filled when the pickle has been read, because its bytes follow the pickle."""
        nonlocal left
        if key not in storages:
            left -= count * _itemsize(kind)
            if left < 0:
                raise Refused(f"the stream of {size} bytes claims a storage of {count} elements of type {kind}")
            storages[key] = kind, Storage(np.zeros(count, "<f4" if kind == "bfloat16" else kind))
        known, storage = storages[key]
        if known != kind or len(storage.values) != count:
            raise Refused(f"the stream holds storage {key!r:.40} in two forms")
        return storage

    content = _TorchUnpickler(stream, allowed, load_storage).load()
    keys = SafeUnpickler(stream).load()
    if type(keys) is not list or not all(type(key) is str for key in keys) or set(keys) != set(storages):
        raise Refused("the stream lacks storages, or has too many")
    for key in keys:
        kind, storage = storages[key]
        count = len(storage.values)
        found = stream.read(8)
        raw = stream.read(count * _itemsize(kind))
        if found != count.to_bytes(8, "little") or len(raw) != count * _itemsize(kind):
            raise Refused(f"the stream ends in storage {key!r:.40}, or the storage has another length than it claims")
        storage.values[:] = _values(raw, kind)
    return content


def load_tensors(data: bytes, where: str) -> Any:
    """Read a pickle of tensors, plain containers and PyTorch Geometric's `Data`.

    Tensors become NumPy arrays, which may be read-only views of `data`; objects of `Data` become `Record`; see
    `data_attributes`.

    Raises
    ------
    UserError
        For a pickle that asks for anything else (names it), and for a broken one.
    """

    def no_storage(kind: str, key: str, count: int) -> Storage:
        raise Refused("the pickle holds a storage outside of a tensor's bytes")

    with reading_pickle(where):
        return _TorchUnpickler(data, ALLOWED, no_storage).load()


def data_attributes(data: Any, where: str) -> dict[str, Any]:
    """Return the attributes of PyTorch Geometric's `Data`, as releases 1 and 2 of it keep them.

    Raises
    ------
    UserError
        If `data` is something else.
    """
    attributes = data.attributes if isinstance(data, Record) else None
    if attributes is not None and isinstance(attributes.get("_store"), Record):
        attributes = attributes["_store"].attributes.get("_mapping")
    if not isinstance(attributes, dict):
        raise UserError(f"{where}: expected an object of PyTorch Geometric's class Data, got {brief(data)}")
    return attributes


def read_torch_archive(path: str | Path) -> Any:
    """Read a file of `torch.save`, such as a checkpoint, into dicts and lists of NumPy arrays.

    Both forms are read: zip archives, and that of PyTorch before 1.6. bfloat16 becomes float32, `torch.device` a
    string, `torch.Size` a tuple, an `OrderedDict` a dict. Arrays may be read-only.

    Raises
    ------
    UserError
        If there is no such file, if it holds anything else (names it), and if it is broken.

    Examples
    --------
    >>> import pickle, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ZipFile(Path(folder, "checkpoint.pt"), "w") as archive:
    ...         archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 3}))
    ...     read_torch_archive(Path(folder, "checkpoint.pt"))
    {'epoch': 3}
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    size = path.stat().st_size
    with reading_pickle(str(path)):
        with path.open("rb") as file:
            if file.read(len(ZIP)) != ZIP:
                file.seek(0)
                return load_stream(file.read(), ALLOWED)
        return _load_zip(path, size, ALLOWED)
