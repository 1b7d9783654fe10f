"""A labelled image data set, which sources return and splits accept."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxfer.data.view import View, decoding_bar

# Largest number of images, and of bytes of pixels, in a block.
_BLOCK = 4096
_BYTES = 10**8
# The luminance of red, green and blue by ITU-R 601.
LUMINANCE = np.array([0.299, 0.587, 0.114])
# What holds for a whole data set, and not for a subset.
_SUBSET: dict[str, Any] = {"num_train": None, "class_parts": None}


@dataclass(frozen=True)
class Images:
    """Images with their classes, on the host.

    Attributes:
        name: name of the data set or of the split.
        images: uint8 `[n, height, width, channels]`, an array or a view that reads
            images when it is indexed; or float32 features `[n, 1, 1, dim]`.
        labels: int32 `[n]`, from 0 to the number of classes minus 1.
        class_names: one name per class.
        simulated: whether a program generated the data.
        num_train: number of training images in the source, which come first; the others
            are for testing. None if the source does not say, or for a subset.
        class_parts: the classes of 'train', 'val' and 'test', if the source divides its
            classes. None if it does not, or for a subset.
        grouped: whether the classes of an episode are of one superclass, which precedes
            a slash in their names, such as an alphabet of Omniglot.
        origin: fingerprint of the whole data set, if it is too large to read again for
            the fingerprint of a subset.

    Raises:
        ValueError: an array has another rank, type or length, or a label has no name.

    Example:
        >>> images = np.zeros((2, 28, 28, 1), np.uint8)
        >>> Images("blank", images, np.array([0, 1], np.int32), ("a", "b")).num_classes
        2
    """

    name: str
    images: np.ndarray | View
    labels: np.ndarray
    class_names: tuple[str, ...]
    simulated: bool = False
    num_train: int | None = None
    class_parts: Mapping[str, tuple[str, ...]] | None = None
    grouped: bool = False
    origin: str | None = None

    def __post_init__(self) -> None:
        """Check the arrays."""
        images, labels = self.images, self.labels
        features = images.dtype == np.float32 and images.shape[1:3] == (1, 1)
        if images.ndim != 4 or not (images.dtype == np.uint8 or features):
            raise ValueError(
                f"expected uint8 images [n, height, width, channels] in {self.name}, "
                f"got type {images.dtype} and shape {images.shape}"
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.int32:
            raise ValueError(
                f"expected int32 labels [{images.shape[0]}] in {self.name}, got type "
                f"{labels.dtype} and shape {labels.shape}"
            )
        top = int(labels.max(initial=-1))
        if labels.min(initial=0) < 0 or top >= self.num_classes:
            raise ValueError(
                f"expected labels from 0 to {self.num_classes - 1} in {self.name}, got "
                f"{labels.min()} to {top}"
            )

    def __repr__(self) -> str:
        """Name and size: the arrays themselves would fill pages."""
        size = "x".join(map(str, self.images.shape[1:]))
        return (
            f"Images({self.name!r}: {len(self.labels):,} images of "
            f"{self.num_classes:,} classes, {size} pixels)"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of pixels, labels and class names: equal data have equal hashes.

        Published data sets exist in many versions that differ in a resize or an
        inversion. Results are only comparable if their fingerprints agree.
        """
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.labels))
        if self.origin is None:
            for block in self.blocks():
                digest.update(np.ascontiguousarray(block))
            return digest.hexdigest()[:16]
        if not isinstance(self.images, View):
            return self.origin
        # The same subset of the same data set still has the same fingerprint.
        digest.update(repr((self.origin, self.images.transposed)).encode())
        digest.update(np.ascontiguousarray(self.images.rows))
        digest.update(np.ascontiguousarray(self.images.turns))
        return digest.hexdigest()[:16]

    def blocks(self) -> Iterator[np.ndarray]:
        """The images in blocks of at most 4096 images, each read when needed."""
        images, count = self.images, len(self.images)
        block = max(1, min(_BLOCK, _BYTES // math.prod(images.shape[1:])))
        starts = range(0, count, block)
        if isinstance(images, np.ndarray):
            yield from (images[start : start + block] for start in starts)
            return
        with decoding_bar(images) as bar:
            for start in starts:
                rows = np.arange(start, min(start + block, count))
                yield images.take(rows).read()
                bar.update(len(rows))

    def in_memory(self, *, workers: int | None = None) -> "Images":
        """The same data set, with all images read into one array.

        Args:
            workers: number of threads that decode; default: one per CPU.
        """
        images = View.of(self.images).read(workers=workers, bar=True)
        return replace(self, images=images, origin=None)

    def take(self, rows: np.ndarray, *, name: str) -> "Images":
        """A subset of the images; all classes keep their numbers and names."""
        images = View.of(self.images).take(rows)
        labels = self.labels[rows]
        return replace(self, name=name, images=images, labels=labels, **_SUBSET)

    def take_classes(self, chosen: Iterable[str], *, name: str) -> "Images":
        """The images of some classes, renumbered in the order of `chosen`.

        Args:
            chosen: class names.
            name: name of the subset.

        Raises:
            ValueError: a class does not exist, or is named twice.
        """
        chosen = tuple(chosen)
        number = {name: i for i, name in enumerate(self.class_names)}
        if unknown := [c for c in chosen if c not in number]:
            raise ValueError(
                f"{name}: {len(unknown)} classes are not in {self.name}, such as "
                f"{unknown[:3]}; it has {self.num_classes}, such as "
                f"{list(self.class_names[:3])}"
            )
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"{name}: a class is named twice")
        new = np.full(self.num_classes, -1, np.int32)
        new[[number[c] for c in chosen]] = np.arange(len(chosen), dtype=np.int32)
        labels = new[self.labels]
        keep = np.flatnonzero(labels >= 0)
        return replace(
            self,
            name=name,
            images=View.of(self.images).take(keep),
            labels=labels[keep],
            class_names=chosen,
            **_SUBSET,
        )


def rotations(data: Images) -> Images:
    """Every class four times: rotated by 0, 90, 180 and 270 degrees.

    A rotated character is another class (Snell et al. 2017, section 3.1), named
    "…/rot090" and so on. The four classes of one character are adjacent.

    Raises:
        ValueError: the images are not square.
    """
    n = len(data.images)
    four = View.of(data.images).take(np.repeat(np.arange(n), 4))
    return replace(
        data,
        images=four.turned(np.tile(np.arange(4), n)),
        labels=(data.labels[:, None] * 4 + np.arange(4, dtype=np.int32)).reshape(-1),
        class_names=tuple(
            f"{c}/rot{90 * k:03d}" for c in data.class_names for k in range(4)
        ),
        **_SUBSET,
    )


def shrunk(data: Images, side: int) -> Images:
    """Shrink images; each new pixel is the mean of the pixels it covers.

    Args:
        data: square images.
        side: side of the new images in pixels; must divide the old one.

    Returns:
        The data set, read into memory.

    Raises:
        ValueError: `side` does not divide height and width.

    Example:
        >>> image = np.full((1, 4, 4, 1), 8, np.uint8)
        >>> data = Images("grey", image, np.zeros(1, np.int32), ("a",))
        >>> shrunk(data, 2).images.ravel().tolist()
        [8, 8, 8, 8]
    """
    n, height, width, channels = data.images.shape
    if side < 1 or height % side or width % side:
        raise ValueError(
            f"expected a side that divides the {height}x{width} images of {data.name}, "
            f"got {side}"
        )
    cells = (side, height // side, side, width // side, channels)
    small = [
        np.rint(block.reshape(len(block), *cells).mean((2, 4))).astype(np.uint8)
        for block in data.blocks()
    ]
    return replace(data, images=np.concatenate(small), origin=None)


def greyscale(data: Images) -> Images:
    """Convert images to one channel, the luminance of ITU-R 601.

    Args:
        data: images with three channels; images with one channel are unchanged.

    Returns:
        The data set, read into memory.

    Raises:
        ValueError: the images have another number of channels.

    Example:
        >>> image = np.full((1, 1, 1, 3), 8, np.uint8)
        >>> data = Images("grey", image, np.zeros(1, np.int32), ("a",))
        >>> greyscale(data).images.tolist()
        [[[[8]]]]
    """
    channels = data.images.shape[-1]
    if channels == 1:
        return data
    if channels != 3:
        raise ValueError(f"expected 3 channels in {data.name}, got {channels}")
    grey = [np.rint(block @ LUMINANCE).astype(np.uint8) for block in data.blocks()]
    return replace(data, images=np.concatenate(grey)[..., None], origin=None)


def read_images(
    parts: Mapping[str, Images],
    *,
    limit: float = math.inf,
    workers: int | None = None,
) -> dict[str, Images]:
    """Read the images of parts into memory, each stored image once.

    Parts may share images, as `train` and `trainval` do, or have each of them several
    times, as rotations do.

    Args:
        parts: parts of a data set.
        limit: largest number of bytes to read; larger data sets stay as they are.
        workers: number of threads that decode; default: one per CPU.

    Example:
        >>> images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
        >>> data = Images("three", images, np.zeros(3, np.int32), ("a",))
        >>> parts = {"two": data.take(np.array([2, 0]), name="two")}
        >>> read_images(parts)["two"].images.ravel().tolist()
        [2, 0]
    """
    views = {name: View.of(part.images) for name, part in parts.items()}
    if not views:
        return {}
    if len({id(view.store) for view in views.values()}) > 1:
        each = [{name: part} for name, part in parts.items()]
        alone = [read_images(one, limit=limit, workers=workers) for one in each]
        return {name: part for one in alone for name, part in one.items()}
    every = np.concatenate([view.rows for view in views.values()])
    rows, places = np.unique(every, return_inverse=True)
    if len(rows) == len(every):
        # No image is needed twice: in this order, each part is a slice.
        rows, places = every, np.arange(len(every))
    stored = View.of(next(iter(views.values())).store).take(rows)
    if stored.nbytes > limit:
        return dict(parts)
    array, found, start = stored.read(workers=workers, bar=True), {}, 0
    for name, view in views.items():
        at = places[start : start + len(view)]
        images = _plain(replace(view, store=array, rows=at))
        found[name] = replace(parts[name], images=images, origin=None)
        start += len(view)
    return found


def _plain(view: View) -> np.ndarray | View:
    """The array that a view is a slice of, or the view."""
    rows = view.rows
    if view.transposed or view.turns.any() or (np.diff(rows) != 1).any():
        return view
    return view.store[slice(rows[0], rows[-1] + 1)] if len(rows) else view
