"""The eight-layer network of transfer studies, at the size of small images."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Classifier, batch_norm
from jaxfer.nets.pool import BatchNormPool, max_pool2
from jaxfer.types import Mode, Net


def eight_layers(
    num_classes: int,
    *,
    width: int = 32,
    dense: int = 256,
    dropout: float = 0.5,
    normalize: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """Five convolutions, three dense layers, dropout after the first two of these.

    The shape of the network of Yosinski et al. 2014, section 3 (Krizhevsky et al.
    2012), for images of 16 to 64 pixels: 3x3 convolutions of 1, 2, 3, 3 and 3 times
    `width` channels, each with a ReLU, the first, second and fifth with a 2x2 max-pool;
    no response normalisation. Weights are drawn from N(0, 2 / fan_in) (He et al. 2015),
    those of the classifier from N(0, 1 / fan_in), biases are 0.

    Args:
        num_classes: outputs of the classifier.
        width: channels of the first convolution.
        dense: units of fc6 and fc7.
        dropout: share of the units of fc6 and fc7 that is dropped in training.
        normalize: whether every layer but the classifier has BatchNorm before its
            ReLU.
        dtype: of activations and matmuls; parameters and statistics stay float32.

    Returns:
        The net, with layers conv1 to conv5, fc6 and fc7, and the classifier fc8.

    Raises:
        ValueError: images under 8 pixels a side.

    Example:
        >>> import jax
        >>> net = eight_layers(10, width=4, dense=8)
        >>> params, state = net.init(jax.random.key(0), (16, 16, 3))
        >>> net.apply(params, state, jnp.zeros((2, 16, 16, 3)))[0].shape
        (2, 10)
        >>> net.layers
        ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')
    """
    widths = [width, 2 * width, 3 * width, 3 * width, 3 * width]
    convs = [
        (
            f"conv{i}",
            _Conv(wide, i in (1, 2, 5), normalize, dtype, flatten=i == 5),
        )
        for i, wide in enumerate(widths, 1)
    ]
    denses = [
        (name, _Dense(dense, dropout, normalize, dtype)) for name in ("fc6", "fc7")
    ]
    return chain([*convs, *denses, ("fc8", Classifier(num_classes))], classifier=True)


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
                f"found a map of {x.shape[1]}x{x.shape[2]} before a 2x2 pool: the "
                "eight layers take images of at least 8x8"
            )
        x = nn.Conv(
            self.width,
            (3, 3),
            padding=1,
            use_bias=not self.normalize,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
        )(x)
        if self.normalize and self.pool:
            x = BatchNormPool(nn.initializers.ones, self.dtype, name="BatchNorm_0")(
                x, mode
            )
        elif self.normalize:
            x = nn.relu(batch_norm(mode, self.dtype)(x))
        else:
            # Pooled first: a ReLU changes no order, and has a quarter to do.
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
