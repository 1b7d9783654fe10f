"""Embeddings as vectors: their direction and their distances.

In float32 or wider, at the highest matmul precision, since a squared distance in matrix
form is a small difference of large numbers.
"""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

HIGHEST = jax.lax.Precision.HIGHEST


def wide(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """In float32, or in what is wider."""
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))


def normalize(z: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Embeddings scaled to length 1, `z / |z|`.

    A zero embedding, or one shorter than 1e-12, becomes zero, with a zero gradient.

    Example:
        >>> normalize(jnp.array([3.0, 4.0])).round(3).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    z = wide(z)
    return z * inverse_length(z)[..., None]


def inverse_length(z: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    """`1 / |z|`, and 0 where `normalize` gives zero."""
    squared = jnp.sum(z * z, axis=-1)
    long = squared > 1e-24
    # The inner where keeps what the outer one leaves out from giving NaN gradients.
    return jnp.where(long, jax.lax.rsqrt(jnp.where(long, squared, 1)), 0)


def squared_euclidean(
    a: Float[Array, "n dim"], b: Float[Array, "m dim"]
) -> Float[Array, "n m"]:
    """Squared Euclidean distances, `|a|^2 - 2 <a, b> + |b|^2`.

    Snell et al. 2017, section 2.7: the Bregman divergence under which the class mean
    is the right representative. In matrix form, whose absolute error is near float32's
    epsilon times the squared norms; a distance smaller than that may come out slightly
    negative.

    Args:
        a: one embedding a row.
        b: one embedding a row.

    Example:
        >>> squared_euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).item()
        25.0
    """
    chex.assert_rank([a, b], 2)
    a, b = wide(a), wide(b)
    inner = jnp.matmul(a, b.T, precision=HIGHEST)
    return jnp.sum(a * a, 1)[:, None] - 2 * inner + jnp.sum(b * b, 1)[None, :]


def cosine_distance(
    a: Float[Array, "n dim"], b: Float[Array, "m dim"]
) -> Float[Array, "n m"]:
    """Cosine distances, `1 - <a, b> / (|a| |b|)`, from 0 to 2.

    Example:
        >>> cosine_distance(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])).item()
        1.0
    """
    chex.assert_rank([a, b], 2)
    return 1 - jnp.matmul(normalize(a), normalize(b).T, precision=HIGHEST)
