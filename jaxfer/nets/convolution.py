"""Convolutions of images with one channel, which are slow in XLA on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Up to this number of output channels the product is faster than the convolution.
_FEW = 16


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "a b c d"],
    strides: Any,
    padding: Any,
    **options: Any,
) -> Float[Array, "n h2 w2 d"]:
    """A faster `lax.conv_general_dilated` with the same result, for `flax.linen.Conv`.

    On a CPU, a convolution from one channel to at most 16 channels is computed as a
    matrix product of image patches, which takes a third of the time, or two thirds with
    the gradient. With more output channels the gradient of the product is slower.

    Args:
        x: images or maps.
        kernel: `[height, width, input channels, output channels]`.
        strides, padding: see `lax.conv_general_dilated`.
        **options: its other options.

    Example:
        >>> options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        >>> x, kernel = jnp.ones((2, 5, 5, 1)), jnp.ones((3, 3, 1, 4))
        >>> convolve(x, kernel, (1, 1), [(1, 1), (1, 1)], **options).shape
        (2, 5, 5, 4)
    """
    few = kernel.shape[2] == 1 and kernel.shape[3] <= _FEW and tuple(strides) == (1, 1)
    if few and not isinstance(padding, str) and jax.default_backend() == "cpu":
        return _product(x, kernel, padding)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _product(x: Array, kernel: Array, padding: Any) -> Array:
    a, b, _, channels = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - a + 1, x.shape[2] - b + 1
    patches = [x[:, i : i + height, j : j + width] for i in range(a) for j in range(b)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, channels)
