"""InceptionV1 with BatchNorm, for images of 224 pixels."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Precision, batch_norm, with_embedding
from jaxfer.types import Mode, Net

# Channels of the four branches of each block: 1x1; 1x1 and 3x3; again 1x1 and 3x3; 1x1
# after a pool.
_BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
_POOLED = ("inception3b", "inception4e")


@dataclass(frozen=True)
class InceptionV1:
    """Three convolutions, nine blocks of four branches, and mean pooling.

    Szegedy et al. 2015, Table 1, with the changes of TensorFlow-slim, from which Qi et
    al. 2018 start: BatchNorm after every convolution, 3x3 kernels where the table has
    5x5, and no auxiliary classifiers. Pools are as in the table.

    Attributes:
        width: channels of the first convolution; all others scale in proportion.
        dropout: share of the pooled features that is dropped in training.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Example:
        >>> import jax
        >>> net = InceptionV1().build()
        >>> draw = lambda key: net.init(key, (224, 224, 3))
        >>> params, state = jax.eval_shape(draw, jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(params))
        5599904
    """

    width: int = 64
    dropout: float = 0.2
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers conv1 to conv3 and inception3a to inception5b."""
        dtype = jnp.dtype(self.precision)

        def scaled(channels: int) -> int:
            return max(1, channels * self.width // 64)

        blocks: list[tuple[str, nn.Module]] = [
            ("conv1", _Stem(scaled(64), 7, 2, True, dtype)),
            ("conv2", _Stem(scaled(64), 1, 1, False, dtype)),
            ("conv3", _Stem(scaled(192), 3, 1, True, dtype)),
        ]
        end = [*_BLOCKS][-1]
        for name, channels in _BLOCKS.items():
            wide = tuple(scaled(c) for c in channels)
            last = self.dropout if name == end else None
            blocks.append((name, _Inception(wide, name in _POOLED, last, dtype)))
        stochastic = (end,) if self.dropout else ()
        blocks = with_embedding(blocks, self.dim)
        return chain(blocks, stochastic=stochastic, spec=self)


class _Stem(nn.Module):
    width: int
    side: int
    stride: int
    pool: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        x = _Unit(self.width, self.side, self.stride, self.dtype)(x, mode)
        return _halved(x) if self.pool else x


class _Inception(nn.Module):
    """Four branches side by side.

    Attributes:
        widths: channels, see `_BLOCKS`.
        pool: whether the sides are halved after the block.
        dropped: for the last block, which pools to a vector, the dropout rate; None for
            other blocks.
        dtype: the dtype of activations.
    """

    widths: tuple[int, ...]
    pool: bool
    dropped: float | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        a, b, bb, c, cc, d = self.widths

        def unit(x: Array, width: int, side: int) -> Array:
            return _Unit(width, side, 1, self.dtype)(x, mode)

        branches = [
            unit(x, a, 1),
            unit(unit(x, b, 1), bb, 3),
            unit(unit(x, c, 1), cc, 3),
            unit(nn.max_pool(x, (3, 3), padding="SAME"), d, 1),
        ]
        x = jnp.concatenate(branches, axis=-1)
        if self.dropped is not None:
            x = x.mean(axis=(1, 2))
            return nn.Dropout(self.dropped, deterministic=not mode.dropout)(x)
        return _halved(x) if self.pool else x


class _Unit(nn.Module):
    width: int
    side: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], mode: Mode
    ) -> Float[Array, "n h2 w2 c2"]:
        x = nn.Conv(
            self.width,
            (self.side, self.side),
            strides=self.stride,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
        )(x)
        return nn.relu(batch_norm(mode, self.dtype)(x))


def _halved(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
