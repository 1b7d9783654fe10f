"""Embeddings as vectors: their direction, and distances between them.

Everything is computed in float32 or wider and at the highest matmul precision, because
a squared distance in matrix form is a small difference of large numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

HIGHEST = jax.lax.Precision.HIGHEST


def wide(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The array in float32, or unchanged if its type is wider."""
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))


def normalize(z: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Embeddings scaled to length 1, `z / |z|`.

    It is correct for every normal float32 number, from 1.2e-38 to 3.4e38. An embedding
    whose entries are all smaller counts as zero: it becomes zero, with a zero gradient.
    An embedding with a NaN or an infinity becomes NaN.

    Args:
        z: embeddings; leading axes are free.

    Example:
        >>> normalize(jnp.array([3e30, 4e30])).round(3).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    z = wide(z)
    largest = jax.lax.stop_gradient(
        jnp.max(jnp.abs(z), axis=-1, keepdims=True, initial=0)
    )
    zero = largest < jnp.finfo(z.dtype).tiny
    # Scale by a power of two to a range where squares neither overflow nor underflow.
    # The factor cancels exactly, so it needs no gradient; for most lengths it is 1.
    factor = jnp.where(largest > 2.0**40, 2.0**-84, 1)
    factor = jnp.where(largest < 2.0**-40, 2.0**84, factor).astype(z.dtype)
    y = z * factor
    squared = jnp.sum(y * y, axis=-1, keepdims=True)
    # The inner `where` prevents NaN gradients from the branch that is not taken.
    return y * jnp.where(zero, 0, jax.lax.rsqrt(jnp.where(zero, 1, squared)))


def unit_rows(z: Float[np.ndarray, "*batch dim"]) -> Float[np.ndarray, "*batch dim"]:
    """`normalize` on the host, in the precision of the embeddings.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    length = np.linalg.norm(z, axis=-1, keepdims=True)
    return z / np.where(length > 0, length, 1)


def squared_euclidean(
    a: Float[Array, "n dim"], b: Float[Array, "m dim"]
) -> Float[Array, "n m"]:
    """Squared Euclidean distances, `|a|^2 - 2 <a, b> + |b|^2`.

    Snell et al. 2017, section 2.7: the Bregman divergence under which the class mean is
    the right representative. The common mean is subtracted first, so the rounding error
    is about float32's epsilon times the squared spread of the embeddings, whatever
    their mean; a distance smaller than that may be slightly negative.

    Args:
        a: `[n, dim]`.
        b: `[m, dim]`.

    Raises:
        ValueError: arrays that are not matrices with the same number of columns.

    Example:
        >>> squared_euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).item()
        25.0
    """
    _check_pair(a, b)
    a, b = wide(a), wide(b)
    middle = mean_row(jnp.concatenate([a, b]))
    a, b = a - middle[None], b - middle[None]
    inner = jnp.matmul(a, b.T, precision=HIGHEST)
    return jnp.sum(a * a, 1)[:, None] - 2 * inner + jnp.sum(b * b, 1)[None, :]


def cosine_distance(
    a: Float[Array, "n dim"], b: Float[Array, "m dim"]
) -> Float[Array, "n m"]:
    """Cosine distances, `1 - <a, b> / (|a| |b|)`, from 0 to 2.

    Args:
        a: `[n, dim]`.
        b: `[m, dim]`.

    Raises:
        ValueError: arrays that are not matrices with the same number of columns.

    Example:
        >>> cosine_distance(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])).item()
        1.0
    """
    _check_pair(a, b)
    return 1 - jnp.matmul(normalize(a), normalize(b).T, precision=HIGHEST)


def mean_row(
    rows: Float[Array, "m dim"], where: Bool[Array, " m"] | None = None
) -> Float[Array, " dim"]:
    """The mean of the rows that are finite, without a gradient; zero if there is none.

    Distances do not depend on the centre they are computed around, so its gradient is
    zero. A row that is not finite must not affect the distances of other rows.

    Args:
        rows: `[m, dim]`.
        where: `[m]`, the rows to use; default: all.
    """
    rows = jax.lax.stop_gradient(rows)
    used = jnp.all(jnp.isfinite(rows), axis=1)
    used = used if where is None else used & where
    count = jnp.maximum(jnp.sum(used), 1).astype(rows.dtype)
    return jnp.sum(jnp.where(used[:, None], rows, 0), axis=0) / count


def check_matrix(z: Array | np.ndarray, what: str = "embeddings") -> None:
    """Refuse an array that is not `[n, dim]`; n may be 0, dim may not.

    Raises:
        ValueError: an array of another shape.
    """
    if np.ndim(z) != 2 or not np.shape(z)[1]:
        raise ValueError(f"expected {what} of shape [n, dim], got {np.shape(z)}")


def _check_pair(a: Array, b: Array) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            "expected embeddings [n, dim] and [m, dim] of one dimension, got shapes "
            f"{a.shape} and {b.shape}"
        )
