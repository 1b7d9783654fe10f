"""Losses, on logits or distances. One episode or one batch; `jax.vmap` gives many."""

import math

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def softmax_cross_entropy(
    logits: Float[Array, "*batch classes"], labels: Int[Array, "*batch"]
) -> Float[Array, ""]:
    """Mean cross-entropy in nats, `-log softmax(logits)[label]`.

    Args:
        logits: -inf stands for a class that is not there.
        labels: integers, 0 to classes - 1.

    Example:
        >>> f"{softmax_cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 1, 2])):.4f}"
        '1.3863'
    """
    chex.assert_equal_shape_prefix([logits, labels], labels.ndim)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def _true_class(logits: Float[Array, "way n_query way"]) -> Int[Array, "way n_query"]:
    chex.assert_rank(logits, 3)
    way, n_query, _ = logits.shape
    rows = jnp.arange(way, dtype=jnp.int32)
    return jnp.broadcast_to(rows[:, None], (way, n_query))


def episode_nll(logits: Float[Array, "way n_query way"]) -> Float[Array, ""]:
    """The episode's loss, the mean over queries of `-log p(y = k | x)`, in nats.

    Snell et al. 2017, Algorithm 1: squared distances, no temperature, not divided by
    the dimension.

    Args:
        logits: row k holds the queries of class k.

    Example:
        >>> f"{episode_nll(jnp.zeros((5, 15, 5))):.4f}"
        '1.6094'
    """
    return softmax_cross_entropy(logits, _true_class(logits))


def episode_accuracy(logits: Float[Array, "way n_query way"]) -> Float[Array, ""]:
    """The share of queries whose own class has the highest logit, from 0 to 1.

    A tie goes to the first of the tied classes.

    Example:
        >>> episode_accuracy(jnp.eye(5)[:, None, :]).item()
        1.0
    """
    predicted = jnp.argmax(logits, axis=-1)
    return jnp.mean((predicted == _true_class(logits)).astype(jnp.float32))


def cosine_loss_floor(classes: int, scale: float) -> float:
    """The least cross-entropy that cosines times a scale can reach, in nats.

    `log(1 + (C - 1) exp(-2 s))`: the best there could be is a cosine of 1 with the own
    class and of -1 with all others. At 100 classes and s = 1 the probability, exp(-
    floor), is at most .069, which is why the scale is there (Qi et al. 2018, section
    4.1).

    Raises:
        ValueError: fewer than one class.

    Example:
        >>> f"{math.exp(-cosine_loss_floor(100, 1.0)):.3f}"
        '0.069'
    """
    if classes < 1:
        raise ValueError(f"found {classes} classes, needed at least one")
    return math.log1p((classes - 1) * math.exp(-2 * scale))


def _pairs(labels: Int[Array, " n"]) -> tuple[Bool[Array, "n n"], Bool[Array, "n n"]]:
    """Which are of one class and not the same example, and which of two classes."""
    same = labels[:, None] == labels[None, :]
    return same & ~jnp.eye(labels.shape[0], dtype=bool), ~same


def _log_sum_exp(
    x: Float[Array, "*batch m"], where: Bool[Array, "*batch m"]
) -> Float[Array, "*batch"]:
    """Over some of them; a large negative number, with no gradient, over none."""
    return jax.nn.logsumexp(jnp.where(where, x, -1e9), axis=-1)


def _mean_where(x: Float[Array, "n m"], where: Bool[Array, "n m"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(where, x, 0)) / jnp.maximum(jnp.sum(where), 1)


def nca_loss(
    distances: Float[Array, "n n"], labels: Int[Array, " n"]
) -> Float[Array, ""]:
    """Neighbourhood components, `-log(exp(-d(x, y)) / sum over Z of exp(-d(x, z)))`.

    Qi et al. 2018, Eq. 1: the mean over all pairs (x, y) of one class, Z being the
    examples of other classes. Pairs without such are left out; without any the loss is
    zero.

    Args:
        distances: squared Euclidean, of a batch with itself.
        labels: classes.

    Example:
        >>> d = jnp.array([[0.0, 1.0, 3.0], [1.0, 0.0, 3.0], [3.0, 3.0, 0.0]])
        >>> nca_loss(d, jnp.array([0, 0, 1])).item()
        -2.0
    """
    chex.assert_shape(distances, (*labels.shape, *labels.shape))
    same, other = _pairs(labels)
    terms = distances + _log_sum_exp(-distances, other)[:, None]
    return _mean_where(terms, same & jnp.any(other, axis=1, keepdims=True))


def proxy_nca_loss(
    distances: Float[Array, "n classes"], labels: Int[Array, " n"]
) -> Float[Array, ""]:
    """Proxy-NCA, `-log(exp(-d(x, p(x))) / sum over p(Z) of exp(-d(x, p(z))))`.

    Qi et al. 2018, Eq. 2, with one trained proxy a class; p(Z) are the proxies of the
    other classes only, so the loss may be negative. With all of them in the
    denominator it is the cross-entropy of a cosine head (their Eqs. 3 to 5).

    Args:
        distances: squared Euclidean, of a batch with the proxies.
        labels: classes.

    Raises:
        ValueError: fewer than two classes.

    Example:
        >>> proxy_nca_loss(jnp.array([[1.0, 3.0]]), jnp.array([0])).item()
        -2.0
    """
    chex.assert_equal(distances.shape[0], labels.shape[0])
    if distances.shape[1] < 2:
        raise ValueError(
            f"found {distances.shape[1]} proxies, needed those of two classes at least"
        )
    own = jax.nn.one_hot(labels, distances.shape[1], dtype=bool)
    near = jnp.sum(jnp.where(own, distances, 0), axis=1)
    return jnp.mean(near + _log_sum_exp(-distances, ~own))


def lifted_structured_loss(
    distances: Float[Array, "n n"], labels: Int[Array, " n"], *, margin: float = 1.0
) -> Float[Array, ""]:
    """Lifted structured loss: each pair against all the negatives of its two ends.

    `J = 1/(2|P|) sum over pairs of max(0, J_ij)^2, J_ij = D_ij + log(sum over
    negatives k of i of exp(m - D_ik) + sum over negatives l of j of exp(m - D_jl))`,
    with D the distance, not its square (Song et al. 2016, Eq. 4). Zero for a batch
    without a pair of one class.

    Args:
        distances: squared Euclidean, of a batch with itself.
        labels: classes; several examples of each make the pairs.
        margin: m.

    Example:
        >>> d = jnp.full((3, 3), 4.0)
        >>> f"{lifted_structured_loss(d, jnp.array([0, 0, 1])).item():.4f}"
        '1.4334'
    """
    chex.assert_shape(distances, (*labels.shape, *labels.shape))
    same, other = _pairs(labels)
    # A squared distance may come out slightly negative; at zero the root has no slope.
    some = distances > 1e-12
    d = jnp.where(some, jnp.sqrt(jnp.where(some, distances, 1)), 0)
    negatives = _log_sum_exp(margin - d, other)
    lifted = d + jnp.logaddexp(negatives[:, None], negatives[None, :])
    return _mean_where(jnp.square(jax.nn.relu(lifted)), same) / 2
