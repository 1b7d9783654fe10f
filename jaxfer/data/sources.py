"""Data sets by name."""

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxfer.data.bank import load_bank
from jaxfer.data.cache import read_cache
from jaxfer.data.cifar import cifar100
from jaxfer.data.class_splits import BY_CLASS
from jaxfer.data.folders import folder_of_classes, image_folder
from jaxfer.data.glyphs import glyphs
from jaxfer.data.images import Images, read_images, shrunk
from jaxfer.data.lists import read_excluded, read_names, without_classes
from jaxfer.data.omniglot import omniglot
from jaxfer.data.photos import RECORDS, SIDE, tfds_photos
from jaxfer.data.splits import BY_EXAMPLE, Split

NAMES = (
    "bank",
    "caltech_birds2011",
    "cifar100",
    "folder",
    "glyphs",
    "i_naturalist2017",
    "omniglot",
)
_PHOTOGRAPHS = (*RECORDS, "folder")


def data_directory(directory: str | Path | None = None) -> Path:
    """The data directory: as given, else `$JAXFER_DATA`, else the TFDS default.

    Example:
        >>> data_directory("some/where").name
        'where'
    """
    told = directory or os.environ.get("JAXFER_DATA") or os.environ.get("TFDS_DATA_DIR")
    return Path(told or "~/tensorflow_datasets").expanduser()


def cache_directory(name: str, directory: str | Path | None = None) -> Path:
    """The directory of the array cache of a data set.

    Example:
        >>> cache_directory("omniglot", "some/where").name
        'omniglot.cache'
    """
    return data_directory(directory) / f"{name}.cache"


def load_all(
    name: str,
    directory: str | Path | None = None,
    *,
    side: int | None = None,
    exclude: str | Path | None = None,
    exclude_classes: Sequence[str] = (),
) -> Images:
    """Load a whole data set, from its array cache if there is one.

    Args:
        name: 'glyphs', which is generated; 'omniglot', 'cifar100', 'caltech_birds2011'
            (CUB-200-2011) or 'i_naturalist2017', as prepared by TFDS; 'folder', with
            one folder of images per class; or 'bank', with embeddings of images.
        directory: see `data_directory`; for 'folder', the folder itself, and for
            'bank' the path of its file (see `load_bank`).
        side: side of the images in pixels. Photographs are resized (default: 256),
            other images are shrunk (default: unchanged). A cache of photographs has the
            side it was written with.
        exclude: file that names photographs to leave out (see `read_excluded`).
        exclude_classes: classes to leave out: their names, or paths of lists that end
            in .txt or .json (see `read_names`). Other names are counted in a printed
            line.

    Raises:
        ValueError: the name is unknown, the data set is missing, a cache of photographs
            has another side, other images cannot be shrunk to `side`, `exclude` is
            given for a cache (which has no file names) or without photographs, or no
            name to leave out exists.
    """
    _check_name(name)
    cache = cache_directory(name, directory)
    if cache.exists():
        if exclude is not None:
            raise ValueError(
                f"expected no exclude for the cache {cache}, got {exclude}: write the "
                "cache without these files with python -m jaxfer prepare --exclude"
            )
        data = _without_classes(read_cache(cache), _class_names(exclude_classes))
    else:
        asked = side if name in _PHOTOGRAPHS else None
        excluded: Any = dict(exclude=exclude, exclude_classes=exclude_classes)
        data = load_source(name, directory, side=asked, **excluded)
    height, width = data.images.shape[1:3]
    if side is None or (height, width) == (side, side):
        return data
    if name in _PHOTOGRAPHS:
        raise ValueError(
            f"expected side = {side} in {cache}, got {height}x{width} images: write it "
            f"with `python -m jaxfer prepare {name} --to DIR --side {side}`"
        )
    return shrunk(data, side)


