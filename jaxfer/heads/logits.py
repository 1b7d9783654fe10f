"""The function that computes logits from templates and embeddings."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxfer.heads.vectors import HIGHEST, normalize, wide
from jaxfer.types import Head


def head_logits(
    head: Head, z: Float[Array, "*batch dim"]
) -> Float[Array, "*batch classes"]:
    """The logits of a head: scores of its rows, pooled by class.

    `score_i = scale_i <w_i, z> + b_i`, with w_i and z at length 1 if `head.unit`. With
    a `head.centre` m, the score is `scale_i (2 <w_i - m, z - m> - |w_i - m|^2) + b_i`,
    which is `-scale_i |z - w_i|^2 + b_i` plus `scale_i |z - m|^2`. The logit of class k
    is the max or the log-sum-exp of the scores of its rows, -inf if it has no row.

    Args:
        head: the templates.
        z: embeddings; leading axes are free.

    Raises:
        ValueError: embeddings of another dimension than the templates, or a head with
            both `unit` and `centre`.

    Example:
        >>> from jaxfer import linear_head
        >>> head = linear_head(jax.random.key(0), 64, 10)
        >>> head_logits(head, jnp.zeros((5, 3, 64))).shape
        (5, 3, 10)
    """
    scores = row_scores(head, z)
    return scores if head.pool is None else _pool(scores, head)


def row_scores(head: Head, z: Float[Array, "*batch dim"]) -> Float[Array, "*batch m"]:
    """The score of each row, see `head_logits`; -inf for a row without an owner.

    Args:
        head: the templates.
        z: embeddings; leading axes are free.

    Raises:
        ValueError: see `head_logits`.
    """
    if z.shape[-1:] != head.weight.shape[-1:]:
        raise ValueError(
            f"expected embeddings of dimension {head.weight.shape[-1]} as the rows of "
            f"the head, got shape {z.shape}"
        )
    if head.unit and head.centre is not None:
        raise ValueError("expected a head with unit or with a centre, got both")
    products = _products(head, z)
    scale, bias, used = (
        jnp.broadcast_to(x, products.shape)
        for x in (head.scale, head.bias, head.owner >= 0)
    )
    return jnp.where(used, scale * products + bias, -jnp.inf)


def _products(head: Head, z: Array) -> Float[Array, "*batch m"]:
    if head.unit:
        return jnp.matmul(normalize(z), normalize(head.weight).T, precision=HIGHEST)
    weight, z = wide(head.weight), wide(z)
    if head.centre is None:
        return jnp.matmul(z, weight.T, precision=HIGHEST)
    centre = jax.lax.stop_gradient(head.centre)
    weight, z = (x - jnp.broadcast_to(centre, x.shape) for x in (weight, z))
    inner = jnp.matmul(z, weight.T, precision=HIGHEST)
    return 2 * inner - jnp.broadcast_to(jnp.sum(weight * weight, axis=1), inner.shape)


def _pool(
    scores: Shaped[Array, "*batch m"], head: Head
) -> Shaped[Array, "*batch classes"]:
    owner = jnp.where(head.owner < 0, head.num_classes, head.owner)
    rows = jnp.moveaxis(scores, -1, 0)
    top = jax.ops.segment_max(rows, owner, head.num_classes)
    if head.pool == "logsumexp":
        # A class without rows, or with empty slots only, has the maximum -inf.
        shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
        padded = jnp.concatenate([shift, jnp.zeros_like(shift[:1])])
        summed = jax.ops.segment_sum(
            jnp.exp(rows - padded[owner]), owner, head.num_classes
        )
        # Not `summed > 0`: a NaN has to stay NaN.
        some = summed != 0
        top = jnp.where(some, jnp.log(jnp.where(some, summed, 1)) + shift, -jnp.inf)
    return jnp.moveaxis(top, 0, -1)
