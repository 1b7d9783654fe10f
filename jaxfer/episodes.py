"""Numbered episodes: episode k is a pure function of k, the seed and the split.

The episode is the same on one device or on many hosts, in a first run or after a
resume, compiled or not. No default of JAX changes it: keys are threefry keys made here,
random bits have an explicit width, and `top_k` of them samples without replacement.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

from jaxfer.types import AnyArray, Episode


class ClassTable(NamedTuple):
    """Which rows of a data set belong to each class, padded to a rectangle.

    Attributes:
        rows: `[classes, max_count]`, row numbers, padded with 0.
        counts: `[classes]`, the number of rows of each class, without the padding.
        groups: `[classes]`, the group of each class, from 0: an episode takes its
            classes from one group, such as an alphabet. None: it may mix all classes.
    """

    rows: Int[AnyArray, "classes max_count"]
    counts: Int[AnyArray, " classes"]
    groups: Int[AnyArray, " classes"] | None = None


def class_table(
    labels: Integer[np.ndarray, " n"],
    *,
    num_classes: int,
    groups: Integer[np.ndarray, " classes"] | None = None,
) -> ClassTable:
    """The class table of a data set's labels.

    Args:
        labels: `[n]`, the class of each row, 0 to `num_classes` - 1, in any order.
        num_classes: the number of classes; a class may have no rows.
        groups: `[classes]`, the group of each class, 0 to `num_classes` - 1; None for
            episodes of any classes.

    Raises:
        ValueError: no class, labels that are not integers `[n]`, or a label outside the
            range.

    Example:
        >>> class_table(np.array([1, 0, 1]), num_classes=2).rows.tolist()
        [[1, 0], [0, 2]]
    """
    if num_classes < 1:
        raise ValueError(f"expected num_classes of at least 1, got {num_classes}")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"expected integer labels of shape [n], got shape {labels.shape} and type "
            f"{labels.dtype}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"expected labels from 0 to {num_classes - 1}, got {labels.min()} to "
            f"{labels.max()}"
        )
    counts = np.bincount(labels, minlength=num_classes).astype(np.int32)
    order = np.argsort(labels, kind="stable").astype(np.int32)
    starts = np.cumsum(counts) - counts
    column = np.arange(max(counts.max(initial=0), 1))
    real = column < counts[:, None]
    rows = np.zeros(real.shape, np.int32)
    rows[real] = order[(starts[:, None] + column)[real]]
    return ClassTable(rows, counts, groups)


def check_episode(
    table: ClassTable,
    class_names: Sequence[str],
    *,
    way: int,
    shot: int,
    n_query: int,
    least_shot: int | None = None,
    where: str = "the data set",
) -> None:
    """Refuse episodes that a data set cannot give.

    Args:
        table: the data set's class table, on the host.
        class_names: one name per class, for the message.
        way: classes per episode.
        shot: support examples per class; 0 for zero-shot episodes.
        n_query: queries per class.
        least_shot: see `sample_episode`.
        where: what to call the data set in the message.

    Raises:
        ValueError: a way or n_query below 1, a shot below 0, more ways than classes, or
            a class with fewer than shot + n_query examples.

    Example:
        >>> table = class_table(np.array([0, 0, 1]), num_classes=2)
        >>> check_episode(table, "ab", way=2, shot=1, n_query=1, where="birds")
        Traceback (most recent call last):
        ...
        ValueError: expected shot + n_query = 2 images, got 1 in class 'b' of birds
    """
    if n_query < 1:
        raise ValueError(f"expected n_query of at least 1, got {n_query}")
    if way > len(class_names):
        raise ValueError(
            f"expected at least way = {way} classes, got {len(class_names)} in {where}"
        )
    _check_table(table, way, shot, n_query, least_shot, class_names, where)


def _check_table(
    table: ClassTable,
    way: int,
    shot: int,
    n_query: int,
    least_shot: int | None,
    class_names: Sequence[str] | None,
    where: str,
) -> None:
    """Refuse a table that is too small; values that are traced are not checked."""
    for name, value, least in (
        ("way", way, 1),
        ("shot", shot, 0),
        ("n_query", n_query, 0 if shot else 1),
    ):
        if value < least:
            raise ValueError(f"expected {name} of at least {least}, got {value}")
    if least_shot is not None and not 1 <= least_shot <= shot:
        raise ValueError(
            f"expected least_shot from 1 to shot = {shot}, got {least_shot}"
        )
    if table.rows.ndim != 2 or table.counts.shape != table.rows.shape[:1]:
        raise ValueError(
            "expected a table of rows [classes, max_count] and counts [classes], got "
            f"shapes {table.rows.shape} and {table.counts.shape}"
        )
    if way > table.counts.shape[0]:
        raise ValueError(
            f"expected at least way = {way} classes, got {table.counts.shape[0]} in "
            f"{where}"
        )
    if table.groups is not None and not isinstance(table.groups, Tracer):
        most = np.bincount(np.asarray(table.groups)).max()
        if way > most:
            raise ValueError(
                f"expected a group of at least way = {way} classes in {where}, got at "
                f"most {most} in one group"
            )
    each = f"expected shot + n_query = {shot + n_query} images"
    if not isinstance(table.counts, Tracer):
        counts = np.asarray(table.counts)
        worst = int(counts.argmin())
        if counts[worst] < shot + n_query:
            name = worst if class_names is None else repr(class_names[worst])
            raise ValueError(f"{each}, got {counts[worst]} in class {name} of {where}")
    if shot + n_query > table.rows.shape[1]:
        raise ValueError(f"{each}, got at most {table.rows.shape[1]} in {where}")


def episode_key(
    seed: int, split: str, number: int | Integer[Array, ""]
) -> PRNGKeyArray:
    """The random key of one episode.

    Args:
        seed: the seed of the run, 0 to 2^32 - 1.
        split: the name of the split; splits that share a seed have other episodes.
        number: k, from 0 to 2^32 - 1; may be traced.

    Raises:
        ValueError: a seed or a number that does not fit into 32 bits: its key would
            depend on JAX's defaults.

    Example:
        >>> bool(episode_key(0, "test", 7) == episode_key(0, "test", 7))
        True
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"expected a seed from 0 to 2^32 - 1, got {seed}")
    if isinstance(number, int) and not 0 <= number < 2**32:
        raise ValueError(f"expected an episode from 0 to 2^32 - 1, got {number}")
    key = jax.random.key(np.uint32(seed), impl="threefry2x32")
    key = jax.random.fold_in(key, np.uint32(zlib.crc32(split.encode())))
    return jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))


