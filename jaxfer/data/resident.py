"""The resident pipeline: data on the device, episodes sampled inside the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from jaxfer.data.flat import FlatItems
from jaxfer.data.images import Images
from jaxfer.episodes import (
    ClassTable,
    class_table,
    gather,
    numbered_episode,
)
from jaxfer.types import AnyArray, Episode


class Resident(NamedTuple):
    """The images of a data set, or its embeddings, with its class table."""

    items: (
        UInt8[AnyArray, "n height width channels"]
        | Float[AnyArray, "n dim"]
        | FlatItems
    )
    table: ClassTable


def resident(data: Images) -> Resident:
    """The arrays of a data set with their class table, still on the host.

    A view is read completely into memory.

    Example:
        >>> from jaxfer.data import from_arrays
        >>> data = from_arrays(np.zeros((2, 28, 28)), np.array([0, 1]))
        >>> resident(data).table.counts.tolist()
        [1, 1]
    """
    return Resident(np.asarray(data.images), table_of(data))


def table_of(data: Images) -> ClassTable:
    """The class table of a data set."""
    groups = None
    if data.grouped:
        above = [name.partition("/")[0] for name in data.class_names]
        groups = np.unique(above, return_inverse=True)[1].astype(np.int32)
    return class_table(data.labels, num_classes=data.num_classes, groups=groups)


def to_float(images: UInt8[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Convert pixels to floats from 0 to 1, the input of every network.

    Example:
        >>> to_float(jnp.array([0, 255], jnp.uint8)).tolist()
        [0.0, 1.0]
    """
    return jnp.asarray(images).astype(jnp.float32) / 255


def draw(
    data: Resident,
    seed: int,
    split: str,
    number: int | Integer[Array, ""],
    *,
    way: int,
    shot: int,
    n_query: int,
    least_shot: int | None = None,
) -> Episode:
    """Episode `number` of a seed and a split, as images or as embeddings.

    It samples the rows and fetches their items.

    Args:
        data: items to take; images become floats from 0 to 1.
        seed: seed of the run.
        split: name of the split.
        number: number of the episode; may be traced.
        way: classes per episode.
        shot: support examples per class.
        n_query: queries per class.
        least_shot: see `sample_episode`.
    """
    shape: Any = dict(way=way, shot=shot, n_query=n_query, least_shot=least_shot)
    return fetch(data, numbered_episode(data.table, seed, split, number, **shape))


def fetch(data: Resident, rows: Episode) -> Episode:
    """Fetch the items of an episode of row numbers; images become floats from 0 to 1.

    Args:
        data: items to take, images or embeddings.
        rows: result of `episodes.sample_episode`.
    """
    return floats(gather(data.items, rows))


def floats(episode: Episode) -> Episode:
    """Convert the images of an episode to floats from 0 to 1; keep embeddings."""
    if episode.support.dtype != jnp.uint8:
        return episode
    support, query = jax.tree.map(to_float, (episode.support, episode.query))
    return episode._replace(support=support, query=query)
