"""Images that are read when they are asked for."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer, UInt8


@runtime_checkable
class Store(Protocol):
    """What holds images, in memory or on a disk: a NumPy array, or what reads one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them, `(n, height, width, channels)`."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Some of them, by an array of row numbers, as uint8; not to be kept."""
        ...


@dataclass(frozen=True)
class View:
    """Images of a store, chosen and turned, as an array that is read when indexed.

    To choose classes and to turn them is bookkeeping on row numbers here, so a part of
    a data set takes no memory, whether its pixels are in memory or on a disk. Nothing
    in it needs JAX.

    Attributes:
        store: where the images are.
        rows: of each image in the store.
        turns: how often each is turned by 90 degrees, counter-clockwise.
        transposed: whether height and width are swapped, after turning.

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
        """All images of a store, as they are."""
        if isinstance(images, View):
            return images
        n = images.shape[0]
        return cls(images, np.arange(n), np.zeros(n, np.uint8))

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array it stands for: `(n, height, width, channels)`."""
        height, width, channels = self.store.shape[1:]
        if self.transposed:
            height, width = width, height
        return len(self.rows), height, width, channels

    @property
    def ndim(self) -> int:
        """4."""
        return len(self.store.shape)

    @property
    def dtype(self) -> np.dtype:
        """Of the pixels."""
        return np.dtype(getattr(self.store, "dtype", np.uint8))

    @property
    def nbytes(self) -> int:
        """What the array would take in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def take(self, chosen: Integer[Any, " m"]) -> "View":
        """Those of some positions."""
        return replace(self, rows=self.rows[chosen], turns=self.turns[chosen])

    def turned(self, quarters: Integer[np.ndarray, " n"]) -> "View":
        """Each turned by so many right angles more, counter-clockwise.

        Raises:
            ValueError: images that are not square.
        """
        _, height, width, _ = self.shape
        if height != width:
            raise ValueError(
                f"found {height}x{width} images, needed square ones to turn"
            )
        # Seen through a transpose, a store's image turns the other way.
        more = -quarters if self.transposed else quarters
        return replace(self, turns=((self.turns + more) % 4).astype(np.uint8))

    def transpose(self) -> "View":
        """Height and width swapped."""
        return replace(self, transposed=not self.transposed)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The images of one position, a slice, or an array of positions, read now."""
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
        """All of them, in memory."""
        if copy is False:
            raise ValueError("a view has no array of its own, needed copy = True")
        return self[:].astype(dtype or self.dtype, copy=False)