def sample_episode(
    key: PRNGKeyArray,
    table: ClassTable,
    *,
    way: int,
    shot: int,
    n_query: int,
    least_shot: int | None = None,
) -> Episode:
    """Sample an episode of row numbers, uniformly and without replacement.

    It samples `way` classes, then `shot + n_query` rows of each class; the first `shot`
    rows are the support (Snell et al. 2017, Algorithm 1). Support and query never
    share a row. If the classes are in groups, it samples a group of at least `way`
    classes first.

    Args:
        key: see `episode_key`.
        table: the class table of the data set. The values of a traced table cannot be
            checked here: call `check_episode` first. A class with too few rows repeats
            some of them.
        way: classes per episode.
        shot: support examples per class; 0 for zero-shot episodes.
        n_query: queries per class; may be 0 if shot is not.
        least_shot: for unbalanced support sets, the fewest support examples of a class:
            each class has a random number of them up to `shot`. None: all have `shot`.

    Returns:
        The episode with support `[way, shot]` and query `[way, n_query]` as int32 row
        numbers, and the data set's class ids.

    Raises:
        ValueError: a way or shot + n_query below 1, more ways than classes, or a class
            with fewer than shot + n_query rows, or a least_shot outside 1 to shot.

    Example:
        >>> table = class_table(np.repeat(np.arange(10), 20), num_classes=10)
        >>> key = episode_key(0, "train", 0)
        >>> sample_episode(key, table, way=5, shot=1, n_query=15).query.shape
        (5, 15)
    """
    _check_table(table, way, shot, n_query, least_shot, None, "the table")
    # Partitionable threefry gives the same numbers on any sharding. Without it, as
    # users may configure JAX, splits and bits would differ.
    with jax.threefry_partitionable(True):
        class_key, row_key = jax.random.split(key)
        class_order = _uniform(class_key, (table.counts.shape[0],))
        row_order = _uniform(row_key, (way, table.rows.shape[1]))
        if table.groups is not None:
            class_order = _in_one_group(class_key, class_order, table.groups, way)
        shots = None
        if least_shot is not None:
            shots_key, limits = jax.random.fold_in(class_key, 2), (least_shot, shot + 1)
            shots = jax.random.randint(shots_key, (way,), *limits, jnp.int32)
    # top_k of random numbers is a uniform sample without replacement, in random order.
    _, classes = jax.lax.top_k(class_order, way)
    rows = jnp.asarray(table.rows, jnp.int32)[classes]
    counts = jnp.asarray(table.counts, jnp.int32)[classes]
    real = jnp.arange(rows.shape[1], dtype=jnp.int32)[None, :] < counts[:, None]
    # A class with too few rows in a traced table never gets rows of another class.
    rows = jnp.where(real, rows, rows[:, :1])
    _, chosen = jax.lax.top_k(jnp.where(real, row_order, 0), shot + n_query)
    rows = jnp.take_along_axis(rows, chosen, axis=1)
    return Episode(rows[:, :shot], rows[:, shot:], classes.astype(jnp.int32), shots)


