"""Episodes by number: episode k of a seed and a split is a pure function.

The same episode comes out on one device or a hundred hosts, in training and after a
resume, jitted or not. No default of JAX changes it: keys are threefry keys made here,
random bits have an explicit width, and `top_k` of them draws without replacement.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, Shaped

from jaxfer.types import AnyArray, Episode


class ClassTable(NamedTuple):
    """Which rows of a data set belong to each class, padded to a rectangle.

    Attributes:
        rows: row numbers, padded with 0.
        counts: how many of them are real.
    """

    rows: Int[AnyArray, "classes max_count"]
    counts: Int[AnyArray, " classes"]


def class_table(labels: Integer[np.ndarray, " n"], *, num_classes: int) -> ClassTable:
    """The class table of a data set's labels.

    Args:
        labels: the class of each row, 0 to `num_classes` - 1, in any order.
        num_classes: how many classes there are; one may have no rows.

    Raises:
        ValueError: a label outside the range.

    Example:
        >>> class_table(np.array([1, 0, 1]), num_classes=2).rows.tolist()
        [[1, 0], [0, 2]]
    """
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"found labels from {labels.min()} to {labels.max()}, "
            f"needed 0 to {num_classes - 1}"
        )
    counts = np.bincount(labels, minlength=num_classes).astype(np.int32)
    order = np.argsort(labels, kind="stable").astype(np.int32)
    starts = np.cumsum(counts) - counts
    column = np.arange(max(counts.max(initial=0), 1))
    real = column < counts[:, None]
    rows = np.zeros(real.shape, np.int32)
    rows[real] = order[(starts[:, None] + column)[real]]
    return ClassTable(rows, counts)


def check_episode(
    table: ClassTable,
    class_names: Sequence[str],
    *,
    way: int,
    shot: int,
    n_query: int,
    where: str = "the data set",
) -> None:
    """Refuse episodes that a data set cannot give.

    Args:
        table: its class table, on the host.
        class_names: one a class, for the message.
        way: classes an episode.
        shot: support examples a class.
        n_query: queries a class.
        where: what to call the data set in the message.

    Raises:
        ValueError: a way, shot or query below 1, more ways than classes, or a class
            with fewer than shot + query examples.

    Example:
        >>> table = class_table(np.array([0, 0, 1]), num_classes=2)
        >>> check_episode(table, ["a", "b"], way=2, shot=1, n_query=1)
        Traceback (most recent call last):
        ...
        ValueError: class 'b' of the data set has 1 images, needed shot + query = 2
    """
    for name, value in (("way", way), ("shot", shot), ("query", n_query)):
        if value < 1:
            raise ValueError(f"found {name} = {value}, needed at least 1")
    if way > len(class_names):
        raise ValueError(
            f"found {len(class_names)} classes in {where}, needed way = {way}"
        )
    counts = np.asarray(table.counts)
    worst = int(counts.argmin())
    if counts[worst] < shot + n_query:
        raise ValueError(
            f"class {class_names[worst]!r} of {where} has {counts[worst]} images, "
            f"needed shot + query = {shot + n_query}"
        )


def episode_key(
    seed: int, split: str, number: int | Integer[Array, ""]
) -> PRNGKeyArray:
    """The random key of one episode.

    Args:
        seed: of the run, 0 to 2^32 - 1.
        split: its name keeps the episodes of splits apart that share a seed.
        number: k, below 2^32; may be traced.

    Raises:
        ValueError: a seed that does not fit 32 bits, whose key would hang on defaults.

    Example:
        >>> bool(episode_key(0, "test", 7) == episode_key(0, "test", 7))
        True
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"found seed = {seed}, needed 0 to 2^32 - 1")
    key = jax.random.key(np.uint32(seed), impl="threefry2x32")
    key = jax.random.fold_in(key, np.uint32(zlib.crc32(split.encode())))
    return jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))


