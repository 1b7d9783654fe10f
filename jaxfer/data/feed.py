"""One interface for resident and streamed data; training code is the same for both.

Data up to a limit are kept on the devices as uint8 and gathered inside the compiled
step. Larger data stay on the host or on disk: the same sampler selects their rows on
the CPU, and Grain's threads read them ahead of the step.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer

from jaxfer import sharding
from jaxfer.data.flat import FlatItems, flat_items
from jaxfer.data.images import Images
from jaxfer.data.resident import Resident, draw, floats, resident, table_of
from jaxfer.data.streamed import Drawn, read_ahead, stream
from jaxfer.data.view import View
from jaxfer.episodes import numbered_episode
from jaxfer.types import AnyArray, Episode

# Default limit of pixels kept on a device, in gigabytes.
LIMIT = 4.0


class Source(NamedTuple):
    """Images or features to train on.

    Attributes:
        items: `[n, ...]` on the devices, or a view of streamed data.
        fingerprint: hash of the data.
    """

    items: Array | FlatItems | View
    fingerprint: str

    @property
    def streamed(self) -> bool:
        """Whether the items are read batch by batch."""
        return isinstance(self.items, View)


def place(
    images: Images | Source | View | FlatItems | AnyArray,
    mesh: Any = None,
    *,
    limit: float = LIMIT,
) -> Source:
    """Place images on every device of a mesh, or stream them above the limit.

    Args:
        images: a data set, an array of images or features, or a source, which is placed
            on the mesh again.
        mesh: mesh from `sharding.make_mesh`; default: one device.
        limit: largest size of images kept on a device, in gigabytes.

    Example:
        >>> place(np.zeros((2, 8, 8, 1), np.uint8)).streamed
        False
    """
    mesh = sharding.make_mesh(1) if mesh is None else mesh
    if isinstance(images, Source):
        if images.streamed:
            return images
        return images._replace(items=sharding.place(images.items, mesh))
    if isinstance(images, Images):
        if _is_streamed(images, limit):
            return Source(View.of(images.images), images.fingerprint)
        if isinstance(images.images, View):
            images = images.in_memory()  # The fingerprint reads all images too.
        items, fingerprint = images.images, images.fingerprint
    elif isinstance(images, View):
        return Source(images, _hash(images.shape, images.rows))
    else:
        items, fingerprint = images, _hash(images.shape, images)
    return Source(sharding.place(flat_items(items), mesh), fingerprint)


def _hash(shape: tuple[int, ...], content: Any) -> str:
    digest = hashlib.sha256(repr((shape, str(content.dtype))).encode())
    digest.update(np.ascontiguousarray(content))
    return digest.hexdigest()[:16]


def stream_rows(
    draw_rows: Callable[[Any, Integer[Array, ""]], Integer[Array, "..."]],
    given: Any,
    read: Callable[[np.ndarray], Any],
    *,
    num_steps: int,
    workers: int = 2,
    put: Callable[[Any], Any] = jax.device_put,
) -> Callable[[int], Iterator[Any]]:
    """The items of each step, read ahead of the step.

    Args:
        draw_rows: function of `given` and the step number that returns the rows of the
            step.
        given: data shared by all steps.
        read: function from row numbers to items; runs in Grain's threads.
        num_steps: number of steps.
        workers: number of threads that read.
        put: function that moves items to the devices.

    Returns:
        A function from a step to an iterator over the items of that step and later
        ones.

    Raises:
        ValueError: Grain is not installed; during iteration, any error of `read`.
    """
    drawn = Drawn(draw_rows, given, num_steps)
    return lambda step: read_ahead(drawn, read, first=step, workers=workers, put=put)


def place_episodes(
    images: Images, mesh: Any, *, limit: float = LIMIT
) -> Resident | Images:
    """Place a split on the devices, or return it unchanged above the limit.

    Args:
        images: the split.
        mesh: mesh of devices.
        limit: largest size of pixels kept on a device, in gigabytes.
    """
    if _is_streamed(images, limit):
        return images
    whole = resident(images)
    return sharding.place(whole._replace(items=flat_items(whole.items)), mesh)


def _is_streamed(images: Images, limit: float) -> bool:
    # Prints the reason if the images are streamed.
    size = images.images.nbytes / 1e9
    if size > limit:
        print(
            f"{images.name} is streamed: {size:.3g} GB of pixels, above the limit of "
            f"{limit:g} GB"
        )
    return size > limit


def episode_feed(
    data: Resident | Images, seed: int, split: str, **shape: Any
) -> Resident | Callable[[int], Iterator[Episode]]:
    """The data of compiled episode steps: a resident split itself, or a stream of it.

    Args:
        data: result of `place_episodes`.
        seed: seed of the run.
        split: name of the split.
        shape: the other arguments of `stream`.
    """
    return data if isinstance(data, Resident) else stream(data, seed, split, **shape)


def take_episode(
    data: Resident | Episode,
    seed: int,
    split: str,
    number: Integer[Array, ""],
    **shape: Any,
) -> Episode:
    """One episode, inside jit: by number from resident data, or by index of a batch."""
    if isinstance(data, Resident):
        return draw(data, seed, split, number, **shape)
    return floats(jax.tree.map(lambda x: x[number], data))


def one_episode(
    data: Resident | Images, seed: int, split: str, number: int, **shape: Any
) -> Episode:
    """One numbered episode, outside jit, of resident or streamed data."""
    if isinstance(data, Resident):
        return draw(data, seed, split, number, **shape)
    rows = numbered_episode(table_of(data), seed, split, number, **shape)
    rows = jax.tree.map(np.asarray, rows)
    support, query = data.images[rows.support], data.images[rows.query]
    return floats(rows._replace(support=support, query=query))


def in_blocks(
    function: Callable[[Array, np.ndarray], Array],
    items: Array | np.ndarray | FlatItems | View,
    rows: Sequence[int] | AnyArray | None = None,
    *,
    block: int = 1000,
    fill: bool = False,
    workers: int = 2,
) -> Iterator[Array]:
    """Apply a compiled function to rows block by block, and yield each result.

    All blocks have the same shape, so the function compiles once. Items that are not on
    a device are read while the previous block is computed.

    Args:
        function: function of the items and the row numbers of a block that returns one
            result per row.
        items: all items.
        rows: row numbers; default: all.
        block: largest number of rows per call; a block has at most 100 MB of items.
        fill: whether a block has `block` rows even if fewer are asked for, so that the
            function does not compile again for each number of rows.
        workers: number of threads that read a view.

    Raises:
        ValueError: there are no rows.

    Example:
        >>> parts = in_blocks(lambda x, rows: x + rows, np.arange(5), block=2)
        >>> [part.tolist() for part in parts]
        [[0, 2], [4, 6], [8]]
    """
    rows = np.arange(len(items)) if rows is None else np.asarray(rows)
    rows = rows.astype(np.int32)
    if not len(rows):
        raise ValueError("expected at least one row, got none")
    size = max(1, int(np.prod(items.shape[1:])))
    block = max(1, min(block, block if fill else len(rows), 10**8 // size))
    # Pad the last block, so that there is one shape to compile.
    filled = np.resize(rows, (-(-len(rows) // block), block))
    # Data in memory need no reader threads, which would require Grain.
    if isinstance(items, View) and not isinstance(items.store, np.ndarray):
        read = read_ahead([*filled], items.__getitem__, workers=workers)
    elif isinstance(items, Array | FlatItems):
        read = (_take(items, at) for at in filled)
    else:
        read = (jnp.asarray(items[at]) for at in filled)
    for i, (at, x) in enumerate(zip(filled, read, strict=True)):
        y, left = function(x, at), len(rows) - i * block
        yield y[:left] if left < block else y


@jax.jit
def _take(items: Array | FlatItems, rows: Array) -> Array:
    return items[rows]
