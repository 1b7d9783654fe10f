"""Data sets by name, and from arrays."""

import difflib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Integer, Num

from jaxfer.data.cache import read_cache
from jaxfer.data.cifar import cifar100
from jaxfer.data.folders import folder_of_classes, image_folder
from jaxfer.data.glyphs import glyphs
from jaxfer.data.images import Images, shrunk
from jaxfer.data.omniglot import omniglot
from jaxfer.data.photos import RECORDS, SIDE, read_excluded, tfds_photos
from jaxfer.data.splits import BY_CLASS, BY_EXAMPLE
from jaxfer.data.view import View

NAMES = (
    "caltech_birds2011",
    "cifar100",
    "folder",
    "glyphs",
    "i_naturalist2017",
    "omniglot",
)
_PHOTOGRAPHS = (*RECORDS, "folder")
# Classes that are numbered without names: a mistaken label of 2**30 is no class.
_MOST_CLASSES = 2**20


def data_directory(directory: str | Path | None = None) -> Path:
    """Where data sets lie: as told, else `$JAXFER_DATA`, else where TFDS keeps them.

    Example:
        >>> data_directory("some/where").name
        'where'
    """
    told = directory or os.environ.get("JAXFER_DATA") or os.environ.get("TFDS_DATA_DIR")
    return Path(told or "~/tensorflow_datasets").expanduser()


