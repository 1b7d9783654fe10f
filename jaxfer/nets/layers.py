"""Linen blocks that several networks share."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.types import Mode

# float64 needs JAX_ENABLE_X64=1.
Precision = Literal["float32", "bfloat16", "float64"]
Padding = Literal["same", "symmetric"]


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


def conv(
    width: int,
    side: int,
    dtype: DTypeLike,
    *,
    stride: int = 1,
    name: str | None = None,
) -> nn.Conv:
    """Return a convolution with a square kernel, side // 2 zeros around, and no bias.

    Kernels are sampled as in He et al. 2015: normal with variance 2 / fan_in.
    """
    return nn.Conv(
        width,
        (side, side),
        strides=stride,
        padding=side // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def batch_norm(
    mode: Mode, dtype: DTypeLike, *, epsilon: float = 1e-5, name: str | None = None
) -> nn.BatchNorm:
    """Return the BatchNorm layer for a mode."""
    return nn.BatchNorm(
        use_running_average=mode.batch_norm == "running",
        momentum=mode.momentum,
        epsilon=epsilon,
        dtype=dtype,
        name=name,
    )


def padding_of(
    x: Float[Array, "n h w c"], side: int, stride: int, padding: Padding
) -> list[tuple[int, int]]:
    """The zeros before and after both sides of a map for a square kernel.

    Args:
        x: the map.
        side: the side of the kernel.
        stride: the stride.
        padding: 'same' as in TensorFlow, where the output has ceil(size / stride) rows
            and an odd zero comes last; or 'symmetric' as in PyTorch, with side // 2
            zeros everywhere.

    Example:
        >>> padding_of(jnp.ones((1, 8, 8, 1)), 3, 2, "same")
        [(0, 1), (0, 1)]
    """
    if padding == "symmetric":
        return [(side // 2, side // 2)] * 2
    zeros = [
        max((-(-size // stride) - 1) * stride + side - size, 0) for size in x.shape[1:3]
    ]
    return [(zero // 2, zero - zero // 2) for zero in zeros]
