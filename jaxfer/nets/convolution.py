"""Convolutions that XLA runs slowly on a CPU: of one channel, and depthwise."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxfer import compilation

# Up to this number of output channels the product is faster than the convolution.
_FEW = 16
_PRODUCTS = contextvars.ContextVar("convolutions_as_products", default=False)
_PLAIN = contextvars.ContextVar("plain_convolutions", default=False)


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
    few = kernel.shape[2] == 1 and kernel.shape[3] <= _FEW
    faster = (few or _PRODUCTS.get()) and not _PLAIN.get()
    fits = tuple(strides) == (1, 1) and not isinstance(padding, str)
    if faster and fits and compilation.target() == "cpu":
        return _product(x, kernel, padding)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _product(x: Array, kernel: Array, padding: Any) -> Array:
    a, b, _, channels = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - a + 1, x.shape[2] - b + 1
    patches = [x[:, i : i + height, j : j + width] for i in range(a) for j in range(b)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, channels)


def depthwise(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "a b 1 c"],
    *,
    stride: int,
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "n h2 w2 c"]:
    """A convolution of each channel with its own kernel.

    `y[i, j, c] = sum_{a, b} kernel[a, b, 0, c] x[stride i + a, stride j + b, c]`, on a
    padded x. On a CPU it is a sum of shifted maps, which takes 2 to 5 percent of the
    time of a grouped convolution.

    Args:
        x: maps.
        kernel: one kernel per channel.
        stride: the step of both sides.
        padding: zeros before and after the rows, and before and after the columns.

    Example:
        >>> x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
        >>> depthwise(x, kernel, stride=2, padding=[(0, 1), (0, 1)])[0, :, :, 0]
        Array([[9., 6.],
               [6., 4.]], dtype=float32)
    """

    def shifted(x: Array, kernel: Array) -> Array:
        a, b = kernel.shape[:2]
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        # The part of a side that the kernel's first element meets.
        height, width = x.shape[1] - a + 1, x.shape[2] - b + 1
        taps = kernel[:, :, None, None]
        terms = [
            x[:, i : i + height : stride, j : j + width : stride] * taps[i, j]
            for i in range(a)
            for j in range(b)
        ]
        return sum(terms[1:], terms[0])

    def grouped(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )

    if _PLAIN.get():
        return grouped(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)


@contextlib.contextmanager
def convolutions_as_products() -> Iterator[None]:
    """Trace all convolutions of stride 1 as products of patches on a CPU.

    This is faster where kernels are vmapped, since such a convolution is a grouped one,
    whose gradient is slow on XLA:CPU, and slower elsewhere.

    Example:
        >>> options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        >>> x, kernel = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 8, 32))
        >>> import jax
        >>> with convolutions_as_products():
        ...     text = jax.make_jaxpr(
        ...         lambda x: convolve(x, kernel, (1, 1), [(1, 1)] * 2, **options)
        ...     )(x)
        >>> "conv_general_dilated" in str(text)
        False
    """
    token = _PRODUCTS.set(True)
    try:
        yield
    finally:
        _PRODUCTS.reset(token)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Trace depthwise convolutions as one operation, which other compilers know.

    Without it, a program has a form for CPUs and one for other devices.

    Example:
        >>> x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
        >>> import jax
        >>> with plain_convolutions():
        ...     text = jax.make_jaxpr(
        ...         lambda x: depthwise(x, kernel, stride=1, padding=[(0, 0)] * 2)
        ...     )(x)
        >>> "platform_index" in str(text)
        False
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)
