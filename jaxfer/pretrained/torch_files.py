"""Reading of the arrays in PyTorch's .pth and .pt files; no pickle is run.

Such a file is a pickle program that rebuilds Python objects, and could call anything.
Here its instructions are only read: those that build dictionaries, lists, numbers and
tensors are carried out by the functions below, and any other is refused by name.
"""

import io
import math
import os
import pickletools
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_TYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# The first value in a file of PyTorch before 1.6, and its version.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "STRING"),
}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()
_ADVICE = "save the state_dict() alone, or write it as .safetensors"
# What damaged archives and pickles end in, besides ValueError.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError),
    *(IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError),
)


class _Global(NamedTuple):
    """The name of a class or function, which is not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Storage(NamedTuple):
    key: str
    dtype: Any
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: str | Path) -> dict[str, Any]:
    """The contents of a .pth or .pt file as dictionaries, lists, numbers and arrays.

    Args:
        path: a file that `torch.save` wrote, in the zip format of PyTorch 1.6 and later
            or in the one before.

    Raises:
        ValueError: a file that is damaged or of another format, or that holds anything
            else than a dictionary of tensors and plain values; the message names what
            it holds.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            found = _from_zip(file) if zipfile.is_zipfile(file) else _from_stream(file)
    except OSError as e:
        raise ValueError(f"the weights {path} cannot be read ({e.strerror})") from e
    except _DAMAGE as e:
        raise ValueError(f"the weights {path} are damaged ({e})") from e
    except ValueError as e:
        raise ValueError(f"the weights {path} cannot be read: {e}") from e
    if not isinstance(found, Mapping):
        raise ValueError(
            f"expected a dictionary of weights in {path}, got a {type(found).__name__}"
        )
    return {str(name): value for name, value in found.items()}


def _from_zip(file: Any) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        programs = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(programs) != 1:
            raise ValueError(
                "expected a file of torch.save, got a zip archive without data.pkl"
            )
        root = programs[0].split("/")[0]
        if f"{root}/byteorder" in names:
            order = archive.read(f"{root}/byteorder")
            if order != b"little":
                raise ValueError(f"expected little-endian numbers, got {order!r}")
        found = _objects(io.BytesIO(archive.read(programs[0])))

        def data(storage: _Storage) -> bytes:
            name = f"{root}/data/{storage.key}"
            if name not in names:
                raise ValueError(f"expected {name} in the archive, got none")
            return archive.read(name)

        return _with_arrays(found, data, {})


def _from_stream(file: Any) -> Any:
    file.seek(0)
    if _objects(file) != _MAGIC or _objects(file) != _VERSION:
        raise ValueError("expected a file of torch.save, got another format")
    system = _objects(file)
    if not isinstance(system, dict) or not system.get("little_endian"):
        raise ValueError(f"expected little-endian numbers, got {system}")
    found, keys = _objects(file), _objects(file)
    sizes = {storage.key: storage for storage in _storages(found)}
    if not isinstance(keys, list) or {*map(str, keys)} != {*sizes}:
        raise ValueError("expected the arrays that the tensors name, got others")
    length, data = os.fstat(file.fileno()).st_size, {}
    for key in map(str, keys):
        size = int.from_bytes(file.read(8), "little")
        if size != sizes[key].size:
            raise ValueError(f"expected {sizes[key].size} numbers, got {size}")
        data[key] = file.read(min(size * np.dtype(sizes[key].dtype).itemsize, length))
    return _with_arrays(found, lambda storage: data[storage.key], {})


def _storages(found: Any) -> list[_Storage]:
    if isinstance(found, _Tensor):
        return [found.storage]
    inner = found.values() if isinstance(found, dict) else found
    nested = isinstance(found, dict | list | tuple)
    return [s for value in inner for s in _storages(value)] if nested else []


