"""Load data sets by name, from their array caches or from their sources."""

import difflib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxfer.data.cache import read_cache
from jaxfer.data.images import Images, read_images, shrunk
from jaxfer.data.lists import read_excluded, read_names
from jaxfer.data.sources import SOURCES, Wanted, check_parts, leave_out
from jaxfer.data.splits import Split


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
    source = SOURCES.get(name)
    own = name if source is None or source.cache is None else source.cache
    return data_directory(directory) / f"{own}.cache"


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
        name: a name in `SOURCES`: 'glyphs' is generated; 'omniglot', 'cifar100',
            'caltech_birds2011' (CUB-200-2011) and 'i_naturalist2017' are as prepared by
            TFDS; 'folder' has one folder of images per class, 'bank' embeddings of
            images. Benchmarks whose classes are divided by lists, such as
            'miniimagenet' and 'cifar_fs', are read from their caches.
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
        data = leave_out(read_cache(cache), _class_names(exclude_classes))
    elif SOURCES[name].listed is not None:
        raise ValueError(
            f"expected {cache.name} in {cache.parent}, got none: write it with `python "
            f"-m jaxfer prepare {name} --to {cache.parent} --source IMAGES --lists DIR`"
        )
    else:
        asked = side if SOURCES[name].side else None
        excluded: Any = dict(exclude=exclude, exclude_classes=exclude_classes)
        data = load_source(name, directory, side=asked, **excluded)
    height, width = data.images.shape[1:3]
    if side is None or (height, width) == (side, side):
        return data
    if SOURCES[name].side:
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
    lists: str | Path | None = None,
) -> Images:
    """Load a whole data set from its source, even if there is a cache.

    Args:
        name: see `load_all`.
        directory: see `load_all`. For 'miniimagenet' and 'tieredimagenet', the folder
            of the images.
        side: side in pixels to which photographs are resized; default: 84 for few-shot
            benchmarks, 256 for others. Only photographs accept a side.
        exclude: see `load_all`.
        exclude_classes: see `load_all`.
        lists: folder with the lists of the classes or the images of each part,
            `train.txt`, `val.txt` and `test.txt` (or .json or .csv), for benchmarks and
            'folder'.

    Raises:
        ValueError: the name is unknown, the data set is missing, `side` or `exclude` is
            given without photographs, no name to leave out exists, or a benchmark has
            other numbers of classes or images than published.
    """
    _check_name(name)
    source = SOURCES[name]
    if source.side is None and (side, exclude) != (None, None):
        raise ValueError(
            "expected side and exclude for photographs only, got "
            f"side = {side} and exclude = {exclude} for {name}"
        )
    if lists is not None and source.listed is None and name != "folder":
        raise ValueError(f"expected no lists for {name}, got {lists}")
    directory = data_directory(directory)
    if source.tfds and not (directory / source.tfds).is_dir():
        raise ValueError(
            f"expected {cache_directory(name).name} or {source.tfds} as TFDS prepares "
            f"it in {directory}, got neither: set --data.dir or $JAXFER_DATA to its "
            f"directory, or prepare it with `python -m jaxfer prepare {name} --to DIR`"
        )
    out = frozenset() if exclude is None else read_excluded(exclude)
    classes = _class_names(exclude_classes)
    listed = None if lists is None else Path(lists)
    size = (source.side or 0) if side is None else side
    data = source.read(Wanted(directory, size, out, classes, listed))
    return check_parts(name, data, exact=not (classes or out))


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
    own = rule or (
        SOURCES[name].by_class if by == "class" else SOURCES[name].by_example
    )
    if own is None:
        divided = [one for one, source in SOURCES.items() if source.by_class]
        raise ValueError(
            f"expected a data set with parts by class, one of {divided}, or a rule for "
            f"other data sets, such as class lists or shares, got {name}"
        )
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


def _check_name(name: str) -> None:
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"expected one of the data sets {[*SOURCES]}, got {name!r}{hint}"
        )
