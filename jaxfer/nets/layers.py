"""Linen blocks that several networks share."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.types import Mode

Precision = Literal["float32", "bfloat16"]


class Linear(nn.Module):
    """A linear layer on the flattened input, in float32.

    Attributes:
        dim: the dimension of its output.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], mode: Mode) -> Float[Array, "n dim"]:
        """Return the embedding."""
        del mode
        flat = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return nn.Dense(self.dim)(flat)


def with_embedding(
    blocks: Sequence[tuple[str, nn.Module]], dim: int | None
) -> list[tuple[str, nn.Module]]:
    """Append a linear layer `embedding` to the blocks if a dimension is given."""
    last = [] if dim is None else [("embedding", Linear(dim))]
    return [*blocks, *last]


def batch_norm(mode: Mode, dtype: DTypeLike) -> nn.BatchNorm:
    """Return the BatchNorm layer for a mode."""
    return nn.BatchNorm(
        use_running_average=mode.batch_norm == "running",
        momentum=mode.momentum,
        epsilon=1e-5,
        dtype=dtype,
    )
