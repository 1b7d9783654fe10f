"""Exact search for the nearest templates of a head with very many rows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxfer.heads.logits import row_scores
from jaxfer.sharding import split_rows
from jaxfer.types import Head


def nearest_rows(
    head: Head,
    z: Float[Array, "n dim"],
    k: int = 1,
    *,
    block: int | None = None,
    mesh: Any = None,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The k rows of a head with the highest scores, without the scores of all rows.

    The rows are scored block by block, and only the best k are kept, so memory does not
    grow with their number. The result is exact.

    Args:
        head: a head with m rows; rows without an owner are never found.
        z: `[n, dim]`, embeddings.
        k: how many rows to find, at most m.
        block: rows that are scored at a time on a device; default: 4096 on CPUs, whose
            cache holds them, and 65,536 elsewhere.
        mesh: a mesh whose "model" axis divides m. Each device searches its own rows,
            and only the best k of each are gathered. None for one device.

    Returns:
        The scores, the highest first, as `head_logits` computes them before pooling;
        and the numbers of the rows, whose classes are `head.owner[rows]`.

    Raises:
        ValueError: k, block or a mesh that do not fit the head.

    Example:
        >>> from jaxfer import nearest_head
        >>> z = jnp.array([[0.0], [5.0], [9.0]])
        >>> head = nearest_head(z, jnp.arange(3), num_classes=3)
        >>> nearest_rows(head, jnp.array([[6.0]]), 2)[1].tolist()
        [[1, 2]]
    """
    m = head.weight.shape[0]
    if block is None:
        block = 4096 if jax.default_backend() == "cpu" else 65_536
    if not 1 <= k <= m or block < 1:
        raise ValueError(
            f"expected k from 1 to {m}, the number of rows, and block of at least 1, "
            f"got {k} and {block}"
        )
    rows = {
        "weight": head.weight,
        "bias": jnp.broadcast_to(head.bias, (m,)),
        "scale": jnp.broadcast_to(head.scale, (m,)),
        "owner": head.owner,
    }

    # The head without its rows, which each device fills with its own.
    bare = dataclasses.replace(head, **dict.fromkeys(rows), centre=None)
    rows["number"] = jnp.arange(m, dtype=jnp.int32)

    def search(rows: dict[str, Array], rest: tuple[Any, Array]) -> Any:
        centre, z = rest
        return _best(dataclasses.replace(bare, centre=centre), z, rows, k, block)

    rest = (head.centre, z)
    if mesh is None:
        return search(rows, rest)
    if m % mesh.shape["model"]:
        raise ValueError(
            f"expected a number of rows that is a multiple of {mesh.shape['model']} "
            f"devices, got {m}: add rows with owner -1"
        )
    scores, numbers = split_rows(search, mesh)(rows, rest)
    return _top(scores, numbers, k)


def _best(
    head: Head, z: Array, rows: dict[str, Array], k: int, block: int
) -> tuple[Array, Array]:
    """The best rows of those given, at most k; their numbers are `rows["number"]`."""
    m = rows["number"].shape[0]
    k = min(k, m)
    block = max(k, min(block, m))

    def block_best(number: Any) -> tuple[Array, Array]:
        # The last block begins early, and skips the rows that it shares.
        start = jnp.minimum(number * block, m - block)
        part = {
            name: jax.lax.dynamic_slice_in_dim(x, start, block)
            for name, x in rows.items()
        }
        numbers = part.pop("number")
        scores = row_scores(dataclasses.replace(head, **part), z)
        new = start + jnp.arange(block) >= number * block
        scores = jnp.where(jnp.broadcast_to(new, scores.shape), scores, -jnp.inf)
        return _top(scores, jnp.broadcast_to(numbers, scores.shape), k)

    def step(best: tuple[Array, Array], number: Array) -> Any:
        both = zip(best, block_best(number), strict=True)
        scores, numbers = (jnp.concatenate(pair, axis=1) for pair in both)
        return _top(scores, numbers, k), None

    found, _ = jax.lax.scan(step, block_best(0), jnp.arange(1, -(-m // block)))
    return found


def _top(scores: Array, numbers: Array, k: int) -> tuple[Array, Array]:
    top, at = jax.lax.top_k(scores, k)
    return top, jnp.take_along_axis(numbers, at, axis=1)
