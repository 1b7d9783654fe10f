"""ResNet-20 for small images."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Precision, batch_norm, conv, with_embedding
from jaxfer.types import Mode, Net


@dataclass(frozen=True)
class ResNet20:
    """A convolution, nine residual blocks of two convolutions, and mean pooling.

    He et al. 2016, section 4.2: three stages of 1, 2 and 4 times `width` channels; the
    second and the third stage halve the sides. Shortcuts have no parameters: they take
    every other pixel and pad channels with zeros (option A).

    Attributes:
        width: channels of the first stage.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Example:
        >>> import jax
        >>> net = ResNet20(width=2).build()
        >>> params, state = net.init(jax.random.key(0), (8, 8, 3))
        >>> net.apply(params, state, jnp.zeros((2, 8, 8, 3)))[0].shape
        (2, 8)
    """

    width: int = 16
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers conv1 and block1 to block9."""
        dtype = jnp.dtype(self.precision)
        blocks: list[tuple[str, nn.Module]] = [("conv1", _Stem(self.width, dtype))]
        for i in range(9):
            stage, first = divmod(i, 3)
            stride = 2 if stage and not first else 1
            width = self.width * 2**stage
            blocks.append((f"block{i + 1}", _Block(width, stride, dtype, pool=i == 8)))
        return chain(with_embedding(blocks, self.dim), spec=self)


class _Stem(nn.Module):
    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        x = conv(self.width, 3, self.dtype)(x)
        return nn.relu(batch_norm(mode, self.dtype)(x))


class _Block(nn.Module):
    width: int
    stride: int
    dtype: DTypeLike
    pool: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        y = conv(self.width, 3, self.dtype, stride=self.stride)(x)
        y = nn.relu(batch_norm(mode, self.dtype)(y))
        y = conv(self.width, 3, self.dtype)(y)
        y = batch_norm(mode, self.dtype)(y)
        shortcut = x[:, :: self.stride, :: self.stride]
        more = self.width - x.shape[-1]
        shortcut = jnp.pad(
            shortcut, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))
        )
        y = nn.relu(y + shortcut)
        return y.mean(axis=(1, 2)) if self.pool else y
