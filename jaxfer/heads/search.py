"""Exact search for the nearest templates of a head with very many rows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxfer.heads.logits import row_scores
from jaxfer.types import Head


def nearest_rows(
    head: Head, z: Float[Array, "n dim"], k: int = 1, *, block: int = 65_536
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The k rows of a head with the highest scores, without the scores of all rows.

    The rows are scored block by block, and only the best k are kept, so memory does not
    grow with their number. The result is exact.

    Args:
        head: a head with m rows; rows without an owner are never found.
        z: `[n, dim]`, embeddings.
        k: how many rows to find, at most m.
        block: rows that are scored at a time.

    Returns:
        The scores, the highest first, as `head_logits` computes them before pooling;
        and the numbers of the rows, whose classes are `head.owner[rows]`.

    Raises:
        ValueError: k or block that do not fit the head.

    Example:
        >>> from jaxfer import nearest_head
        >>> z = jnp.array([[0.0], [5.0], [9.0]])
        >>> head = nearest_head(z, jnp.arange(3), num_classes=3)
        >>> nearest_rows(head, jnp.array([[6.0]]), 2)[1].tolist()
        [[1, 2]]
    """
    m = head.weight.shape[0]
    if not 1 <= k <= m or block < 1:
        raise ValueError(
            f"expected k from 1 to {m}, the number of rows, and block of at least 1, "
            f"got {k} and {block}"
        )
    block = max(k, min(block, m))
    scale, bias = (jnp.broadcast_to(x, (m,)) for x in (head.scale, head.bias))

    def part(x: Any, start: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, start, block)

    def step(best: Any, number: Array) -> Any:
        # The last block begins early, and skips the rows that it shares.
        start = jnp.minimum(number * block, m - block)
        rows = start + jnp.arange(block)
        one = dataclasses.replace(
            head,
            weight=part(head.weight, start),
            bias=part(bias, start),
            scale=part(scale, start),
            owner=part(head.owner, start),
        )
        scores = row_scores(one, z)
        new = jnp.broadcast_to(rows >= number * block, scores.shape)
        scores, at = jax.lax.top_k(jnp.where(new, scores, -jnp.inf), k)
        scores = jnp.concatenate([best[0], scores], axis=1)
        found = jnp.concatenate([best[1], rows[at].astype(jnp.int32)], axis=1)
        top, order = jax.lax.top_k(scores, k)
        return (top, jnp.take_along_axis(found, order, axis=1)), None

    n = z.shape[0]
    begin = jnp.full((n, k), -jnp.inf), jnp.zeros((n, k), jnp.int32)
    found, _ = jax.lax.scan(step, begin, jnp.arange(-(-m // block)))
    return found
