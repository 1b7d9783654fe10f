"""One feed for resident and streamed data: training code does not ask which one it has.

Data up to a limit lie on the devices as uint8 and are gathered inside the compiled
step. Larger data stay on the host or the disk; the same sampler numbers their rows on
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
from jaxfer.data.images import Images
from jaxfer.data.resident import Resident, draw, floats, resident, table_of
from jaxfer.data.streamed import Drawn, read_ahead, stream
from jaxfer.data.view import View
from jaxfer.episodes import numbered_episode
from jaxfer.types import AnyArray, Episode

# Gigabytes of pixels that are kept on a device, if nothing else is said.
LIMIT = 4.0


class Source(NamedTuple):
    """Images or features that training draws from.

    Attributes:
        items: `[n, ...]` on the devices, or a view of data that are streamed.
        fingerprint: of the data.
    """

    items: Array | View
    fingerprint: str

    @property
    def streamed(self) -> bool:
        """Whether the items are read batch by batch."""
        return isinstance(self.items, View)


def place(
    images: Images | Source | View | AnyArray,
    mesh: Any = None,
    *,
    limit: float = LIMIT,
) -> Source:
    """The source of some images: whole on every device of a mesh, or to be streamed.

    Args:
        images: a data set, an array of images or features, or a source, which is placed
            on the mesh again.
        mesh: of `sharding.make_mesh`; default: one device.
        limit: gigabytes up to which images are kept on a device.

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
        fingerprint = images.fingerprint
        if _is_streamed(images, limit):
            return Source(View.of(images.images), fingerprint)
        items = np.asarray(images.images)
    elif isinstance(images, View):
        return Source(images, _hash(images.shape, images.rows))
    else:
        items, fingerprint = images, _hash(images.shape, images)
    return Source(sharding.place(items, mesh), fingerprint)


def _hash(shape: tuple[int, ...], content: AnyArray) -> str:
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
    """The items of each step, read ahead of it.

    Args:
        draw_rows: the rows that a step needs, from `given` and the number of the step.
        given: whatever all steps draw from.
        read: reads items by row numbers, in Grain's threads.
        num_steps: how many steps there are.
        workers: threads that read.
        put: brings what is read to the devices.

    Returns:
        A function from a step to the items of that step and of those after it.

    Raises:
        ValueError: Grain is not installed; on reading, what the reader says.
    """
    drawn = Drawn(draw_rows, given, num_steps)
    return lambda step: read_ahead(drawn, read, first=step, workers=workers, put=put)


def place_episodes(
    images: Images, mesh: Any, *, limit: float = LIMIT
) -> Resident | Images:
    """A part whole on the devices; above the limit as it is, to be streamed.

    Args:
        images: the part.
        mesh: of the devices.
        limit: gigabytes of pixels.
    """
    if _is_streamed(images, limit):
        return images
    return sharding.place(resident(images), mesh)


def _is_streamed(images: Images, limit: float) -> bool:
    # Prints why where it is.
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
    """The data of compiled steps on episodes: a resident part itself, or its stream.

    Args:
        data: of `place_episodes`.
        seed: of the run.
        split: its name.
        shape: the other arguments of `stream`.
    """
    return data if isinstance(data, Resident) else stream(data, seed, split, **shape)


def take_episode(
    data: Resident | Episode,
    seed: int,
    split: str,
    number: Integer[Array, ""],
    **shape: int,
) -> Episode:
    """Within jit: a numbered episode of a resident part, or of a batch by its place."""
    if isinstance(data, Resident):
        return draw(data, seed, split, number, **shape)
    return floats(jax.tree.map(lambda x: x[number], data))


def one_episode(
    data: Resident | Images, seed: int, split: str, number: int, **shape: int
) -> Episode:
    """One numbered episode, outside of jit, wherever the data lie."""
    if isinstance(data, Resident):
        return draw(data, seed, split, number, **shape)
    rows = numbered_episode(table_of(data), seed, split, number, **shape)
    rows = jax.tree.map(np.asarray, rows)
    return floats(Episode(data.images[rows.support], data.images[rows.query], rows[2]))


def in_blocks(
    function: Callable[[Array, np.ndarray], Array],
    items: Array | np.ndarray | View,
    rows: Sequence[int] | AnyArray | None = None,
    *,
    block: int = 1000,
    workers: int = 2,
) -> Iterator[Array]:
    """What a compiled function gives for some rows, one block after another.

    All blocks have one shape, so the function compiles once. What is not on a device is
    read while the block before it is computed.

    Args:
        function: of the items of a block and of their row numbers, one result per row.
        items: all of them.
        rows: those wanted; default: all.
        block: rows per call, at most; blocks hold at most 100 MB of items.
        workers: threads that read a view.

    Raises:
        ValueError: no rows.

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
    block = max(1, min(block, len(rows), 10**8 // size))
    # The last block is filled up, so that there is one shape to compile.
    filled = np.resize(rows, (-(-len(rows) // block), block))
    # What is in memory already is not worth a reader of its own, which needs Grain.
    if isinstance(items, View) and not isinstance(items.store, np.ndarray):
        read = read_ahead([*filled], items.__getitem__, workers=workers)
    elif isinstance(items, Array):
        read = (_take(items, at) for at in filled)
    else:
        read = (jnp.asarray(items[at]) for at in filled)
    for i, (at, x) in enumerate(zip(filled, read, strict=True)):
        yield function(x, at)[: len(rows) - i * block]


@jax.jit
def _take(items: Array, rows: Array) -> Array:
    return items[rows]
