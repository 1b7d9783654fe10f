"""The array cache: a data set as memory-mapped .npy files with a fingerprint.

Loading a cache decodes nothing and needs neither tensorflow-datasets nor Grain, so a
cache is also the way to copy data to a machine that has neither.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from jaxfer.data.images import Images
from jaxfer.data.view import View
from jaxfer.tensors import json_digest, without

FORMAT = 3
# Above this many bytes of pixels, the fingerprint of a cache is not verified.
_TRUSTED = 8e9
_FILES = {"images.npy", "labels.npy", "meta.json"}
_DAMAGE = (OSError, EOFError, AttributeError, KeyError, TypeError, ValueError)


def write_cache(data: Images, directory: str | Path) -> Path:
    """Write a data set as a cache, and replace an older cache in the same directory.

    Args:
        data: data set to write.
        directory: directory of the cache; created if missing.

    Returns:
        The directory of the cache.

    Raises:
        ValueError: the directory exists and contains other files.
    """
    directory = Path(directory)
    there = {path.name for path in directory.glob("*")} if directory.exists() else set()
    if not there <= _FILES:
        raise ValueError(
            f"expected a new directory or a cache to replace at {directory}, got a "
            f"directory with {sorted(there)[:3]}: choose another directory"
        )
    # Write beside the target, then rename: a reader never sees an incomplete cache.
    partial = directory.with_name(f"{directory.name}.{os.getpid()}.partial")
    aside = directory.with_name(f"{directory.name}.{os.getpid()}.old")
    partial.mkdir(parents=True)
    try:
        _write(data, partial)
    except BaseException:
        shutil.rmtree(partial)
        raise
    if directory.exists():
        directory.rename(aside)
    partial.rename(directory)
    shutil.rmtree(aside, ignore_errors=True)
    return directory


def _write(data: Images, folder: Path) -> None:
    shape: Any = data.images.shape
    file = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    View.of(data.images).read_into(file, bar=True)
    file.flush()
    # Hash the written file: reading it again is faster than decoding again.
    fingerprint = replace(data, images=file).fingerprint
    np.save(folder / "labels.npy", data.labels)
    meta = {
        "format": FORMAT,
        "name": data.name,
        "simulated": data.simulated,
        "num_train": data.num_train,
        "class_parts": data.class_parts and dict(data.class_parts),
        "shape": data.images.shape,
        "fingerprint": fingerprint,
        "class_names": data.class_names,
    }
    meta["sha256"] = json_digest(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def read_cache(directory: str | Path) -> Images:
    """Read a cache: memory-map its images and verify its fingerprint.

    Above 8 GB the stored fingerprint is trusted, because verifying it takes minutes.

    Args:
        directory: directory written by `write_cache`.

    Raises:
        ValueError: a file is missing, truncated or changed since it was written.
    """
    directory = Path(directory)
    remedy = "write it again with python -m jaxfer prepare"
    try:
        meta = json.loads((directory / "meta.json").read_text())
        if meta["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {meta['format']}")
        # Caches of earlier versions have no checksum.
        found = json_digest(without(meta, "sha256"))
        if meta.get("sha256", found) != found:
            raise ValueError("meta.json differs from what was written")
        parts = meta.get("class_parts")
        data = Images(
            name=meta["name"],
            images=np.load(directory / "images.npy", mmap_mode="r"),
            labels=np.load(directory / "labels.npy"),
            class_names=tuple(meta["class_names"]),
            simulated=meta["simulated"],
            num_train=meta["num_train"],
            class_parts=parts and {part: tuple(own) for part, own in parts.items()},
        )
        if data.images.nbytes > _TRUSTED:
            data = replace(data, origin=meta["fingerprint"])
    # NumPy parses the headers of damaged files as if they were Python.
    except (*_DAMAGE, SyntaxError, TokenError) as e:
        raise ValueError(f"the cache {directory} is damaged ({e}): {remedy}") from e
    if data.fingerprint != meta["fingerprint"]:
        raise ValueError(
            f"the cache {directory} is damaged (expected fingerprint "
            f"{meta['fingerprint']}, got {data.fingerprint}): {remedy}"
        )
    return data
