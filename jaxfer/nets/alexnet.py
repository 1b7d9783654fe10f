"""AlexNet for small images, the network of transfer studies."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.convolution import convolve
from jaxfer.nets.layers import Precision, batch_norm, with_embedding
from jaxfer.nets.pool import BatchNormPool, max_pool2
from jaxfer.types import Mode, Net


@dataclass(frozen=True)
class AlexNetSmall:
    """Five convolutions and two dense layers, with dropout after each dense layer.

    The architecture of Yosinski et al. 2014, section 3 (Krizhevsky et al. 2012),
    adapted to images of 16 to 64 pixels: 3x3 convolutions of 1, 2, 3, 3 and 3 times
    `width` channels, each with a ReLU, the first, second and fifth with a 2x2 max-pool;
    no response normalisation. Weights come from N(0, 2 / fan_in) (He et al. 2015),
    biases are 0. The eighth layer of the paper is the classifier, the model's head.

    Attributes:
        width: channels of the first convolution.
        dense: units of fc6 and fc7.
        dropout: share of the units of fc6 and fc7 that is dropped in training.
        normalize: whether every layer has BatchNorm before its ReLU.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Raises:
        ValueError: images under 8 pixels per side.

    Example:
        >>> import jax
        >>> net = AlexNetSmall(width=4, dense=8).build()
        >>> params, state = net.init(jax.random.key(0), (16, 16, 3))
        >>> net.apply(params, state, jnp.zeros((2, 16, 16, 3)))[0].shape
        (2, 8)
        >>> net.layers
        ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')
    """

    width: int = 32
    dense: int = 256
    dropout: float = 0.5
    normalize: bool = False
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers conv1 to conv5, fc6 and fc7."""
        dtype, width = jnp.dtype(self.precision), self.width
        widths = [width, 2 * width, 3 * width, 3 * width, 3 * width]
        convs = [
            (
                f"conv{i}",
                _Conv(wide, i in (1, 2, 5), self.normalize, dtype, flatten=i == 5),
            )
            for i, wide in enumerate(widths, 1)
        ]
        dense = ("fc6", "fc7")
        denses = [
            (name, _Dense(self.dense, self.dropout, self.normalize, dtype))
            for name in dense
        ]
        blocks = with_embedding([*convs, *denses], self.dim)
        return chain(blocks, stochastic=dense if self.dropout else (), spec=self)


class _Conv(nn.Module):
    width: int
    pool: bool
    normalize: bool
    dtype: DTypeLike
    flatten: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        if self.pool and min(x.shape[1:3]) < 2:
            raise ValueError(
                "expected images of at least 8x8 pixels, got a map of "
                f"{x.shape[1]}x{x.shape[2]} before a 2x2 pool"
            )
        x = nn.Conv(
            self.width,
            (3, 3),
            padding=1,
            use_bias=not self.normalize,
            dtype=self.dtype,
            conv_general_dilated=convolve,
            kernel_init=nn.initializers.he_normal(),
        )(x)
        if self.normalize and self.pool:
            x = BatchNormPool(nn.initializers.ones, self.dtype, name="BatchNorm_0")(
                x, mode
            )
        elif self.normalize:
            x = nn.relu(batch_norm(mode, self.dtype)(x))
        else:
            # Pool before the ReLU, which is monotone and then has fewer values.
            x = nn.relu(max_pool2(x) if self.pool else x)
        return x.reshape(x.shape[0], -1) if self.flatten else x


class _Dense(nn.Module):
    width: int
    dropout: float
    normalize: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n dim"], mode: Mode) -> Float[Array, "n width"]:
        x = nn.Dense(
            self.width,
            use_bias=not self.normalize,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
        )(x)
        if self.normalize:
            x = batch_norm(mode, self.dtype)(x)
        return nn.Dropout(self.dropout, deterministic=not mode.dropout)(nn.relu(x))
