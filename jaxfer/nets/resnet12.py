"""ResNet-12, for few-shot learning."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.dropblock import drop_block
from jaxfer.nets.layers import Precision, with_embedding
from jaxfer.nets.names import Names
from jaxfer.nets.pool import max_pool2
from jaxfer.nets.residual import Unit, residual, residual_names
from jaxfer.types import Mode, Net

# Channels of each block, as a multiple of `width`, and the side of DropBlock's blocks.
_BLOCKS = ((1.0, 1), (2.5, 1), (5.0, 5), (10.0, 5))


@dataclass(frozen=True)
class ResNet12:
    """Four residual blocks of three convolutions, each pooled, and mean pooling.

    Lee et al. 2019, section 4.1, and Tian et al. 2020: 3x3 convolutions with BatchNorm
    and LeakyReLU of slope 0.1, a 1x1 convolution with BatchNorm as shortcut, then 2x2
    max-pooling, which drops an odd last row or column, and DropBlock, with blocks of
    side 1 (which is dropout), 1, 5 and 5. Embeddings have 10 `width` dimensions.

    Attributes:
        width: channels of the first block; the others have 2.5, 5 and 10 times as many.
        dropout: share of each block's output that is dropped in training. It is
            constant; the released code raises it from 0 over the first 40,000 passes in
            blocks 3 and 4.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Raises:
        ValueError: images under 16 pixels per side.

    Example:
        >>> import jax
        >>> net = ResNet12().build()
        >>> draw = lambda key: net.init(key, (84, 84, 3))
        >>> params, _ = jax.eval_shape(draw, jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(params))
        12424320
        >>> net.layers
        ('block1', 'block2', 'block3', 'block4')
    """

    width: int = 64
    dropout: float = 0.1
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers block1 to block4."""
        dtype = jnp.dtype(self.precision)
        blocks: list[tuple[str, nn.Module]] = []
        for i, (multiple, side) in enumerate(_BLOCKS, 1):
            width = int(multiple * self.width)
            block = _Block(width, self.dropout, side, dtype, is_last=i == len(_BLOCKS))
            blocks.append((f"block{i}", block))
        stochastic = [name for name, _ in blocks] if self.dropout else []
        blocks = with_embedding(blocks, self.dim)
        return chain(blocks, stochastic=stochastic, spec=self)

    def names(self) -> tuple[Names, ...]:
        """The names of its weights in the code of Tian et al., which Lee et al. share.

        The library is called 'rfs', as that code is.
        """
        modules = {}
        for i in range(1, len(_BLOCKS) + 1):
            modules |= residual_names(
                f"block{i}", f"layer{i}.0", units=3, has_shortcut=True
            )
        return (Names("rfs", modules, "classifier"),)


class _Block(nn.Module):
    """A residual block, max-pooling and DropBlock.

    Attributes:
        width: channels.
        dropout: the dropout rate.
        side: the side of DropBlock's blocks.
        dtype: the dtype of activations.
        is_last: whether the map is averaged.
    """

    width: int
    dropout: float
    side: int
    dtype: DTypeLike
    is_last: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        if min(x.shape[1:3]) < 2:
            raise ValueError(
                "expected images of at least 16x16 for ResNet12, got a map of "
                f"{x.shape[1]}x{x.shape[2]} before a 2x2 pool"
            )
        units = [Unit(self.width)] * 3
        x = residual(x, mode, units, _activate, self.dtype, has_shortcut=True)
        x = max_pool2(x)
        if self.dropout and mode.dropout:
            key = self.make_rng("dropout")
            x = drop_block(key, x, rate=self.dropout, block=self.side)
        return x.mean(axis=(1, 2)) if self.is_last else x


def _activate(x: Array) -> Array:
    return nn.leaky_relu(x, 0.1)
