"""Linen blocks that several networks are made of."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.types import Mode

Precision = Literal["float32", "bfloat16"]


class Linear(nn.Module):
    """A linear layer on whatever comes in, flattened, in float32.

    Attributes:
        dim: of its output.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], mode: Mode) -> Float[Array, "n dim"]:
        """The embedding."""
        del mode
        flat = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return nn.Dense(self.dim)(flat)


def with_embedding(
    blocks: Sequence[tuple[str, nn.Module]], dim: int | None
) -> list[tuple[str, nn.Module]]:
    """Blocks with a linear layer `embedding` after them, where a dimension is given."""
    last = [] if dim is None else [("embedding", Linear(dim))]
    return [*blocks, *last]


def batch_norm(mode: Mode, dtype: DTypeLike) -> nn.BatchNorm:
    """BatchNorm as a mode has it."""
    return nn.BatchNorm(
        use_running_average=mode.batch_norm == "running",
        momentum=mode.momentum,
        epsilon=1e-5,
        dtype=dtype,
    )
