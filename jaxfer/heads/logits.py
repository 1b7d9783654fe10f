"""The one function from templates and embeddings to logits."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxfer.heads.vectors import HIGHEST, normalize, wide
from jaxfer.types import Head


def head_logits(
    head: Head, z: Float[Array, "*batch dim"]
) -> Float[Array, "*batch classes"]:
    """The logits of a head: scores of its rows, pooled by class.

    `score_i = scale_i <w_i, z> + b_i` (with w_i and z at length 1 if `head.unit`); the
    logit of class k is the max or the log-sum-exp of the scores of its rows, and -inf
    where it has none.

    Args:
        head: the templates.
        z: embeddings; leading axes are free.

    Raises:
        AssertionError: embeddings of another dimension than the templates.

    Example:
        >>> from jaxfer import linear_head
        >>> head = linear_head(jax.random.key(0), 64, 10)
        >>> head_logits(head, jnp.zeros((5, 3, 64))).shape
        (5, 3, 10)
    """
    chex.assert_equal(z.shape[-1], head.weight.shape[-1])
    weight = normalize(head.weight) if head.unit else head.weight
    z = normalize(z) if head.unit else wide(z)
    inner = jnp.matmul(z, weight.T, precision=HIGHEST)
    scale, bias, seen = (
        jnp.broadcast_to(x, inner.shape)
        for x in (head.scale, head.bias, head.owner >= 0)
    )
    scores = jnp.where(seen, scale * inner + bias, -jnp.inf)
    if head.pool is None:
        return scores
    return _pool(scores, head)


def _pool(
    scores: Shaped[Array, "*batch m"], head: Head
) -> Shaped[Array, "*batch classes"]:
    owner = jnp.where(head.owner < 0, head.num_classes, head.owner)
    rows = jnp.moveaxis(scores, -1, 0)
    top = jax.ops.segment_max(rows, owner, head.num_classes)
    if head.pool == "logsumexp":
        # A class without rows, or with empty ones only, has the maximum -inf.
        shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
        padded = jnp.concatenate([shift, jnp.zeros_like(shift[:1])])
        summed = jax.ops.segment_sum(
            jnp.exp(rows - padded[owner]), owner, head.num_classes
        )
        some = summed > 0
        top = jnp.where(some, jnp.log(jnp.where(some, summed, 1)) + shift, -jnp.inf)
    return jnp.moveaxis(top, 0, -1)
