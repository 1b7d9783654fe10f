"""Random keys and random numbers that do not depend on JAX's defaults."""

import hashlib
from contextlib import AbstractContextManager

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

# The numbers folded into the key of a training, one per use: the parameters of the
# network, those of its head, the order of the examples, dropout, augmentation, and the
# augmented copies of an example (the number of the copy is folded in next).
INIT, HEAD, ORDER, DROPOUT, CROP, COPIES = range(6)


def key_of(name_or_seed: str | int) -> PRNGKeyArray:
    """A threefry key from a seed or from a name, whatever JAX's default generator is.

    Args:
        name_or_seed: a seed in [0, 2^32), or any string; the first 32 bits of its
            SHA-256 hash are then the seed.

    Raises:
        ValueError: a seed that does not fit into 32 bits.

    Example:
        >>> key_of(7).dtype
        key<fry>
        >>> bool(key_of("seed0-base") == key_of("seed1-base"))
        False
    """
    seed = name_or_seed
    if isinstance(seed, str):
        seed = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
    if not 0 <= seed < 2**32:
        raise ValueError(f"expected a seed in [0, 2^32), got {seed}")
    return jax.random.key(np.uint32(seed), impl="threefry2x32")


def stable_draws() -> AbstractContextManager[None]:
    """A context in which a threefry key gives the same numbers on every installation.

    Random numbers made inside it do not depend on `jax_threefry_partitionable`, also
    inside `jax.jit`, and are the same on any sharding. Request dtypes explicitly there:
    `jax_enable_x64` changes the default ones.

    Example:
        >>> with jax.threefry_partitionable(False), stable_draws():
        ...     jax.random.bits(key_of(0), dtype="uint32").item()
        4070199207
    """
    return jax.threefry_partitionable(True)
