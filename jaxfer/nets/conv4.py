"""Conv4: the four-block convolutional embedding of few-shot learning."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxfer.nets.chain import chain
from jaxfer.nets.pool import BatchNormPool
from jaxfer.types import Mode, Net

ScaleInit = Literal["ones", "uniform"]


def conv4(
    *,
    width: int = 64,
    bn_scale_init: ScaleInit = "uniform",
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """Four blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max-pool, then flatten.

    Snell et al. 2017, section 3.1. Sides are halved four times, rounding down: a 28x28
    image gives an embedding of `width`, an 84x84 image one of 25 `width`. Convolutions
    have a bias; they are drawn as the released code's framework draws them,
    U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
        width: channels of every block.
        bn_scale_init: BatchNorm scales at first: 'uniform' draws them from U(0, 1) as
            the framework of the paper's time did, 'ones' is today's custom.
        dtype: of activations and matmuls; parameters and statistics stay float32.

    Returns:
        The net, with layers conv1 to conv4.

    Raises:
        ValueError: an unknown `bn_scale_init`, or images under 16 pixels a side.

    Example:
        >>> net = conv4(width=8)
        >>> params, state = net.init(jax.random.key(0), (28, 28, 1))
        >>> net.apply(params, state, jnp.zeros((5, 28, 28, 1)))[0].shape
        (5, 8)
    """
    if bn_scale_init not in ("ones", "uniform"):
        raise ValueError(
            f"found bn_scale_init {bn_scale_init!r}, needed 'ones' or 'uniform'"
        )
    names = [f"conv{i}" for i in range(1, 5)]
    return chain(
        [
            (name, _Block(width, bn_scale_init, dtype, flatten=name == names[-1]))
            for name in names
        ]
    )


class _Block(nn.Module):
    width: int
    bn_scale_init: ScaleInit
    dtype: DTypeLike
    flatten: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "n height width channels"], mode: Mode
    ) -> Float[Array, "n ..."]:
        if min(x.shape[1:3]) < 2:
            raise ValueError(
                f"found a map of {x.shape[1]}x{x.shape[2]} before a 2x2 pool: Conv4 "
                "takes images of at least 16x16"
            )
        bound = 1 / math.sqrt(9 * x.shape[-1])
        x = nn.Conv(
            self.width,
            (3, 3),
            padding=1,
            dtype=self.dtype,
            kernel_init=_symmetric_uniform(bound),
            bias_init=_symmetric_uniform(bound),
        )(x)
        ones = self.bn_scale_init == "ones"
        x = BatchNormPool(
            nn.initializers.ones if ones else nn.initializers.uniform(1.0),
            self.dtype,
            # Where checkpoints look for its parameters.
            name="BatchNorm_0",
        )(x, mode)
        return x.reshape(x.shape[0], -1) if self.flatten else x


def _symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    def init(
        key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
