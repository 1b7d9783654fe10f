"""Writes files as `torch.save` does, for tests without PyTorch."""

import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
_KINDS = {"float32": "FloatStorage", "int64": "LongStorage", "float16": "HalfStorage"}


def _named(module: str, name: str) -> Any:
    """A function that pickle stores under a given name."""

    def function(*args: Any) -> Any:
        raise AssertionError(args)

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


def _modules() -> dict[str, types.ModuleType]:
    found = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    rebuild = _named("torch._utils", "_rebuild_tensor_v2")
    found["torch._utils"]._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    for kind in _KINDS.values():
        setattr(found["torch"], kind, _named("torch", kind))
    return found


class _Pickler(pickle.Pickler):
    """Stores arrays by reference to a list, and calls by the names of PyTorch's."""

    def __init__(self, file: Any, modules: dict[str, Any], legacy: bool) -> None:
        super().__init__(file, protocol=2)
        self.arrays: list[np.ndarray] = []
        self._modules, self._legacy = modules, legacy

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return NotImplemented
        strides = tuple(step // value.itemsize for step in value.strides)
        flat = np.frombuffer(value.tobytes("A"), value.dtype)
        storage = _Ref(str(len(self.arrays)), value.dtype.name, flat.size)
        self.arrays.append(flat)
        rebuild = self._modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (storage, 0, value.shape, strides, False, {})

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Ref):
            return None
        kind = getattr(self._modules["torch"], _KINDS[value.dtype])
        more = (None,) if self._legacy else ()
        return ("storage", kind, value.key, "cpu", value.size, *more)


class _Ref:
    def __init__(self, key: str, dtype: str, size: int) -> None:
        self.key, self.dtype, self.size = key, dtype, size


def write(path: Path, value: Any, *, legacy: bool = False) -> Path:
    """Write a file as PyTorch 1.6 and later do, or as versions before it did."""
    file, modules = io.BytesIO(), _modules()
    if legacy:
        for part in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(part, file, protocol=2)
    pickler = _Pickler(file, modules, legacy)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        pickler.dump(value)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    if legacy:
        pickle.dump([str(i) for i in range(len(pickler.arrays))], file, protocol=2)
        for flat in pickler.arrays:
            file.write(flat.size.to_bytes(8, "little") + flat.tobytes())
        path.write_bytes(file.getvalue())
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        archive.writestr("archive/byteorder", "little")
        for i, flat in enumerate(pickler.arrays):
            archive.writestr(f"archive/data/{i}", flat.tobytes())
    return path
