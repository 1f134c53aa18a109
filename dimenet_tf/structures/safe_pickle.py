"""Pickles read without running code: plain containers, NumPy arrays, and the objects that an allow-list names.

A pickle is a program, and `pickle.load` runs whatever it asks for. Here its names are looked up in a table of this
package (nothing is imported), only functions of that table are called, and objects are records of their attributes.
"""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import pickletools
import re
import reprlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np

from dimenet_tf.errors import UserError

CONTENT = "only tensors, arrays and plain containers are read, because a pickle can run any code"
# names of NumPy's types in pickles; that of Python objects is not among them
DTYPE = re.compile(r"[biufc](?:1|2|4|8|16)|[SU]\d{1,6}")
SIZED = (bytes, bytearray, str, list, tuple, dict)
FREE = 100_000  # bytes that calls may copy in addition to twice the size of the pickle
KEYS = (str, int, float, bool, bytes, type(None))  # types of keys and of members of sets: their hashes cost little


brief = reprlib.repr
"""Return a short `repr`. That of nested lists that share their items may be exponentially long."""


class Refused(Exception):
    """Something in a pickle that is not read; the message says what."""


class Global:
    """A name of the allow-list. It is never the object that Python knows by that name.

    Parameters
    ----------
    name : module and name
    call : function of this package that is called in its place; None if the name must not be called
    record : whether the name is a class whose objects are read as `Record`
    """

    def __init__(self, name: str, call: Callable[..., Any] | None = None, record: bool = False) -> None:
        self.name, self.call, self.record = name, call, record

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Record:
    """Attributes of an object in a pickle, whose class is not imported."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attributes: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<{self.name} with {', '.join(map(str, self.attributes))}>"


class DType:
    """A NumPy type in a pickle, whose byte order is set after it is made."""

    def __init__(self, name: Any, *_: Any) -> None:
        if type(name) is not str or not DTYPE.fullmatch(name):
            raise Refused(f"the pickle holds an array of type {brief(name)}")
        self.dtype = np.dtype(name)

    def set_state(self, state: Any) -> None:
        """Set the byte order. Fields, shapes and metadata are refused."""
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise Refused("the pickle holds a NumPy type with fields or metadata")
        self.dtype = self.dtype.newbyteorder(state[1])


def global_table(*names: Global) -> dict[str, Global]:
    """Return an allow-list as `SafeUnpickler` takes it."""
    return {one.name: one for one in names}


def _check_keys(keys: Iterable) -> None:
    for key in keys:
        if type(key) not in KEYS:
            raise Refused(f"the pickle holds a key of type {type(key).__name__}")


def _make_set(items: Any = ()) -> set:
    if type(items) not in (list, tuple):
        raise Refused("the pickle holds a set of something that is no list")
    _check_keys(items)
    return set(items)


def _make_frozenset(items: Any = ()) -> frozenset:
    return frozenset(_make_set(items))


def _make_dict(pairs: Any = ()) -> dict:
    if type(pairs) is not dict:
        if type(pairs) not in (list, tuple) or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs):
            raise Refused("the pickle holds a dict of something that is no list of pairs")
        _check_keys(key for key, _ in pairs)
    return dict(pairs)


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes as older protocols spell them."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused("the pickle calls _codecs.encode with other arguments than those of bytes")
    return text.encode("latin1")


def _path(*parts: Any) -> str:
    """Return a path, as configurations in checkpoints have them, as a string."""
    if not all(type(part) is str for part in parts):
        raise Refused("the pickle holds a path whose parts are no strings")
    return "/".join(part.rstrip("/") for part in parts)


def _empty_array(*_: object) -> np.ndarray:
    """Return an array that `_set_array` fills."""
    return np.empty(0, np.int8)


def _checked(shape: Any, dtype: Any, raw: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of an array, checked against the bytes that are there."""
    if type(dtype) is not DType or type(shape) is not tuple or type(raw) not in (bytes, bytearray):
        raise Refused("the pickle holds an array without a shape, a type and bytes")
    if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise Refused(f"the pickle holds an array of shape {brief(shape)}")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise Refused(f"the pickle holds {len(raw)} bytes for an array of shape {shape} and type {dtype.dtype}")
    return shape, dtype.dtype


def _scalar(dtype: Any, raw: Any) -> Any:
    shape, kind = _checked((), dtype, raw)
    return np.ndarray(shape, kind, raw)[()]


def _array_of_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    shape, kind = _checked(shape, dtype, raw)
    return np.ndarray(shape, kind, raw, order="F" if order == "F" else "C")


def _set_array(array: np.ndarray, state: tuple) -> None:
    """Fill an array of `_empty_array`; NumPy's own `__setstate__` gets checked arguments only."""
    if len(state) != 5:
        raise Refused("the pickle holds an array in an unknown form")
    shape, kind = _checked(state[1], state[2], state[4])
    array.__setstate__((1, shape, kind, bool(state[3]), bytes(state[4])))


PLAIN = global_table(
    *(
        one
        for module in ("builtins", "__builtin__")
        for one in (
            Global(f"{module}.set", _make_set),
            Global(f"{module}.frozenset", _make_frozenset),
            Global(f"{module}.bytes", lambda: b""),
            *(Global(f"{module}.{name}") for name in ("list", "dict", "int", "float", "str", "bool")),
        )
    ),
    Global("collections.OrderedDict", _make_dict),
    Global("collections.Counter", _make_dict),
    Global("collections.defaultdict", lambda factory=None: {}),
    Global("_codecs.encode", _encode),
    Global("pathlib.PosixPath", _path),
    Global("pathlib._local.PosixPath", _path),
    Global("numpy.ndarray"),
    Global("numpy.dtype", DType),
    *(
        one
        for core in ("numpy.core", "numpy._core")
        for one in (
            Global(f"{core}.multiarray._reconstruct", _empty_array),
            Global(f"{core}.multiarray.scalar", _scalar),
            Global(f"{core}.numeric._frombuffer", _array_of_buffer),
        )
    ),
)
"""Names of plain containers, of paths and of NumPy's arrays."""

CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
# opcodes for numbers, strings, containers and the memo, which `pickle` may handle as it does
HARMLESS = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWFALSE NEWTRUE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT "
    "BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT EMPTY_SET GET BINGET LONG_BINGET "
    "PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL BINPERSID"
).split()


def _refusal(name: str) -> Callable[[Any], NoReturn]:
    def refuse(_: Any) -> NoReturn:
        raise Refused(f"the pickle uses the opcode {name}")

    return refuse


class SafeUnpickler(pickle._Unpickler):
    """Unpickler that runs nothing of the pickle.

    It is derived from the unpickler in Python: that in C fills memory for large numbers in a memo, sets attributes of
    any object, and takes extension codes from a table of the process.

    Parameters
    ----------
    data : the pickle; a stream is read to the pickle's end
    allowed : names that it may use
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{code: _refusal(name) for name, code in CODES.items()},
        **{CODES[name]: pickle._Unpickler.dispatch[CODES[name]] for name in HARMLESS},
    }
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes | io.BytesIO, allowed: Mapping[str, Global] = PLAIN) -> None:
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        super().__init__(stream, encoding="utf-8")
        self.allowed = allowed
        self.left = 2 * len(stream.getbuffer()) + FREE

    def find_class(self, module: str, name: str) -> Global:
        """Look a name up in the allow-list."""
        found = self.allowed.get(f"{module}.{name}")
        if found is None:
            raise Refused(f"the pickle asks for {module}.{name}"[:200])
        return found

    def _charge(self, values: tuple) -> None:
        """Count what a call may copy: a short pickle could call functions with the same large value many times."""
        self.left -= sum(len(value) for value in values if type(value) in SIZED)
        if self.left < 0:
            raise Refused("the pickle makes more of its values than it holds")

    def _target(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise Refused(f"the pickle fills a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}")
        return self.stack[-1]

    def _append(self) -> None:
        item = self.stack.pop()
        self._target(list).append(item)

    def _appends(self) -> None:
        items = self.pop_mark()
        self._target(list).extend(items)

    def _set(self, items: list) -> None:
        _check_keys(items[::2])
        self._target(dict).update(zip(items[::2], items[1::2]))

    def _setitem(self) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self._set(items)

    def _setitems(self) -> None:
        self._set(self.pop_mark())

    def _additems(self) -> None:
        items = self.pop_mark()
        _check_keys(items)
        self._target(set).update(items)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def _frozenset(self) -> None:
        items = self.pop_mark()
        self.append(_make_frozenset(items))

    def _bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    def _reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or function.call is None or type(args) is not tuple:
            raise Refused(f"the pickle calls {brief(function)}")
        self._charge(args)
        self.append(function.call(*args))

    def _newobj(self) -> None:
        args, kind = self.stack.pop(), self.stack.pop()
        if type(kind) is not Global or not kind.record or args != ():
            raise Refused(f"the pickle makes an object of {brief(kind)}")
        self.append(Record(kind.name))

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is Record and type(state) is dict:
            target.attributes.update(state)
        elif type(target) is DType:
            target.set_state(state)
        elif type(target) is np.ndarray and target.shape == (0,) and type(state) is tuple:
            self._charge(state)
            _set_array(target, state)
        elif type(target) is not dict:  # the attributes of an OrderedDict, such as `_metadata`, are left out
            raise Refused(f"the pickle sets attributes of {brief(target)}")

    dispatch.update(
        {
            CODES["APPEND"]: _append,
            CODES["APPENDS"]: _appends,
            CODES["SETITEM"]: _setitem,
            CODES["SETITEMS"]: _setitems,
            CODES["ADDITEMS"]: _additems,
            CODES["DICT"]: _dict,
            CODES["FROZENSET"]: _frozenset,
            CODES["BYTEARRAY8"]: _bytearray,
            CODES["REDUCE"]: _reduce,
            CODES["NEWOBJ"]: _newobj,
            CODES["BUILD"]: _build,
        }
    )


@contextlib.contextmanager
def reading_pickle(where: str) -> Iterator[None]:
    """Turn the errors of reading a pickle, which are of any kind, into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except Refused as error:
        raise UserError(f"{where} is not read: {error}; {CONTENT}") from None
    except Exception as error:  # whatever a broken stream leads to, MemoryError and RecursionError too
        said = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())[:200])))
        raise UserError(f"{where} is not a complete pickle or archive of PyTorch ({said})") from None


def load_plain(data: bytes, where: str) -> Any:
    """Read a pickle of plain containers, numbers, strings and NumPy arrays.

    An `OrderedDict`, a `defaultdict` and a `Counter` become a dict. Memory is at most proportional to the size of the
    pickle.

    Parameters
    ----------
    data : the pickle
    where : file and key, named in errors

    Raises
    ------
    UserError
        For a pickle that asks for anything else (names it), and for a broken one.

    Examples
    --------
    >>> load_plain(pickle.dumps({"length": 3, "R": np.zeros(2)}), "data.lmdb")
    {'length': 3, 'R': array([0., 0.])}
    >>> load_plain(b"cos\\nsystem\\n(S'echo'\\ntR.", "data.lmdb, key '0'")
    Traceback (most recent call last):
    dimenet_tf.errors.UserError: data.lmdb, key '0' is not read: the pickle asks for os.system; only tensors, ...
    """
    with reading_pickle(where):
        return SafeUnpickler(data).load()
