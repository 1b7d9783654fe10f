"""The resident pipeline: a data set on the device, episodes drawn inside the step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from jaxfer.data.images import Images
from jaxfer.episodes import (
    ClassTable,
    class_table,
    gather,
    numbered_episode,
)
from jaxfer.types import AnyArray, Episode


class Resident(NamedTuple):
    """A data set's arrays on the device, or its embeddings in place of its images."""

    items: UInt8[AnyArray, "n height width channels"] | Float[AnyArray, "n dim"]
    table: ClassTable


def resident(data: Images) -> Resident:
    """The arrays of a data set with their class table, on the host as yet.

    A view is read here, whole.

    Example:
        >>> from jaxfer.data import from_arrays
        >>> data = from_arrays(np.zeros((2, 28, 28)), np.array([0, 1]))
        >>> resident(data).table.counts.tolist()
        [1, 1]
    """
    return Resident(np.asarray(data.images), table_of(data))


def table_of(data: Images) -> ClassTable:
    """The class table of a data set."""
    return class_table(data.labels, num_classes=data.num_classes)


def to_float(images: UInt8[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Pixels from 0 to 1, as every net takes them.

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
) -> Episode:
    """Episode `number` of a seed and a split, as images or as embeddings.

    Drawing the rows and fetching them, in one.

    Args:
        data: where the items are taken from; images come out as floats from 0 to 1.
        seed: of the run.
        split: its name.
        number: of the episode; may be traced.
        way: classes an episode.
        shot: support examples a class.
        n_query: queries a class.
    """
    shape = dict(way=way, shot=shot, n_query=n_query)
    return fetch(data, numbered_episode(data.table, seed, split, number, **shape))


def fetch(data: Resident, rows: Episode) -> Episode:
    """An episode of row numbers as images, floats from 0 to 1, or as embeddings.

    Args:
        data: where the items are taken from.
        rows: of `episodes.sample_episode`.
    """
    return floats(gather(data.items, rows))


def floats(episode: Episode) -> Episode:
    """An episode of images as floats from 0 to 1; one of embeddings as it is."""
    if episode.support.dtype != jnp.uint8:
        return episode
    support, query = jax.tree.map(to_float, (episode.support, episode.query))
    return Episode(support, query, episode.classes)
