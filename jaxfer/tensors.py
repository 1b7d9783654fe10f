"""Arrays with a JSON header in one file, verified when they are read; no pickle."""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Arrays = Mapping[str, np.ndarray]
T = TypeVar("T")


def write_tensors(path: Path, tensors: Arrays, texts: Mapping[str, Any]) -> None:
    """Write arrays and JSON texts to a safetensors file, completely or not at all."""
    metadata = {name: json.dumps(text) for name, text in texts.items()}
    with whole_file(path) as part:
        save_file(dict(tensors), part, metadata=metadata or None)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the arrays of a safetensors file.

    Raises:
        ValueError: a file that is damaged or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            return file.metadata() or {}, arrays
    except (SafetensorError, OSError) as e:
        raise ValueError(f"damaged or of another format ({e})") from e


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.partial")
    yield part
    part.replace(path)


def digest(tensors: Arrays) -> str:
    """The SHA-256 of arrays with their names, shapes and types."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        x = tensors[name]
        found.update(repr((name, x.shape, str(x.dtype))).encode())
        found.update(np.ascontiguousarray(x))
    return found.hexdigest()


def json_digest(content: Any) -> str:
    """The beginning of the SHA-256 of what JSON keeps of a value, 16 hex digits.

    Example:
        >>> json_digest({"a": (1, 2), "b": 3}) == json_digest({"b": 3, "a": [1, 2]})
        True
    """
    # JSON turns tuples into lists, and the keys of dictionaries into strings.
    kept = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def without(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A dictionary without one of its entries, such as its own checksum."""
    return {key: value for key, value in content.items() if key != name}


# Errors of file systems that pass, above all of those shared over a network.
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ETIMEDOUT}
_PASSING.add(getattr(errno, "ESTALE", errno.EIO))
# Seconds to wait before a file is read again.
_WAITS = (0.1, 0.8, 4.0)


def retried(read: Callable[[], T]) -> T:
    """What a function reads; after an error that may pass, it is called again.

    Args:
        read: the function; it is called up to four times, over five seconds.

    Raises:
        OSError: the error of the last call, or one that does not pass, such as that of
            a missing file.
    """
    for wait in _WAITS:
        try:
            return read()
        except OSError as e:
            if e.errno not in _PASSING:
                raise
            time.sleep(wait)
    return read()


def seal(header: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """A header with the hash of itself and of the arrays that it describes."""
    return {"header": dict(header), "sha256": _sealed(header, arrays)}


def unseal(text: str, arrays: Arrays, version: int) -> dict[str, Any]:
    """The header in the JSON of a `seal`, whose 'format' has to be a given version.

    Raises:
        ValueError: another version, or a header or arrays that have changed.
    """
    whole = json.loads(text)
    header = whole["header"]
    if header["format"] != version:
        raise ValueError(
            f"expected format {version}, got {header['format']}: it was written by "
            "another version of jaxfer"
        )
    if whole["sha256"] != _sealed(header, arrays):
        raise ValueError("its content differs from what was written")
    return header


def _sealed(header: Mapping[str, Any], arrays: Arrays) -> str:
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    return digest({**arrays, "header": text})
