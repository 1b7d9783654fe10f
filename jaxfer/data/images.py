"""A labelled image data set: what every source gives and every split takes."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from tqdm.auto import tqdm

from jaxfer.data.view import View

# Images, and bytes of pixels, that are read at a time.
_BLOCK = 4096
_BYTES = 10**8


@dataclass(frozen=True)
class Images:
    """Images with their classes, on the host.

    Attributes:
        name: of the data set, and of the split once one is taken.
        images: uint8 `[n, height, width, channels]`, an array or a view of what is
            read when it is asked for.
        labels: int32 `[n]`, 0 to the number of classes - 1.
        class_names: one a class.
        simulated: whether the data are made up by a program.
        num_train: how many of the images, the first ones, their source has for
            training, the others for testing; None where it says nothing, or for a part.
        origin: fingerprint of the whole, where it is too large to be read through for
            that of a part.

    Raises:
        ValueError: arrays of another rank, type or length, or labels without a name.

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
    origin: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is not images with labels."""
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(
                f"found images of shape {images.shape} and type {images.dtype} in "
                f"{self.name}, needed uint8 [n, height, width, channels]"
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.int32:
            raise ValueError(
                f"found labels of shape {labels.shape} and type {labels.dtype} in "
                f"{self.name}, needed int32 [{images.shape[0]}]"
            )
        top = int(labels.max(initial=-1))
        if labels.min(initial=0) < 0 or top >= self.num_classes:
            raise ValueError(
                f"found labels from {labels.min()} to {top} in {self.name}, "
                f"needed 0 to {self.num_classes - 1}"
            )

    @property
    def num_classes(self) -> int:
        """How many classes have a name."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of pixels, labels and class names: the same data, the same word.

        Published sets exist in many versions that differ in a resize or an inversion;
        results are only comparable where this agrees.
        """
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.labels))
        if self.origin is None:
            for block in self.blocks():
                digest.update(np.ascontiguousarray(block))
            return digest.hexdigest()[:16]
        if not isinstance(self.images, View):
            return self.origin
        # The same images of the same whole have the same word still.
        digest.update(repr((self.origin, self.images.transposed)).encode())
        digest.update(np.ascontiguousarray(self.images.rows))
        digest.update(np.ascontiguousarray(self.images.turns))
        return digest.hexdigest()[:16]

    def blocks(self) -> Iterator[np.ndarray]:
        """The images, some thousands at a time at most, read as they are asked for."""
        block = max(1, min(_BLOCK, _BYTES // math.prod(self.images.shape[1:])))
        for start in range(0, len(self.images), block):
            yield self.images[start : start + block]

    def in_memory(self) -> "Images":
        """The same data set with its images read, once, into one array."""
        images = np.empty(self.images.shape, np.uint8)
        self.read_into(images)
        return replace(self, images=images, origin=None)

    def read_into(self, array: np.ndarray) -> None:
        """All images, read once, into an array of their shape."""
        done = 0
        with tqdm(desc=f"reading {self.name}", total=len(array), leave=False) as bar:
            for block in self.blocks():
                array[done : done + len(block)] = block
                done += len(block)
                bar.update(len(block))

    def take(self, rows: np.ndarray, *, name: str) -> "Images":
        """Some of the images, of all classes as they were."""
        images = View.of(self.images).take(rows)
        labels = self.labels[rows]
        return replace(self, name=name, images=images, labels=labels, num_train=None)

    def take_classes(self, chosen: Iterable[str], *, name: str) -> "Images":
        """The images of some classes, renumbered in the order they are named.

        Args:
            chosen: class names.
            name: of the part.

        Raises:
            ValueError: a class that is not there, or is named twice.
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
            num_train=None,
        )


def rotations(data: Images) -> Images:
    """Every class four times: upright and turned by 90, 180 and 270 degrees.

    A turned character is another class (Snell et al. 2017, section 3.1), named
    "…/rot090" and so on; the four of one character stand side by side.

    Raises:
        ValueError: images that are not square.
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
        num_train=None,
    )


def shrunk(data: Images, side: int) -> Images:
    """Every image at another size, each new pixel the mean of those it covers.

    Args:
        data: square images.
        side: of the new ones, a divisor of the old ones'.

    Returns:
        The data set, read into memory.

    Raises:
        ValueError: a side that does not divide.

    Example:
        >>> image = np.full((1, 4, 4, 1), 8, np.uint8)
        >>> data = Images("grey", image, np.zeros(1, np.int32), ("a",))
        >>> shrunk(data, 2).images.ravel().tolist()
        [8, 8, 8, 8]
    """
    n, height, width, channels = data.images.shape
    if side < 1 or height % side or width % side:
        raise ValueError(
            f"found {height}x{width} images in {data.name} and side {side}, needed a "
            "divisor of both"
        )
    cells = (side, height // side, side, width // side, channels)
    small = [
        np.rint(block.reshape(len(block), *cells).mean((2, 4))).astype(np.uint8)
        for block in data.blocks()
    ]
    return replace(data, images=np.concatenate(small), origin=None)


def greyscale(data: Images) -> Images:
    """Every image in one channel, its luminance by ITU-R 601.

    Args:
        data: images of three channels; those of one are unchanged.

    Returns:
        The data set, read into memory.

    Raises:
        ValueError: images of another number of channels.

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
    weights = np.array([0.299, 0.587, 0.114])
    grey = [np.rint(block @ weights).astype(np.uint8) for block in data.blocks()]
    return replace(data, images=np.concatenate(grey)[..., None], origin=None)
