"""The order of a shuffled epoch, as a function from positions to examples.

No list of a whole epoch is made, sorted or stored. Each compiled step computes the
examples of its own batch, so a run can resume at any step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, PRNGKeyArray

from jaxfer.keys import stable_draws

_ROUNDS = 6


def shuffled(
    key: PRNGKeyArray,
    epoch: int | Integer[Array, ""],
    places: Integer[Array, " m"],
    *,
    n: int,
) -> Integer[Array, " m"]:
    """The examples at some positions of an epoch, in which each example occurs once.

    A Feistel network permutes the numbers below the next power of four, which is at
    least n. Results outside [0, n) pass through it again until they are inside (Black &
    Rogaway 2002), which gives a permutation of n.

    Args:
        key: key of the training run. A threefry key (see `keys.key_of`) gives the same
            order under all defaults of JAX.
        epoch: number of the epoch; each epoch has its own order.
        places: positions in the epoch, in [0, n); may be traced.
        n: number of examples, at most 2^30.

    Raises:
        ValueError: n is out of range.

    Example:
        >>> order = shuffled(jax.random.key(0), 0, jnp.arange(5), n=5)
        >>> sorted(order.tolist())
        [0, 1, 2, 3, 4]
    """
    if not 1 <= n <= 2**30:
        raise ValueError(f"expected 1 to 2^30 examples, got {n}")
    bits = max(1, -(-(n - 1).bit_length() // 2))
    mask = jnp.uint32(2**bits - 1)
    with stable_draws():
        round_keys = jax.random.bits(
            jax.random.fold_in(key, epoch), (_ROUNDS,), dtype=jnp.uint32
        )

    def scramble(x: Array) -> Array:
        left, right = x >> bits, x & mask
        for i in range(_ROUNDS):
            left, right = right, left ^ (_mix(right, round_keys[i]) & mask)
        return left << bits | right

    def again(x: Array) -> Array:
        return jnp.where(x < n, x, scramble(x))

    first = scramble(jnp.asarray(places).astype(jnp.uint32))
    inside = jax.lax.while_loop(lambda x: (x >= n).any(), again, first)
    return inside.astype(jnp.int32)


def _mix(x: Array, key: Array) -> Array:
    """Hash a word with a key; each bit of the hash depends on all bits of both."""
    x = (x ^ key) * jnp.uint32(0x9E3779B1)
    x = (x ^ (x >> 15)) * jnp.uint32(0x85EBCA77)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE3D)
    return x ^ (x >> 16)
