"""Losses on logits or distances, for one episode or one batch; `jax.vmap` gives many.

Shapes and, where they are not traced, labels are checked: mistakes are a `ValueError`.
Under `jit` a label outside the classes makes the loss NaN, never the loss of another
class.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxfer.types import AnyArray


def softmax_cross_entropy(
    logits: Float[Array, "*batch classes"], labels: Int[AnyArray, "*batch"]
) -> Float[Array, ""]:
    """Mean cross-entropy in nats, `-log softmax(logits)[label]`.

    Args:
        logits: `[..., classes]`; -inf stands for a class that is absent.
        labels: `[...]`, integers from 0 to classes - 1.

    Raises:
        ValueError: labels that do not fit the logits, or no logits at all.

    Example:
        >>> f"{softmax_cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 1, 2])):.4f}"
        '1.3863'
    """
    if not logits.size or np.shape(labels) != logits.shape[:-1]:
        raise ValueError(
            "expected logits [..., classes] and labels [...], at least one of each, "
            f"got shapes {logits.shape} and {np.shape(labels)}"
        )
    labels, good = _checked_labels(labels, logits.shape[-1])
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    chosen = jnp.where(good, chosen, jnp.nan)
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def _checked_labels(
    labels: Int[AnyArray, "*batch"], classes: int
) -> tuple[Int[Array, "*batch"], Bool[Array, "*batch"]]:
    """Labels on the device, and which are valid; invalid host labels are refused."""
    if not isinstance(labels, Tracer):
        values = np.asarray(labels)
        bad = (values < 0) | (values >= classes)
        if bad.any() or not np.issubdtype(values.dtype, np.integer):
            odd = values[bad].ravel()[:1]
            raise ValueError(
                f"expected integer labels from 0 to {classes - 1}, got "
                f"{odd[0] if odd.size else values.dtype}"
            )
    labels = jnp.asarray(labels)
    return labels, (labels >= 0) & (labels < classes)


def _true_class(
    logits: Float[Array, "way n_query classes"],
) -> Int[Array, "way n_query"]:
    if logits.ndim != 3 or logits.shape[0] != logits.shape[2] or not logits.size:
        raise ValueError(
            "expected logits of shape [way, n_query, way], at least one query, got "
            f"{logits.shape}"
        )
    way, n_query, _ = logits.shape
    rows = jnp.arange(way, dtype=jnp.int32)
    return jnp.broadcast_to(rows[:, None], (way, n_query))


def episode_nll(logits: Float[Array, "way n_query way"]) -> Float[Array, ""]:
    """The mean over the queries of an episode of `-log p(y = k | x)`, in nats.

    Snell et al. 2017, Algorithm 1: squared distances, no temperature, not divided by
    the dimension. NaN if a logit is NaN.

    Args:
        logits: `[way, n_query, way]`; row k holds the queries of class k.

    Raises:
        ValueError: logits of another shape, or no query.

    Example:
        >>> f"{episode_nll(jnp.zeros((5, 15, 5))):.4f}"
        '1.6094'
    """
    true = _true_class(logits)
    chosen = jnp.take_along_axis(logits, true[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def episode_accuracy(logits: Float[Array, "way n_query way"]) -> Float[Array, ""]:
    """The share of queries whose true class has the highest logit, from 0 to 1.

    A tie goes to the first of the tied classes. A query with a NaN among its logits is
    wrong; `episode_nll` of such logits is NaN.

    Args:
        logits: `[way, n_query, way]`; row k holds the queries of class k.

    Raises:
        ValueError: logits of another shape, or no query.

    Example:
        >>> episode_accuracy(jnp.eye(5)[:, None, :]).item()
        1.0
    """
    true = _true_class(logits)
    right = (jnp.argmax(logits, axis=-1) == true) & ~jnp.any(jnp.isnan(logits), axis=-1)
    return jnp.mean(right.astype(jnp.float32))


def cosine_loss_floor(classes: int, scale: float) -> float:
    """The least cross-entropy that cosines times a scale can reach, in nats.

    `log(1 + (C - 1) exp(-2 s))`: the best case is a cosine of 1 with the true class
    and of -1 with all others. At 100 classes and s = 1 the probability, exp(-floor), is
    at most .069, which is why cosines are scaled (Qi et al. 2018, section 4.1).

    Args:
        classes: C.
        scale: s.

    Raises:
        ValueError: fewer than one class, or a negative scale.

    Example:
        >>> f"{math.exp(-cosine_loss_floor(100, 1.0)):.3f}"
        '0.069'
    """
    if classes < 1 or not scale >= 0:
        raise ValueError(
            f"expected at least 1 class and a scale of at least 0, got {classes} and "
            f"{scale}"
        )
    return math.log1p((classes - 1) * math.exp(-2 * scale))


def _pairs(labels: Int[Array, " n"]) -> tuple[Bool[Array, "n n"], Bool[Array, "n n"]]:
    """Pairs of examples of the same class, and pairs of examples of two classes."""
    same = labels[:, None] == labels[None, :]
    return same & ~jnp.eye(labels.shape[0], dtype=bool), ~same


def _square(distances: Array, labels: AnyArray) -> Int[Array, " n"]:
    """Check that distances are `[n, n]` for n labels, and return the labels."""
    shape = np.shape(labels)
    if len(shape) != 1 or not shape[0] or distances.shape != (*shape, *shape):
        raise ValueError(
            "expected distances [n, n] and labels [n], at least one, got shapes "
            f"{distances.shape} and {shape}"
        )
    return jnp.asarray(labels)


def _log_sum_exp(
    x: Float[Array, "*batch m"], where: Bool[Array, "*batch m"]
) -> Float[Array, "*batch"]:
    """The result over marked entries; for none, a large negative constant."""
    return jax.nn.logsumexp(jnp.where(where, x, -1e9), axis=-1)


def _mean_where(x: Float[Array, "n m"], where: Bool[Array, "n m"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(where, x, 0)) / jnp.maximum(jnp.sum(where), 1)


def nca_loss(
    distances: Float[Array, "n n"], labels: Int[AnyArray, " n"]
) -> Float[Array, ""]:
    """Neighbourhood components, `-log(exp(-d(x, y)) / sum over Z of exp(-d(x, z)))`.

    Qi et al. 2018, Eq. 1: the mean over all pairs (x, y) of one class, where Z are the
    examples of other classes. Pairs without any such example are ignored; without pairs
    the loss is zero.

    Args:
        distances: `[n, n]`, squared Euclidean, of a batch with itself.
        labels: `[n]`, any integers: equal ones are one class, -1 like any other.

    Raises:
        ValueError: distances that are not square, or not as many labels.

    Example:
        >>> d = jnp.array([[0.0, 1.0, 3.0], [1.0, 0.0, 3.0], [3.0, 3.0, 0.0]])
        >>> nca_loss(d, jnp.array([0, 0, 1])).item()
        -2.0
    """
    same, other = _pairs(_square(distances, labels))
    terms = distances + _log_sum_exp(-distances, other)[:, None]
    return _mean_where(terms, same & jnp.any(other, axis=1, keepdims=True))


def proxy_nca_loss(
    distances: Float[Array, "n classes"], labels: Int[AnyArray, " n"]
) -> Float[Array, ""]:
    """Proxy-NCA, `-log(exp(-d(x, p(x))) / sum over p(Z) of exp(-d(x, p(z))))`.

    Qi et al. 2018, Eq. 2, with one trained proxy per class; p(Z) are the proxies of the
    other classes only, so the loss may be negative. With all of them in the
    denominator it is the cross-entropy of a cosine head (their Eqs. 3 to 5).

    Args:
        distances: `[n, classes]`, squared Euclidean, of a batch with the proxies.
        labels: `[n]`, integers from 0 to classes - 1.

    Raises:
        ValueError: fewer than two classes, no example, or labels that do not fit.

    Example:
        >>> proxy_nca_loss(jnp.array([[1.0, 3.0]]), jnp.array([0])).item()
        -2.0
    """
    if distances.ndim != 2 or distances.shape[1] < 2 or not distances.size:
        raise ValueError(
            "expected distances [n, classes] to the proxies of at least 2 classes, got "
            f"shape {distances.shape}"
        )
    if np.shape(labels) != distances.shape[:1]:
        raise ValueError(
            f"expected labels of shape ({distances.shape[0]},), got {np.shape(labels)}"
        )
    labels, good = _checked_labels(labels, distances.shape[1])
    own = jax.nn.one_hot(labels, distances.shape[1], dtype=bool)
    near = jnp.where(good, jnp.sum(jnp.where(own, distances, 0), axis=1), jnp.nan)
    return jnp.mean(near + _log_sum_exp(-distances, ~own))


def lifted_structured_loss(
    distances: Float[Array, "n n"], labels: Int[AnyArray, " n"], *, margin: float = 1.0
) -> Float[Array, ""]:
    """Lifted structured loss: each pair against all negatives of both its examples.

    `J = 1/(2|P|) sum over pairs of max(0, J_ij)^2, J_ij = D_ij + log(sum over
    negatives k of i of exp(m - D_ik) + sum over negatives l of j of exp(m - D_jl))`,
    with D the distance, not its square (Song et al. 2016, Eq. 4). Zero for a batch
    without a pair of one class.

    Args:
        distances: `[n, n]`, squared Euclidean, of a batch with itself.
        labels: `[n]`, any integers: equal ones are one class, -1 like any other.
        margin: m.

    Raises:
        ValueError: distances that are not square, or not as many labels.

    Example:
        >>> d = jnp.full((3, 3), 4.0)
        >>> f"{lifted_structured_loss(d, jnp.array([0, 0, 1])).item():.4f}"
        '1.4334'
    """
    same, other = _pairs(_square(distances, labels))
    # A squared distance may be slightly negative; at 0, sqrt has an infinite gradient.
    some = distances > 1e-12
    d = jnp.where(some, jnp.sqrt(jnp.where(some, distances, 1)), 0)
    negatives = _log_sum_exp(margin - d, other)
    lifted = d + jnp.logaddexp(negatives[:, None], negatives[None, :])
    return _mean_where(jnp.square(jax.nn.relu(lifted)), same) / 2
