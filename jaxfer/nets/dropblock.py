"""DropBlock: dropout of square parts of a map."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray


def drop_block(
    key: PRNGKeyArray, x: Float[Array, "n h w c"], *, rate: float, block: int
) -> Float[Array, "n h w c"]:
    """Set random blocks of each channel to 0 and scale up what is kept.

    Ghiasi et al. 2018, Algorithm 1: every block that lies within a map of side s is
    dropped with probability `gamma = rate / block^2 * s^2 / (s - block + 1)^2`, and the
    rest is divided by the share of values that is kept in the whole batch. Blocks may
    overlap, so that a little less than `rate` is dropped. With block = 1 it is dropout.

    Args:
        key: a key.
        x: maps.
        rate: the share of values to drop, in [0, 1).
        block: the side of a block; a side of the map if that is smaller.

    Example:
        >>> x = jnp.ones((1, 5, 5, 8))
        >>> y = drop_block(jax.random.key(0), x, rate=0.5, block=5)
        >>> (y == y[:, :1, :1]).all().item(), f"{y.mean():.2f}"
        (True, '1.00')
    """
    n, height, width, channels = x.shape
    a, b = min(block, height), min(block, width)
    rows, columns = height - a + 1, width - b + 1
    gamma = rate / (a * b) * (height * width) / (rows * columns)
    seeds = jax.random.bernoulli(key, gamma, (n, rows, columns, channels))
    # A value is dropped if one of the blocks that it is in starts at a seed.
    margins: Any = ((a - 1, a - 1), (b - 1, b - 1))
    dropped = nn.max_pool(seeds.astype(jnp.float32), (a, b), padding=margins)
    kept = 1 - dropped
    # If all is dropped, there is nothing to scale.
    share = jnp.maximum(kept.mean(), 1 / kept.size)
    return x * (kept / share).astype(x.dtype)