def sample_episode(
    key: PRNGKeyArray, table: ClassTable, *, way: int, shot: int, n_query: int
) -> Episode:
    """Draw an episode of row numbers, uniformly and without replacement.

    `way` classes, then in each of them `shot + n_query` of its rows, the first `shot`
    of which are the support (Snell et al. 2017, Algorithm 1). Support and query never
    share a row.

    Args:
        key: see `episode_key`.
        table: of the data set; `check_episode` says whether it has enough.
        way: classes an episode.
        shot: support examples a class.
        n_query: queries a class.

    Returns:
        The episode with support `[way, shot]` and query `[way, n_query]` as int32 row
        numbers, and the data set's class ids.

    Example:
        >>> table = class_table(np.repeat(np.arange(10), 20), num_classes=10)
        >>> key = episode_key(0, "train", 0)
        >>> sample_episode(key, table, way=5, shot=1, n_query=15).query.shape
        (5, 15)
    """
    chex.assert_rank([table.rows, table.counts], [2, 1])
    # Partitionable threefry gives the same numbers on any sharding; where a user has
    # turned it off, splits and bits would be others.
    with jax.threefry_partitionable(True):
        class_key, row_key = jax.random.split(key)
        class_order = _uniform(class_key, (table.counts.shape[0],))
        row_order = _uniform(row_key, (way, table.rows.shape[1]))
    # top_k of random numbers is a uniform draw without replacement, in random order.
    _, classes = jax.lax.top_k(class_order, way)
    rows = jnp.asarray(table.rows, jnp.int32)[classes]
    counts = jnp.asarray(table.counts, jnp.int32)[classes]
    real = jnp.arange(rows.shape[1], dtype=jnp.int32)[None, :] < counts[:, None]
    _, chosen = jax.lax.top_k(jnp.where(real, row_order, 0), shot + n_query)
    rows = jnp.take_along_axis(rows, chosen, axis=1)
    return Episode(rows[:, :shot], rows[:, shot:], classes.astype(jnp.int32))


def numbered_episode(
    table: ClassTable,
    seed: int,
    split: str,
    number: int | Integer[Array, ""],
    *,
    way: int,
    shot: int,
    n_query: int,
) -> Episode:
    """Episode `number` of a seed and a split, as row numbers.

    `sample_episode` with the key of `episode_key`.

    Args:
        table: of the data set.
        seed: of the run.
        split: its name.
        number: of the episode; may be traced.
        way: classes an episode.
        shot: support examples a class.
        n_query: queries a class.

    Example:
        >>> table = class_table(np.repeat(np.arange(10), 20), num_classes=10)
        >>> rows = numbered_episode(table, 0, "test", 7, way=5, shot=1, n_query=15)
        >>> rows.support.shape
        (5, 1)
    """
    key = episode_key(seed, split, number)
    return sample_episode(key, table, way=way, shot=shot, n_query=n_query)


def gather(array: Shaped[AnyArray, "n *item"], episode: Episode) -> Episode:
    """The episode with its row numbers replaced by those rows of an array.

    The array may hold images or embeddings: evaluation embeds a data set once and
    gathers features.

    Example:
        >>> rows = Episode(jnp.array([[1]]), jnp.array([[0, 2]]), jnp.array([7]))
        >>> gather(jnp.array([10, 20, 30]), rows).query.tolist()
        [[10, 30]]
    """
    return Episode(array[episode.support], array[episode.query], episode.classes)


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Positive floats in a uniformly random order, with 2^29 distinct values.

    The bits of positive floats sort as integers do, and `top_k` has a fast path for
    floats; `jax.random.uniform` has 2^23 values, so among thousands of classes two
    would often tie. The offset keeps clear of subnormals, which may be flushed to 0.
    """
    words = jax.random.bits(key, shape, jnp.uint32)
    ordered = (words >> np.uint32(3)) + np.uint32(1 << 23)
    return jax.lax.bitcast_convert_type(ordered, jnp.float32)
