"""ResNet-20 of small images."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Classifier, batch_norm
from jaxfer.types import Mode, Net


def resnet20(
    num_classes: int, *, width: int = 16, dtype: DTypeLike = jnp.float32
) -> Net:
    """A convolution, nine residual blocks of two, mean pooling, and a classifier.

    He et al. 2016, section 4.2: three stages of `width`, twice and four times as many
    channels, the sides halved at the second and the third; shortcuts without
    parameters, by every other pixel and channels of zeros (option A).

    Args:
        num_classes: outputs of the classifier.
        width: channels of the first stage.
        dtype: of activations and matmuls; parameters and statistics stay float32.

    Returns:
        The net, with layers conv1 and block1 to block9, and the classifier fc.

    Example:
        >>> import jax
        >>> net = resnet20(10, width=2)
        >>> params, state = net.init(jax.random.key(0), (8, 8, 3))
        >>> net.apply(params, state, jnp.zeros((2, 8, 8, 3)))[0].shape
        (2, 10)
    """
    blocks: list[tuple[str, nn.Module]] = [("conv1", _Stem(width, dtype))]
    for i in range(9):
        stage, first = divmod(i, 3)
        stride = 2 if stage and not first else 1
        blocks.append(
            (f"block{i + 1}", _Block(width * 2**stage, stride, dtype, pool=i == 8))
        )
    return chain([*blocks, ("fc", Classifier(num_classes))], classifier=True)


class _Stem(nn.Module):
    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        x = _conv(self.width, 1, self.dtype)(x)
        return nn.relu(batch_norm(mode, self.dtype)(x))


class _Block(nn.Module):
    width: int
    stride: int
    dtype: DTypeLike
    pool: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        y = _conv(self.width, self.stride, self.dtype)(x)
        y = nn.relu(batch_norm(mode, self.dtype)(y))
        y = _conv(self.width, 1, self.dtype)(y)
        y = batch_norm(mode, self.dtype)(y)
        shortcut = x[:, :: self.stride, :: self.stride]
        more = self.width - x.shape[-1]
        shortcut = jnp.pad(
            shortcut, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))
        )
        y = nn.relu(y + shortcut)
        return y.mean(axis=(1, 2)) if self.pool else y


def _conv(width: int, stride: int, dtype: DTypeLike) -> nn.Conv:
    return nn.Conv(
        width,
        (3, 3),
        strides=stride,
        padding=1,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.he_normal(),
    )