def cache_directory(name: str, directory: str | Path | None = None) -> Path:
    """Where the array cache of a data set is looked for.

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
) -> Images:
    """A whole data set: from its array cache where there is one, else from its source.

    Args:
        name: 'glyphs', which is drawn on the spot; 'omniglot', 'cifar100',
            'caltech_birds2011' (CUB-200-2011) or 'i_naturalist2017', which TFDS has
            prepared; 'folder', a folder of images a class.
        directory: see `data_directory`; the folder itself.
        side: pixels a side of the images: photographs are resized to it (256, unless
            given), others shrunk. A cache has the side it was written with.
        exclude: a file that names photographs to leave out (see `read_excluded`).

    Raises:
        ValueError: an unknown name, a data set that is not there, a side that a cache
            of photographs does not have or others cannot be shrunk to, or something to
            leave out of what is not photographs, or of a cache, which does not know
            the names of files.
    """
    _check_name(name)
    cache = cache_directory(name, directory)
    if cache.exists():
        if exclude is not None:
            raise ValueError(
                f"found the cache {cache} and {exclude} to leave out, needed a cache "
                "written without them: tools/prepare_data.py --exclude"
            )
        data = read_cache(cache)
    else:
        asked = side if name in _PHOTOGRAPHS else None
        data = load_source(name, directory, side=asked, exclude=exclude)
    height, width = data.images.shape[1:3]
    if side is None or (height, width) == (side, side):
        return data
    if name in _PHOTOGRAPHS:
        raise ValueError(
            f"found {height}x{width} images in {cache}, needed side = {side}: write it "
            f"with `python tools/prepare_data.py {name} --to DIR --side {side}`"
        )
    return shrunk(data, side)


def load_source(
    name: str,
    directory: str | Path | None = None,
    *,
    side: int | None = None,
    exclude: str | Path | None = None,
) -> Images:
    """A whole data set from its source, whether or not there is a cache.

    Args:
        name: see `load_all`.
        directory: where TFDS has prepared it; the folder itself.
        side: to resize photographs to, 256 unless given; others have none.
        exclude: see `load_all`.

    Raises:
        ValueError: an unknown name, a data set that is not there, or a side or
            something to leave out for what is not photographs.
    """
    _check_name(name)
    if name not in _PHOTOGRAPHS and (side, exclude) != (None, None):
        raise ValueError(
            f"found side = {side} and exclude = {exclude} for {name}, needed "
            "photographs"
        )
    size, out = _photo_options(side, exclude)
    if name == "glyphs":
        return glyphs()
    directory = data_directory(directory)
    if name == "folder":
        return image_folder(directory, size, out)
    if not (directory / name).is_dir():
        raise ValueError(
            f"found neither {name}.cache nor {name} as TFDS prepares it in {directory},"
            " needed one of them: say where it is with --data.dir or $JAXFER_DATA, or "
            f"prepare it with `python tools/prepare_data.py {name} --to DIR`"
        )
    if name in RECORDS:
        return tfds_photos(name, directory, size, out)
    return {"cifar100": cifar100, "omniglot": omniglot}[name](directory)


def load(
    name: str,
    splits: Sequence[str],
    directory: str | Path | None = None,
    *,
    by: Literal["class", "example"] = "class",
    limit: float = math.inf,
    side: int | None = None,
    exclude: str | Path | None = None,
) -> dict[str, Images]:
    """Parts of a data set.

    Args:
        name: of the data set (see `load_all`).
        splits: any of 'train', 'val', 'trainval' and 'test'.
        directory: see `data_directory`.
        by: 'class' if the parts have different classes, 'example' if they have
            different examples of the same classes.
        limit: in bytes of pixels. A data set of encoded images up to this size is
            decoded once, into memory; a larger one is decoded while it is used.
        side: see `load_all`.
        exclude: see `load_all`.

    Raises:
        ValueError: what `load_all` refuses, an unknown split or `by`, or a data set
            without such parts.
    """
    _check_name(name)
    if isinstance(splits, str):
        raise ValueError(f"expected a list of splits, got the string {splits!r}")
    if by not in ("class", "example"):
        raise ValueError(f"expected by = 'class' or 'example', got {by!r}")
    rules = BY_CLASS if by == "class" else BY_EXAMPLE
    if name not in rules:
        raise ValueError(
            f"expected a data set with parts by {by}, one of {[*rules]}, got {name}"
        )
    if name == "folder" and by == "class":
        options = _photo_options(side, exclude)
        parts = folder_of_classes(data_directory(directory), splits, *options)
        if parts:
            return {split: _held(part, limit) for split, part in parts.items()}
    data = _held(load_all(name, directory, side=side, exclude=exclude), limit)
    return {split: rules[name](data, split) for split in splits}


def _held(data: Images, limit: float) -> Images:
    """The data set in memory, where it is to be decoded and is not above the limit."""
    if isinstance(data.images, View) and data.images.nbytes <= limit:
        return data.in_memory()
    return data


def _photo_options(
    side: int | None, exclude: str | Path | None
) -> tuple[int, frozenset[str]]:
    """The side of photographs, and the names of those to leave out."""
    out = frozenset() if exclude is None else read_excluded(exclude)
    return SIDE if side is None else side, out


def from_arrays(
    images: Num[np.ndarray, "..."],
    labels: Integer[np.ndarray, "..."],
    *,
    name: str = "arrays",
    class_names: Sequence[str] | None = None,
) -> Images:
    """A data set from your own arrays.

    Args:
        images: `[n, height, width, channels]`, or `[n, height, width]` for one
            channel; uint8 from 0 to 255, or floating from 0 to 1.
        labels: `[n]`, integers from 0 to the number of classes - 1.
        name: of the data set.
        class_names: one per class; default: the numbers from 0 to the highest label.

    Raises:
        ValueError: another rank, shape or type; a label outside the classes; or pixels
            that are NaN or out of range. The message names the first such image.

    Example:
        >>> from_arrays(np.zeros((2, 28, 28)), np.array([0, 1])).images.shape
        (2, 28, 28, 1)
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            "expected images of shape [n, height, width] or [n, height, width, "
            f"channels], all at least 1, got {images.shape}"
        )
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != images.shape[:1] or not whole:
        raise ValueError(
            f"expected integer labels of shape ({len(images)},), one per image, got "
            f"shape {labels.shape} and type {labels.dtype}"
        )
    most = _MOST_CLASSES if class_names is None else len(class_names)
    bad = (labels < 0) | (labels >= most)
    if bad.any():
        i = int(np.argmax(bad))
        names = "" if class_names is not None else "; more need class_names"
        raise ValueError(
            f"expected labels from 0 to {most - 1}{names}, got {labels[i]} for image "
            f"{i}"
        )
    if images.ndim == 3:
        images = images[..., None]
    if np.issubdtype(images.dtype, np.floating):
        images = _quantize(images)
    elif images.dtype != np.uint8:
        raise ValueError(
            "expected images of type uint8 from 0 to 255 or floating from 0 to 1, got "
            f"{images.dtype}"
        )
    if class_names is None:
        class_names = [str(c) for c in range(int(labels.max()) + 1)]
    return Images(name, images, labels.astype(np.int32), tuple(class_names))


def _quantize(images: np.ndarray) -> np.ndarray:
    good = ((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))
    if not good.all():
        worst = int(np.argmin(good))
        low, high = images[worst].min(), images[worst].max()
        raise ValueError(
            "expected floating pixels from 0 to 1 without NaN, got pixels from "
            f"{low} to {high} in image {worst}"
        )
    return np.round(images * 255).astype(np.uint8)


def _check_name(name: str) -> None:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"found data set {name!r}, needed one of {NAMES}{hint}")
