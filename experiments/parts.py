"""Parts of a data set as experiments use them: whole on the devices, or streamed."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxfer import sharding, steps
from jaxfer.data import (
    Images,
    Resident,
    draw,
    floats,
    resident,
    stream,
    to_float,
)
from jaxfer.data.resident import table_of
from jaxfer.episodes import numbered_episode
from jaxfer.types import Episode, Net, Params, State


def place(images: Images, mesh: Any, *, limit: float) -> Resident | Images:
    """A part whole on the devices; above the limit as it is, to be streamed.

    Args:
        images: the part.
        mesh: of the devices.
        limit: gigabytes of pixels.
    """
    size = images.images.nbytes / 1e9
    if size <= limit:
        return sharding.place(resident(images), mesh)
    print(
        f"{images.name} is streamed: {size:.3g} GB of pixels, above data.limit = "
        f"{limit:g}"
    )
    return images


def feed(
    data: Resident | Images, seed: int, split: str, **how: Any
) -> Resident | Callable[[int], Iterator[Episode]]:
    """What compiled steps are given: a resident part itself, or its stream.

    Args:
        data: of `place`.
        seed: of the run.
        split: its name.
        how: the other arguments of `stream`.
    """
    return data if isinstance(data, Resident) else stream(data, seed, split, **how)


def take(
    data: Resident | Episode, seed: int, split: str, number: Array, **shape: int
) -> Episode:
    """Within jit: a numbered episode of a resident part, or of a batch by its place."""
    if isinstance(data, Resident):
        return draw(data, seed, split, number, **shape)
    return floats(jax.tree.map(lambda x: x[number], data))


def look_at(
    data: Resident | Images, seed: int, split: str, number: int, **shape: int
) -> Episode:
    """One numbered episode, outside of jit."""
    if isinstance(data, Resident):
        return draw(data, seed, split, number, **shape)
    rows = numbered_episode(table_of(data), seed, split, number, **shape)
    rows = jax.tree.map(np.asarray, rows)
    return floats(Episode(data.images[rows.support], data.images[rows.query], rows[2]))


def make_embed(
    net: Net, data: Resident | Images
) -> Callable[[Params, State], Resident]:
    """What embeds a part, on running statistics, by the parameters it is given."""
    embed = steps.make_embed(net, to_float)
    if isinstance(data, Resident):
        return lambda *trained: data._replace(items=embed(*trained, data.items))
    table = table_of(data)
    return lambda *trained: Resident(embed(*trained, data.images), table)
