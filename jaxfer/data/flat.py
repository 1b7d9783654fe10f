"""Images on devices: each one is a row of a matrix."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# The elements that a TPU takes at once.
_LANES = 128


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FlatItems:
    """Items of one shape, each stored as a row of a matrix.

    A TPU stores `[n, height, width, channels]` with the images innermost, so that a
    step which takes some of them would first copy all. It takes rows of a matrix
    directly, if their size is a multiple of 128.

    Attributes:
        flat: `[n, size]`, each item with zeros after it.
        item: the shape of an item.

    Example:
        >>> items = flat_items(np.arange(12).reshape(3, 2, 2))
        >>> items.shape, items.flat.shape, items[2].tolist()
        ((3, 2, 2), (3, 128), [[8, 9], [10, 11]])
    """

    flat: Any
    item: tuple[int, ...] = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all items, `[n, ...]`."""
        return (self.flat.shape[0], *self.item)

    @property
    def ndim(self) -> int:
        """The number of axes of all items."""
        return 1 + len(self.item)

    @property
    def dtype(self) -> Any:
        """The type of the elements."""
        return self.flat.dtype

    def __len__(self) -> int:
        """The number of items."""
        return self.flat.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        """The items with some numbers, `[*rows.shape, ...]`."""
        taken = self.flat[rows][..., : prod(self.item)]
        return taken.reshape(*taken.shape[:-1], *self.item)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All items as an array on the host."""
        whole = np.asarray(self.flat, dtype)[:, : prod(self.item)]
        return np.array(whole.reshape(self.shape), copy=copy)


def flat_items(items: Any) -> Any:
    """Items as `FlatItems`; vectors and `FlatItems` are returned unchanged.

    Args:
        items: `[n, ...]`.
    """
    if isinstance(items, FlatItems) or items.ndim <= 2:
        return items
    item, flat = tuple(items.shape[1:]), items.reshape(len(items), -1)
    if zeros := padding(item):
        numpy: Any = np if isinstance(items, np.ndarray) else jnp
        flat = numpy.pad(flat, [(0, 0), (0, zeros)])
    return FlatItems(flat, item)


def padding(item: tuple[int, ...]) -> int:
    """The number of zeros after an item of a shape.

    Example:
        >>> padding((28, 28, 1)), padding((32, 32, 3))
        (112, 0)
    """
    return -prod(item) % _LANES
