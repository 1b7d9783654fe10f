"""Losses on logits. One episode, or one batch; `jax.vmap` gives many."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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
