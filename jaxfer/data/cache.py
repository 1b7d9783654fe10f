"""The array cache: a data set as memory-mapped .npy files with a fingerprint.

Starting from it takes no decoding and neither tensorflow-datasets nor Grain, so it is
also how data travel to a machine that has neither.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.data.images import Images

FORMAT = 3
# Bytes of pixels above which a cache is not read through to see whether it is whole.
_TRUSTED = 8e9
_FILES = {"images.npy", "labels.npy", "meta.json"}


def write_cache(data: Images, directory: str | Path) -> Path:
    """Write a data set's arrays; an older cache at the same place is replaced.

    Args:
        data: the images.
        directory: the cache's own folder, made where it is missing.

    Returns:
        The folder.

    Raises:
        ValueError: a folder that is there and holds something else.
    """
    directory = Path(directory)
    there = {path.name for path in directory.glob("*")} if directory.exists() else set()
    if not there <= _FILES:
        raise ValueError(
            f"{directory} is there and is not a cache (found {sorted(there)[:3]}): "
            "not replaced"
        )
    # Made whole beside its place and moved there: a reader never meets half a cache.
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
    data.read_into(file)
    file.flush()
    # Of what was written, which is read again faster than decoded again.
    fingerprint = replace(data, images=file).fingerprint
    np.save(folder / "labels.npy", data.labels)
    meta = {
        "format": FORMAT,
        "name": data.name,
        "simulated": data.simulated,
        "num_train": data.num_train,
        "shape": data.images.shape,
        "fingerprint": fingerprint,
        "class_names": data.class_names,
    }
    (folder / "meta.json").write_text(json.dumps(meta))


def read_cache(directory: str | Path) -> Images:
    """The data set of a cache, images memory-mapped, its fingerprint checked.

    The fingerprint of one above 8 GB is taken as it was written: to check it takes
    minutes.

    Args:
        directory: the folder `write_cache` wrote.

    Raises:
        ValueError: a file that is missing, truncated or not what was written.
    """
    directory = Path(directory)
    remedy = "write it anew with tools/prepare_data.py"
    try:
        meta = json.loads((directory / "meta.json").read_text())
        if meta["format"] != FORMAT:
            raise ValueError(f"found format {meta['format']}, needed {FORMAT}")
        data = Images(
            name=meta["name"],
            images=np.load(directory / "images.npy", mmap_mode="r"),
            labels=np.load(directory / "labels.npy"),
            class_names=tuple(meta["class_names"]),
            simulated=meta["simulated"],
            num_train=meta["num_train"],
        )
        if data.images.nbytes > _TRUSTED:
            data = replace(data, origin=meta["fingerprint"])
    except (OSError, EOFError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f"the cache {directory} is damaged ({e}): {remedy}") from e
    if data.fingerprint != meta["fingerprint"]:
        raise ValueError(
            f"the cache {directory} is damaged (found fingerprint {data.fingerprint}, "
            f"needed {meta['fingerprint']}): {remedy}"
        )
    return data
