"""Conv4: the four-block convolutional embedding of few-shot learning."""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxfer.nets.chain import chain
from jaxfer.nets.convolution import convolve
from jaxfer.nets.layers import Precision, with_embedding
from jaxfer.nets.pool import BatchNormPool
from jaxfer.types import Mode, Net

ScaleInit = Literal["ones", "uniform"]


@dataclass(frozen=True)
class Conv4:
    """Four blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max-pool, then flatten.

    Snell et al. 2017, section 3.1. Sides are halved four times, rounding down: a 28x28
    image gives an embedding of `width` dimensions, an 84x84 image one of 25 `width`.
    Kernels are initialised as in the framework of the released code,
    U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Convolutions have no bias. Those of the released code have one, but the BatchNorm
    that follows subtracts the mean and with it the bias: the network computes the same
    function without it. The true gradient of the bias is 0, so that Adam would only
    turn rounding errors into updates.

    Attributes:
        width: channels of every block.
        bn_scale_init: initial BatchNorm scales: 'uniform' samples them from U(0, 1), as
            the framework of the released code did; 'ones' is the default of today.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Raises:
        ValueError: an unknown `bn_scale_init`, or images under 16 pixels per side.

    Example:
        >>> net = Conv4(width=8).build()
        >>> params, state = net.init(jax.random.key(0), (28, 28, 1))
        >>> net.apply(params, state, jnp.zeros((5, 28, 28, 1)))[0].shape
        (5, 8)
    """

    width: int = 64
    bn_scale_init: ScaleInit = "uniform"
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers conv1 to conv4."""
        if self.bn_scale_init not in ("ones", "uniform"):
            raise ValueError(
                "expected bn_scale_init 'ones' or 'uniform', got "
                f"{self.bn_scale_init!r}"
            )
        names = [f"conv{i}" for i in range(1, 5)]
        dtype = jnp.dtype(self.precision)
        blocks = [
            (
                name,
                _Block(
                    self.width, self.bn_scale_init, dtype, flatten=name == names[-1]
                ),
            )
            for name in names
        ]
        return chain(with_embedding(blocks, self.dim), spec=self)


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
                "expected images of at least 16x16 for Conv4, got a map of "
                f"{x.shape[1]}x{x.shape[2]} before a 2x2 pool"
            )
        bound = 1 / math.sqrt(9 * x.shape[-1])
        x = nn.Conv(
            self.width,
            (3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            conv_general_dilated=convolve,
            kernel_init=_symmetric_uniform(bound),
        )(x)
        ones = self.bn_scale_init == "ones"
        x = BatchNormPool(
            nn.initializers.ones if ones else nn.initializers.uniform(1.0),
            self.dtype,
            # The name under which checkpoints store its parameters.
            name="BatchNorm_0",
        )(x, mode)
        return x.reshape(x.shape[0], -1) if self.flatten else x


def _symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    def init(
        key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
