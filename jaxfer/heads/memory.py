"""What has been seen of each class, and its mean."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxfer.heads.vectors import HIGHEST, inverse_length, wide
from jaxfer.types import AnyArray, Memory


def remember(
    z: Float[Array, "n dim"], labels: Int[Array, " n"], *, num_classes: int
) -> Memory:
    """The memory of labelled embeddings: their sum and number in each class.

    Two memories add up: `jax.tree.map(jnp.add, memory, more)` is the memory of both.

    Args:
        z: one embedding a row, raw or unit as the head will need.
        labels: their classes, 0 to `num_classes` - 1, in any order; a class may be
            absent, and a label outside the range is not counted.
        num_classes: how many classes the memory has room for.

    Example:
        >>> z = jnp.array([[1.0], [3.0], [5.0]])
        >>> remember(z, jnp.array([0, 0, 2]), num_classes=3).count.tolist()
        [2.0, 0.0, 1.0]
    """
    chex.assert_rank([z, labels], [2, 1])
    z = wide(z)
    # A negative label would count from the end; one past the end is dropped.
    labels = jnp.where(labels < 0, num_classes, labels)
    total = jax.ops.segment_sum(z, labels, num_classes)
    count = jax.ops.segment_sum(jnp.ones_like(z[:, 0]), labels, num_classes)
    return Memory(total, count)


def support_memory(
    support: Float[Array, "way shot dim"], *, unit: bool = False
) -> Memory:
    """The memory of an episode's support set, whose classes are its rows.

    Args:
        support: embeddings, as many of each class.
        unit: whether each is first scaled to length 1, as imprinting needs it.

    Example:
        >>> support_memory(jnp.ones((5, 2, 3))).count.tolist()
        [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    chex.assert_rank(support, 3)
    support = wide(support)
    way, shot, _ = support.shape
    if unit:
        # As a product, which reads the embeddings as they are and writes no unit ones.
        inverse = inverse_length(support)
        total = jnp.einsum("wsd,ws->wd", support, inverse, precision=HIGHEST)
    else:
        total = support.sum(axis=1)
    return Memory(total, jnp.full((way,), shot, support.dtype))


def memory_means(memory: Memory) -> Float[Array, "classes dim"]:
    """The mean embedding of each class; zero for a class never seen.

    Example:
        >>> memory_means(Memory(jnp.array([[4.0], [0.0]]), jnp.array([2.0, 0.0])))
        Array([[2.],
               [0.]], dtype=float32)
    """
    return memory.total / jnp.maximum(memory.count, 1)[:, None]


def class_means(
    z: Float[Array, "n dim"], labels: Int[Array, " n"], *, num_classes: int
) -> Float[Array, "num_classes dim"]:
    """The prototypes, `c_k = 1/|S_k| sum over S_k of f(x)`.

    Snell et al. 2017, Eq. 1. A class with no example has the mean zero.

    Example:
        >>> z = jnp.array([[1.0], [3.0], [5.0]])
        >>> class_means(z, jnp.array([0, 0, 1]), num_classes=2).tolist()
        [[2.0], [5.0]]
    """
    return memory_means(remember(z, labels, num_classes=num_classes))


def seen_classes(memory: Memory) -> Int[Array, " classes"]:
    """Each class's own number as the owner of its row, -1 for one never seen."""
    ids = jnp.arange(memory.count.shape[0], dtype=jnp.int32)
    return jnp.where(memory.count > 0, ids, -1)


def check_embeddings(z: Float[AnyArray, "n dim"], whose: str = "embeddings") -> None:
    """Refuse what has no direction, and so cannot be imprinted; on the host.

    Raises:
        ValueError: an embedding that is zero or not finite; it says which example.

    Example:
        >>> check_embeddings(np.array([[1.0, 0.0], [0.0, 0.0]]), "wrens")
        Traceback (most recent call last):
            ...
        ValueError: wrens: example 1 of 2 has a zero embedding, needed a direction
    """
    z = np.asarray(z, np.float64)
    length = np.sqrt((z * z).sum(axis=1))
    # As `normalize`, which makes zeros of what is shorter.
    bad = ~(np.isfinite(length) & (length > 1e-12))
    if bad.any():
        i = int(np.argmax(bad))
        odd = z[i][~np.isfinite(z[i])]
        found = f"{odd[0]} in its embedding" if odd.size else "a zero embedding"
        raise ValueError(
            f"{whose}: example {i} of {len(z)} has {found}, needed a direction"
        )
