"""BatchNorm, max-pooling and ReLU in one operation, in the cheapest order.

Normalisation is monotone in each channel, so the map can be pooled before it is
normalised: only a quarter of the values is normalised, clipped, and summed in the
backward pass, which is otherwise limited by memory bandwidth.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.types import Mode

EPSILON = 1e-5


class BatchNormPool(nn.Module):
    """`relu(max_pool2(batch_norm(x)))`, with the variables of `flax.linen.BatchNorm`.

    Ioffe & Szegedy 2015; 2x2 pooling with stride 2. An odd last row or column is
    dropped.

    Attributes:
        scale_init: the initializer of the scales; biases start at 0.
        dtype: the dtype of the result; statistics are float32.
    """

    scale_init: nn.initializers.Initializer
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], mode: Mode
    ) -> Float[Array, "n h//2 w//2 c"]:
        """Normalise by running statistics, or by batch statistics, which are stored."""
        shape = x.shape[-1:]
        kept_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        kept_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if mode.batch_norm == "running":
            pooled = _extreme(x, scale)
            y = _activate(pooled, kept_mean.value, kept_var.value, scale, bias)
        else:
            y, mean, var = batch_norm_pool(x, scale, bias)
            if not self.is_initializing():
                keep = mode.momentum
                kept_mean.value = keep * kept_mean.value + (1 - keep) * mean
                kept_var.value = keep * kept_var.value + (1 - keep) * var
        return y.astype(self.dtype)


@jax.custom_vjp
def batch_norm_pool(
    x: Float[Array, "n h w c"], scale: Float[Array, "c"], bias: Float[Array, "c"]
) -> tuple[Float[Array, "n h//2 w//2 c"], Float[Array, "c"], Float[Array, "c"]]:
    """`relu(max_pool2(batch_norm(x)))` by the statistics of x, with these statistics.

    Where several values of a window are its maximum, they share its gradient equally.
    No gradient goes through the statistics that are returned.

    Args:
        x: a map.
        scale: the scale of each channel, of any sign.
        bias: the bias of each channel.

    Returns:
        The pooled map, and the mean and the biased variance used to normalise it.

    Example:
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> y, mean, _ = batch_norm_pool(x, jnp.ones(1), jnp.zeros(1))
        >>> mean.item(), [f"{v:.2f}" for v in y.ravel().tolist()]
        (7.5, ['0.00', '0.00', '1.19', '1.63'])
    """
    return _forward(x, scale, bias)[0]


def _forward(x: Array, scale: Array, bias: Array):
    wide = _wide(x)
    mean = wide.mean((0, 1, 2))
    var = jnp.maximum((wide * wide).mean((0, 1, 2)) - mean * mean, 0)
    pooled = _extreme(x, scale)
    ties = sum((corner == pooled).astype(wide.dtype) for corner in _corners(x))
    y = _activate(pooled, mean, var, scale, bias)
    return (y, mean, var), (x, pooled, ties, y, mean, var, scale)


def _backward(saved, cotangents):
    x, pooled, ties, y, mean, var, scale = saved
    n, height, width, _ = x.shape
    dy = jnp.where(y > 0, cotangents[0], 0)
    inverse = jax.lax.rsqrt(var + EPSILON)
    d_bias = dy.sum((0, 1, 2))
    centred = _wide(pooled) - _channels(mean)
    d_scale = (dy * centred).sum((0, 1, 2)) * inverse
    # dx = scale / sigma * (d - mean(d) - x_hat * mean(d * x_hat)), where d is dy at the
    # maxima and 0 elsewhere: its means are sums over the pooled map, divided by size.
    gain = inverse * scale
    slope = gain * inverse * d_scale / (n * height * width)
    level = gain * d_bias / (n * height * width) - slope * mean
    is_maximum = x == _spread(pooled, height, width, fill=jnp.nan)
    shares = _spread(dy / ties * _channels(gain), height, width, fill=0.0)
    means = _channels(level) + _channels(slope) * _wide(x)
    dx = jnp.where(is_maximum, shares, 0) - means
    return dx.astype(x.dtype), d_scale, d_bias


batch_norm_pool.defvjp(_forward, _backward)


def max_pool2(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """2x2 max-pooling with stride 2; an odd last row or column is dropped.

    It takes maxima of slices of a reshaped map, whose gradient on CPU is much faster
    than that of a reduce-window.

    Example:
        >>> max_pool2(jnp.arange(9.0).reshape(1, 3, 3, 1)).item()
        4.0
    """
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _corners(x: Array) -> list[Array]:
    """The four values of each window, as four maps."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    return [x[:, :, i, :, j] for i in (0, 1) for j in (0, 1)]


def _extreme(x: Array, scale: Array) -> Array:
    """Each window's maximum, or its minimum where the scale is negative."""
    sign = _channels(jnp.where(scale < 0, -1, 1).astype(x.dtype))
    return max_pool2(x * sign) * sign


def _activate(x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> Array:
    gain = jax.lax.rsqrt(var + EPSILON) * scale
    centred = _wide(x) - _channels(mean)
    return nn.relu(centred * _channels(gain) + _channels(bias))


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _channels(x: Array) -> Array:
    return x[None, None, None, :]


def _spread(pooled: Array, height: int, width: int, *, fill: float) -> Array:
    """A pooled map repeated to the size before pooling, with dropped parts filled."""
    n, h, w, c = pooled.shape
    wide = jnp.broadcast_to(pooled[:, :, None, :, None], (n, h, 2, w, 2, c))
    wide = wide.reshape(n, 2 * h, 2 * w, c)
    if (2 * h, 2 * w) == (height, width):
        return wide
    margins = ((0, 0), (0, height - 2 * h), (0, width - 2 * w), (0, 0))
    return jnp.pad(wide, margins, constant_values=fill)