def load_source(
    name: str,
    directory: str | Path | None = None,
    *,
    side: int | None = None,
    exclude: str | Path | None = None,
    exclude_classes: Sequence[str] = (),
) -> Images:
    """Load a whole data set from its source, even if there is a cache.

    Args:
        name: see `load_all`.
        directory: see `load_all`.
        side: side in pixels to which photographs are resized; default: 256. Only
            photographs accept a side.
        exclude: see `load_all`.
        exclude_classes: see `load_all`.

    Raises:
        ValueError: the name is unknown, the data set is missing, `side` or `exclude` is
            given without photographs, or no name to leave out exists.
    """
    _check_name(name)
    if name not in _PHOTOGRAPHS and (side, exclude) != (None, None):
        raise ValueError(
            "expected side and exclude for photographs only, got "
            f"side = {side} and exclude = {exclude} for {name}"
        )
    classes = _class_names(exclude_classes)
    if name == "glyphs":
        return _without_classes(glyphs(), classes)
    size, out = _photo_options(side, exclude)
    directory = data_directory(directory)
    if name == "bank":
        return _without_classes(load_bank(directory).images(directory.stem), classes)
    if name == "folder":
        return image_folder(directory, size, out, classes)
    if not (directory / name).is_dir():
        raise ValueError(
            f"expected {name}.cache or {name} as TFDS prepares it in {directory}, got "
            "neither: set --data.dir or $JAXFER_DATA to its directory, or prepare it "
            f"with `python -m jaxfer prepare {name} --to DIR`"
        )
    if name in RECORDS:
        return _without_classes(tfds_photos(name, directory, size, out), classes)
    data = {"cifar100": cifar100, "omniglot": omniglot}[name](directory)
    return _without_classes(data, classes)


def load(
    name: str,
    splits: Sequence[str],
    directory: str | Path | None = None,
    *,
    by: Literal["class", "example"] = "class",
    rule: Split | None = None,
    limit: float = math.inf,
    side: int | None = None,
    exclude: str | Path | None = None,
    exclude_classes: Sequence[str] = (),
) -> dict[str, Images]:
    """Load parts of a data set.

    Args:
        name: name of the data set (see `load_all`).
        splits: any of 'train', 'val', 'trainval' and 'test'.
        directory: see `data_directory`.
        by: 'class' if the parts have different classes, 'example' if they have
            different examples of the same classes.
        rule: a function of the whole data set and a split that returns the part, such
            as `class_lists(directory)`; default: the data set's own.
        limit: size in bytes of the images that are read into memory; larger data sets
            are decoded during use. With 0 nothing is read.
        side: see `load_all`.
        exclude: see `load_all`.
        exclude_classes: see `load_all`.

    Raises:
        ValueError: any error of `load_all`, the split or `by` is unknown, or the data
            set has no such parts.
    """
    _check_name(name)
    if isinstance(splits, str):
        raise ValueError(f"expected a list of splits, got the string {splits!r}")
    if by not in ("class", "example"):
        raise ValueError(f"expected by = 'class' or 'example', got {by!r}")
    rules = BY_CLASS if by == "class" else BY_EXAMPLE
    own = rule or rules.get(name)
    if own is None:
        raise ValueError(
            f"expected a data set with parts by {by}, one of {[*rules]}, or a rule for "
            f"other data sets, such as class lists or shares, got {name}"
        )
    cached = cache_directory(name, directory).exists()
    if name == "folder" and by == "class" and rule is None and not cached:
        size, out = _photo_options(side, exclude)
        classes = _class_names(exclude_classes)
        place = data_directory(directory)
        parts = folder_of_classes(place, splits, size, out, classes)
    else:
        excluded: Any = dict(exclude=exclude, exclude_classes=exclude_classes)
        data = load_all(name, directory, side=side, **excluded)
        parts = {split: own(data, split) for split in splits}
    return read_images(parts, limit=limit)


def _class_names(given: Sequence[str]) -> list[str]:
    """The names in a list of classes, or in the lists that it names."""
    read = [
        read_names(entry) if Path(entry).suffix in (".txt", ".json") else [entry]
        for entry in given
    ]
    return [name for names in read for name in names]


def _without_classes(data: Images, names: Sequence[str]) -> Images:
    """The data set without some classes, with its training images still first."""
    if not names:
        return data
    kept = without_classes(data.class_names, names, data=data.name)
    first = None
    if data.num_train is not None:
        first = np.isin(data.class_names, kept)[data.labels[: data.num_train]].sum()
    rest = data.take_classes(kept, name=data.name)
    return replace(rest, num_train=first and int(first))


def _photo_options(
    side: int | None, exclude: str | Path | None
) -> tuple[int, frozenset[str]]:
    """The side of photographs, and the names of files to leave out."""
    out = frozenset() if exclude is None else read_excluded(exclude)
    return SIDE if side is None else side, out


def _check_name(name: str) -> None:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected one of the data sets {NAMES}, got {name!r}{hint}")
