"""Adding rows to a head."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxfer.types import AnyArray, Head


def append_rows(
    head: Head,
    rows: Float[Array, "more dim"],
    owner: Int[AnyArray, " more"],
    *,
    num_classes: int | None = None,
    pool: Literal["max", "logsumexp"] | None = None,
) -> Head:
    """A head with more rows: the new ones have zero bias and the mean scale.

    The existing rows stay bit-identical. A head with one scale for all rows keeps it; a
    head with one scale per row gives new rows the mean of the scales of rows in use.

    Args:
        head: a head of any kind.
        rows: `[more, dim]`, templates in the form of `head.weight`.
        owner: `[more]`, the class of each new row; -1 makes an empty slot.
        num_classes: classes of the new head; default: one more than the highest owner,
            and not fewer than before. Required if `owner` is traced.
        pool: how rows of one class combine; default: as in `head`.

    Raises:
        ValueError: rows of another dimension, a number of owners other than the number
            of rows, or, without pooling, an owner that is not the index of its row.

    Example:
        >>> import jax
        >>> from jaxfer import cosine_head
        >>> head = cosine_head(jax.random.key(0), 2, 3)
        >>> append_rows(head, jnp.ones((1, 2)), jnp.array([3])).num_classes
        4
    """
    m, dim = head.weight.shape
    if rows.ndim != 2 or rows.shape[1] != dim or np.shape(owner) != rows.shape[:1]:
        raise ValueError(
            f"expected rows [more, {dim}] and owner [more], got shapes {rows.shape} "
            f"and {np.shape(owner)}"
        )
    pool = head.pool if pool is None else pool
    if isinstance(owner, Tracer):
        if num_classes is None:
            raise ValueError("expected num_classes for a traced owner, got None")
    else:
        owner = np.asarray(owner)
        top = int(owner.max(initial=-1)) + 1
        num_classes = max(head.num_classes, top) if num_classes is None else num_classes
        _check_owner(owner, m, num_classes, pool)
    scale = jnp.asarray(head.scale)
    if scale.ndim:
        more = jnp.broadcast_to(mean_scale(head), rows.shape[:1])
        scale = jnp.concatenate([scale, more.astype(scale.dtype)])
    zeros = jnp.zeros(rows.shape[:1], head.bias.dtype)
    return dataclasses.replace(
        head,
        weight=jnp.concatenate([head.weight, rows.astype(head.weight.dtype)]),
        bias=jnp.concatenate([head.bias, zeros]),
        scale=scale,
        owner=jnp.concatenate([head.owner, jnp.asarray(owner, head.owner.dtype)]),
        num_classes=num_classes,
        pool=pool,
    )


def mean_scale(head: Head) -> Float[Array, ""]:
    """The mean of the scales of the rows in use; of all rows if none is in use."""
    scale = jnp.asarray(head.scale)
    if not scale.ndim:
        return scale
    used = head.owner >= 0
    used = used | ~jnp.any(used)
    return jnp.sum(jnp.where(used, scale, 0)) / jnp.maximum(jnp.sum(used), 1)


def _check_owner(owner: np.ndarray, m: int, num_classes: int, pool: Any) -> None:
    if owner.size and not -1 <= owner.min() <= owner.max() < num_classes:
        raise ValueError(
            f"expected owners from -1 to {num_classes - 1}, got {owner.min()} to "
            f"{owner.max()}"
        )
    place = np.arange(m, m + owner.size)
    if pool is None and ((owner != place) & (owner != -1)).any():
        raise ValueError(
            "expected each new row to be the only row of the class with its index, "
            f"{place.tolist()}, got owner {owner.tolist()}: pass pool='max' for "
            "several rows per class"
        )