def _with_arrays(found: Any, data: Any, read: dict[str, np.ndarray]) -> Any:
    """The value with every tensor in it as an array."""
    if isinstance(found, _Tensor):
        storage = found.storage
        if storage.key not in read:
            raw = data(storage)
            if len(raw) != storage.size * np.dtype(storage.dtype).itemsize:
                raise ValueError(
                    f"expected {storage.size} numbers in array {storage.key}, got "
                    f"{len(raw)} bytes: the file is truncated"
                )
            read[storage.key] = np.frombuffer(raw, storage.dtype)
        return _view(read[storage.key], found)
    if isinstance(found, _Storage | _Global):
        raise ValueError(f"expected tensors and plain values, got {found}")
    if isinstance(found, dict):
        if others := [key for key in found if not isinstance(key, str | int)]:
            raise ValueError(f"expected names as keys, got {_named(others[0])}")
        return {key: _with_arrays(value, data, read) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_with_arrays(value, data, read) for value in found]
    return found


def _view(flat: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The tensor's view of its storage, which has to be inside it."""
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(
        type(n) is int and 0 <= n <= len(flat) for n in numbers
    ):
        raise ValueError(f"expected a tensor within its storage, got {tensor}")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= len(flat):
        raise ValueError(f"expected a tensor within its storage, got {tensor}")
    steps = [stride * flat.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)
    return np.array(view, order="C")


def _objects(file: Any) -> Any:
    """The value that one pickle program builds; `file` is left behind its end."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, arg, _ in pickletools.genops(file):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in ("PROTO", "FRAME"):
            continue
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(arg)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(arg)] = stack[-1]  # type: ignore[arg-type]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(arg)])  # type: ignore[arg-type]
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(_to_mark(stack)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else _to_mark(stack)
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEM":
                items = stack[-2:]
                del stack[-2:]
            else:
                items = _to_mark(stack)
            _expect(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_Global(*str(arg).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            named, module = stack.pop(), stack.pop()
            stack.append(_Global(_expect(module, str), _expect(named, str)))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            given = _expect(stack.pop(), tuple)
            stack.append(_call(stack.pop(), given))
        elif name == "NEWOBJ":
            raise ValueError(f"it holds a {_named(stack[-2])}: {_ADVICE}")
        elif name == "BUILD":
            # State dictionaries have attributes, such as the versions of modules.
            stack.pop()
            _expect(stack[-1], dict)
        else:
            raise ValueError(f"expected a dictionary of tensors, got a {name}")
    raise ValueError("expected the end of a pickle, got none")


def _to_mark(stack: list[Any]) -> list[Any]:
    """Remove and return what lies above the last mark."""
    at = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"expected a {kind.__name__}, got {_named(value)}")
    return value


def _named(value: Any) -> str:
    return str(value) if isinstance(value, _Global) else f"a {type(value).__name__}"


def _storage(given: Any) -> _Storage:
    """The storage that a persistent id names: ('storage', type, key, place, size)."""
    mark, kind, *more = _expect(given, tuple)
    if mark != "storage" or not isinstance(kind, _Global) or kind.name not in _TYPES:
        raise ValueError(
            f"it holds a {kind}, where an array of numbers is expected: {_ADVICE}"
        )
    key, _, size = more[:3]
    if any(part is not None for part in more[3:]):
        raise ValueError("expected whole storages, got a view of one")
    return _Storage(_expect(key, str), _TYPES[kind.name], _expect(size, int))


def _call(function: Any, given: tuple[Any, ...]) -> Any:
    """The value of one of the few calls that state dictionaries are made of."""
    name = str(function) if isinstance(function, _Global) else _named(function)
    if name == "collections.OrderedDict":
        return dict(given[0]) if given else {}
    if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        storage, offset, shape, strides = given[:4]
        return _Tensor(_expect(storage, _Storage), offset, tuple(shape), tuple(strides))
    if name == "torch._utils._rebuild_parameter":
        return _expect(given[0], _Tensor)
    if name == "torch.Size":
        return tuple(given[0])
    raise ValueError(
        f"it calls {name}, which a file of weights does not need: {_ADVICE}"
    )
