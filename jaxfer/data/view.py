"""Images that are read when they are indexed."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer, UInt8
from tqdm.auto import tqdm

# Images that a thread reads at a time.
_PIECE = 32


@runtime_checkable
class Store(Protocol):
    """Images in memory or on disk: a NumPy array, or an object that reads images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all images, `(n, height, width, channels)`."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """The uint8 images at an array of row numbers, in a new array.

        Callers may keep this array and change it in place.
        """
        ...


@dataclass(frozen=True)
class View:
    """Selected and rotated images of a store, as an array that is read when indexed.

    Selection and rotation change row numbers and turns only, so a part of a data set
    takes no memory for pixels, whether they are in memory or on disk. A view does not
    need JAX.

    Attributes:
        store: the stored images.
        rows: row number of each image in the store.
        turns: counter-clockwise rotations of each image, in units of 90 degrees.
        transposed: whether height and width are swapped after the rotation.

    Example:
        >>> view = View.of(np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1))
        >>> view.take(np.array([1])).turned(np.array([1]))[0].tolist()
        [[[5], [7]], [[4], [6]]]
    """

    store: np.ndarray | Store
    rows: Int[np.ndarray, " n"]
    turns: UInt8[np.ndarray, " n"]
    transposed: bool = False

    @classmethod
    def of(cls, images: "np.ndarray | Store | View") -> "View":
        """A view of all images of a store, unchanged."""
        if isinstance(images, View):
            return images
        n = images.shape[0]
        return cls(images, np.arange(n), np.zeros(n, np.uint8))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array, `(n, height, width, channels)`."""
        height, width, channels = self.store.shape[1:]
        if self.transposed:
            height, width = width, height
        return len(self.rows), height, width, channels

    @property
    def ndim(self) -> int:
        """The number of axes, which is 4."""
        return len(self.store.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of the pixels."""
        return np.dtype(getattr(self.store, "dtype", np.uint8))

    @property
    def nbytes(self) -> int:
        """The size of the array in memory, in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def take(self, chosen: Integer[Any, " m"]) -> "View":
        """A view of the images at some positions."""
        return replace(self, rows=self.rows[chosen], turns=self.turns[chosen])

    def turned(self, quarters: Integer[np.ndarray, " n"]) -> "View":
        """Rotate each image counter-clockwise by a number of right angles.

        Raises:
            ValueError: the images are not square.
        """
        _, height, width, _ = self.shape
        if height != width:
            raise ValueError(f"expected square images to rotate, got {height}x{width}")
        # Under a transpose, a stored image rotates in the opposite direction.
        more = -quarters if self.transposed else quarters
        return replace(self, turns=((self.turns + more) % 4).astype(np.uint8))

    def transpose(self) -> "View":
        """Swap height and width."""
        return replace(self, transposed=not self.transposed)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read the images at one position, a slice, or an array of positions."""
        rows, turns = self.rows[index], np.ravel(self.turns[index])
        images = np.asarray(self.store[np.ravel(rows)])
        if turns.any():
            images = images.copy() if images.base is not None else images
            for quarters in (1, 2, 3):
                here = turns == quarters
                images[here] = np.rot90(images[here], quarters, axes=(1, 2))
        if self.transposed:
            images = images.swapaxes(1, 2)
        return images.reshape(np.shape(rows) + self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all images into memory."""
        if copy is False:
            raise ValueError("expected copy = True or None for a view, got False")
        return self.read().astype(dtype or self.dtype, copy=False)

    def read(self, *, workers: int | None = None, bar: bool = False) -> np.ndarray:
        """Read all images into memory; see `read_into`."""
        if isinstance(self.store, np.ndarray):
            return self[:]
        array = np.empty(self.shape, self.dtype)
        self.read_into(array, workers=workers, bar=bar)
        return array

    def read_into(
        self, array: np.ndarray, *, workers: int | None = None, bar: bool = False
    ) -> None:
        """Read all images into an array of the same shape.

        Several threads read a store that is not an array, since images are decoded in
        parallel.

        Args:
            array: the array to fill.
            workers: number of threads; default: one per CPU that the process may use.
            bar: whether to show a progress bar while images are decoded.

        Raises:
            ValueError: an image that cannot be read; the first one is named.
        """
        if isinstance(self.store, np.ndarray):
            array[:] = self[:]
            return

        def read_piece(start: int) -> int:
            piece = self[start : start + _PIECE]
            array[start : start + len(piece)] = piece
            return len(piece)

        starts = range(0, len(self), _PIECE)
        with (
            ThreadPoolExecutor(workers or _cpus()) as pool,
            decoding_bar(self, shown=bar) as progress,
        ):
            for done in pool.map(read_piece, starts):
                progress.update(done)


def decoding_bar(view: View, *, shown: bool = True) -> tqdm:
    """A progress bar for the images of a view; hidden if they are in an array."""
    hidden = not shown or isinstance(view.store, np.ndarray)
    label, total = f"decoding {len(view):,} images", len(view)
    return tqdm(desc=label, total=total, leave=False, disable=hidden)


def _cpus() -> int:
    """The number of CPUs that the process may use."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1
