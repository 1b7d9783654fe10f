"""Sums of the embeddings of each class, and class means."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxfer.heads.vectors import HIGHEST, check_matrix, normalize, wide
from jaxfer.types import AnyArray, ClassSums


def class_sums(
    z: Float[Array, "n dim"],
    labels: Int[AnyArray, " n"],
    *,
    num_classes: int,
    gram: bool = False,
) -> ClassSums:
    """The sum and the number of the embeddings of each class.

    The sums over two sets can be added: `jax.tree.map(jnp.add, sums, more)`.

    Args:
        z: `[n, dim]`, raw or of length 1, as the head requires.
        labels: `[n]`, classes from 0 to `num_classes` - 1 in any order. An example
            with another label, such as -1, is ignored.
        num_classes: the number of classes; a class may have no example.
        gram: whether to sum the second moments `z z^T` too, for `lda_head` and
            `ridge_head`.

    Raises:
        ValueError: arrays of another shape, labels that are not integers or do not fit
            int32, or no class.

    Example:
        >>> z = jnp.array([[1.0], [3.0], [5.0]])
        >>> class_sums(z, jnp.array([0, 0, 2]), num_classes=3).count.tolist()
        [2.0, 0.0, 1.0]
    """
    labels = check_labelled(z, labels, num_classes)
    z = wide(z)
    # A negative label would count from the end; a label past the end is dropped.
    labels = jnp.where(labels < 0, num_classes, labels)
    total = jax.ops.segment_sum(z, labels, num_classes)
    count = jax.ops.segment_sum(jnp.ones_like(z[:, 0]), labels, num_classes)
    if not gram:
        return ClassSums(total, count)
    used = jnp.where((labels < num_classes)[:, None], z, 0)
    return ClassSums(total, count, jnp.matmul(used.T, used, precision=HIGHEST))


def support_sums(
    support: Float[Array, "way shot dim"], *, unit: bool = False
) -> ClassSums:
    """The class sums of an episode's support set, in which row k holds class k.

    Args:
        support: `[way, shot, dim]`, embeddings.
        unit: whether embeddings are first scaled to length 1, as for imprinting.

    Raises:
        ValueError: an array of another rank.

    Example:
        >>> support_sums(jnp.ones((5, 2, 3))).count.tolist()
        [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    if support.ndim != 3:
        raise ValueError(
            f"expected a support set of shape [way, shot, dim], got {support.shape}"
        )
    z = wide(support)
    way, shot, _ = z.shape
    total = _unit_total(z) if unit else z.sum(axis=1)
    return ClassSums(total, jnp.full((way,), shot, z.dtype))


def _unit_total(z: Float[Array, "way shot dim"]) -> Float[Array, "way dim"]:
    """The sum of the unit embeddings of each class."""
    squared = jnp.sum(z * z, axis=2)
    # Where no length is extreme, a product sums the unit embeddings without storing
    # them, which is four times as fast on a CPU.
    ordinary = jnp.all((squared > 2.0**-80) & (squared < 2.0**80))
    return jax.lax.cond(
        ordinary,
        lambda z, squared: jnp.einsum(
            "wsd,ws->wd", z, jax.lax.rsqrt(squared), precision=HIGHEST
        ),
        lambda z, squared: normalize(z).sum(axis=1),
        z,
        squared,
    )


def sums_means(sums: ClassSums) -> Float[Array, "classes dim"]:
    """The mean embedding of each class, `total / count`; zero for an empty class.

    Example:
        >>> sums_means(ClassSums(jnp.array([[4.0], [0.0]]), jnp.array([2.0, 0.0])))
        Array([[2.],
               [0.]], dtype=float32)
    """
    return sums.total / jnp.maximum(sums.count, 1)[:, None]


def class_means(
    z: Float[Array, "n dim"], labels: Int[AnyArray, " n"], *, num_classes: int
) -> Float[Array, "num_classes dim"]:
    """The prototypes, `c_k = 1/|S_k| sum over S_k of f(x)`.

    Snell et al. 2017, Eq. 1. The mean of a class without examples is zero.

    Args:
        z: `[n, dim]`.
        labels: `[n]`, see `class_sums`: an example with label -1 is ignored.
        num_classes: the number of classes.

    Raises:
        ValueError: see `class_sums`.

    Example:
        >>> z = jnp.array([[1.0], [3.0], [5.0]])
        >>> class_means(z, jnp.array([0, 0, 1]), num_classes=2).tolist()
        [[2.0], [5.0]]
    """
    return sums_means(class_sums(z, labels, num_classes=num_classes))


def seen_classes(sums: ClassSums) -> Int[Array, " classes"]:
    """The owner of each class's row: the class, or -1 if it has no example."""
    ids = jnp.arange(sums.count.shape[0], dtype=jnp.int32)
    return jnp.where(sums.count > 0, ids, -1)


def check_labelled(
    z: Float[Array, "n dim"], labels: Int[AnyArray, " n"], num_classes: int
) -> Int[Array, " n"]:
    """The labels on the device, after a check that they fit the embeddings.

    Raises:
        ValueError: embeddings that are not `[n, dim]`, labels that are not `[n]`
            integers within int32, or no class.
    """
    check_matrix(z)
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
    shape, kind = np.shape(labels), np.dtype(labels.dtype)
    if shape != z.shape[:1] or not np.issubdtype(kind, np.integer):
        raise ValueError(
            f"expected integer labels of shape ({z.shape[0]},), one per embedding, got "
            f"shape {shape} and type {kind}"
        )
    if num_classes < 1:
        raise ValueError(f"expected num_classes of at least 1, got {num_classes}")
    if isinstance(labels, np.ndarray):
        # JAX would wrap labels that do not fit: 2**33 would become class 0.
        i = int(np.argmax(np.abs(labels.astype(np.float64)))) if labels.size else 0
        if labels.size and not -(2**31) <= labels[i] < 2**31:
            raise ValueError(
                f"expected labels below 2**31, got {labels[i]} for example {i}"
            )
    return jnp.asarray(labels, jnp.int32)


def check_embeddings(z: Float[AnyArray, "n dim"], whose: str = "embeddings") -> None:
    """Refuse embeddings without a direction, which cannot be imprinted.

    The check runs on the host and accepts exactly the embeddings that `normalize` can
    scale to length 1.

    Args:
        z: `[n, dim]`, on the host or the device.
        whose: the name of the embeddings in the message.

    Raises:
        ValueError: an array that is not `[n, dim]`, or an embedding that is zero or not
            finite in float32; the message names the example.

    Example:
        >>> check_embeddings(np.array([[1.0, 0.0], [0.0, 0.0]]), "wrens")
        Traceback (most recent call last):
            ...
        ValueError: wrens: expected a nonzero embedding, got zeros in example 1 of 2
    """
    z = check_finite(z, whose)
    zero = np.abs(z).max(axis=1, initial=0) < np.finfo(z.dtype).tiny
    if zero.any():
        raise ValueError(
            f"{whose}: expected a nonzero embedding, got zeros in example "
            f"{np.argmax(zero)} of {len(z)}"
        )


def check_finite(z: Float[AnyArray, "n dim"], whose: str = "embeddings") -> np.ndarray:
    """The embeddings in JAX's dtype, float32 by default, after a check for finiteness.

    Raises:
        ValueError: an array that is not `[n, dim]` numbers, or an embedding with a NaN
            or a number beyond float32; the message names the example.
    """
    array = np.asarray(z)
    if array.ndim != 2 or array.dtype.kind in "OUSMmc":
        raise ValueError(
            f"{whose}: expected numbers of shape [n, dim], got shape {array.shape} and "
            f"type {array.dtype}"
        )
    wider = jnp.promote_types(array.dtype, jnp.float32)
    with np.errstate(over="ignore"):
        array = array.astype(jax.dtypes.canonicalize_dtype(wider))
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        i = int(np.argmax(bad))
        value = array[i][~np.isfinite(array[i])][0]
        raise ValueError(
            f"{whose}: expected finite numbers, got {value} in example {i} of "
            f"{len(array)}"
        )
    return array