def _in_one_group(key: PRNGKeyArray, order: Array, groups: AnyArray, way: int) -> Array:
    """The random numbers of classes, 0 outside of one group of at least `way`."""
    groups = jnp.asarray(groups, jnp.int32)
    sizes = jnp.bincount(groups, length=len(groups))[groups].astype(jnp.float32)
    # The smallest number is equally likely to fall into each group that fits.
    waits = jax.random.exponential(jax.random.fold_in(key, 1), sizes.shape, jnp.float32)
    first = jnp.argmin(jnp.where(sizes >= way, waits * sizes, jnp.inf))
    return jnp.where(groups == groups[first], order, 0)


def numbered_episode(
    table: ClassTable,
    seed: int,
    split: str,
    number: int | Integer[Array, ""],
    *,
    way: int,
    shot: int,
    n_query: int,
    least_shot: int | None = None,
) -> Episode:
    """Episode `number` of a seed and a split, as row numbers.

    It calls `sample_episode` with the key that `episode_key` makes.

    Args:
        table: the class table of the data set.
        seed: the seed of the run.
        split: the name of the split.
        number: the number of the episode; may be traced.
        way: classes per episode.
        shot: support examples per class.
        n_query: queries per class.
        least_shot: see `sample_episode`.

    Raises:
        ValueError: see `episode_key` and `sample_episode`.

    Example:
        >>> table = class_table(np.repeat(np.arange(10), 20), num_classes=10)
        >>> rows = numbered_episode(table, 0, "test", 7, way=5, shot=1, n_query=15)
        >>> rows.support.shape
        (5, 1)
    """
    key = episode_key(seed, split, number)
    shape = {"way": way, "shot": shot, "n_query": n_query, "least_shot": least_shot}
    return sample_episode(key, table, **shape)


def gather(array: Any, episode: Episode) -> Episode:
    """The episode with its row numbers replaced by those rows of an array.

    The array may hold images or embeddings: evaluation embeds a data set once and
    gathers features.

    Args:
        array: `[n, ...]`, with as many rows as the data set: an array, or `FlatItems`.
        episode: an episode of row numbers.

    Example:
        >>> rows = Episode(jnp.array([[1]]), jnp.array([[0, 2]]), jnp.array([7]))
        >>> gather(jnp.array([10, 20, 30]), rows).query.tolist()
        [[10, 30]]
    """
    sizes = [rows.shape for rows in episode[:2]]
    # One gather for both: a TPU may copy the whole array into fast memory for each.
    rows = jnp.concatenate([jnp.ravel(rows) for rows in episode[:2]])
    parts = jnp.split(array[rows], [sizes[0][0] * sizes[0][1]])
    support, query = (
        part.reshape(*size, *array.shape[1:])
        for part, size in zip(parts, sizes, strict=True)
    )
    return episode._replace(support=support, query=query)


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Positive floats in a uniformly random order, with 2^29 distinct values.

    The bits of positive floats sort as integers do, and `top_k` is faster for floats
    than for integers. `jax.random.uniform` has only 2^23 values, so that two of
    thousands of classes would often tie. The offset avoids subnormal numbers, which may
    be flushed to 0.
    """
    words = jax.random.bits(key, shape, jnp.uint32)
    ordered = (words >> np.uint32(3)) + np.uint32(1 << 23)
    return jax.lax.bitcast_convert_type(ordered, jnp.float32)
