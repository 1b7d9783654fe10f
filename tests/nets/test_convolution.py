import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxfer.nets.convolution import convolve

OPTIONS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
PADDING = [(1, 1), (1, 1)]


def _by_hand(x, kernel):
    a, b, _, channels = kernel.shape
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1] - a + 1, x.shape[2] - b + 1
    y = np.zeros((len(x), height, width, channels))
    for i in range(height):
        for j in range(width):
            y[:, i, j] = np.tensordot(x[:, i : i + a, j : j + b], kernel, 3)
    return y


@pytest.mark.parametrize("size", [(3, 3), (2, 3)])
@pytest.mark.parametrize(("channels", "wide"), [(1, 4), (2, 4), (1, 17)])
def test_it_is_the_sum_over_the_window(rng, size, channels, wide):
    x = rng.normal(size=(2, 6, 5, channels)).astype(np.float32)
    kernel = rng.normal(size=(*size, channels, wide)).astype(np.float32)
    y = convolve(jnp.asarray(x), jnp.asarray(kernel), (1, 1), PADDING, **OPTIONS)
    np.testing.assert_allclose(y, _by_hand(x, kernel), rtol=1e-5, atol=1e-5)


def test_its_gradients_are_those_of_the_convolution(rng):
    x = jnp.asarray(rng.normal(size=(3, 6, 6, 1)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 4)), jnp.float32)

    def loss(convolution, x, kernel):
        return (convolution(x, kernel, (1, 1), PADDING, **OPTIONS) ** 3).sum()

    for order in (1, 2):
        ours, theirs = (
            jax.jit(_gradient(lambda *x, f=f: loss(f, *x), order))(x, kernel)
            for f in (convolve, lax.conv_general_dilated)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
            ours,
            theirs,
        )


def _gradient(function, order):
    first = jax.grad(function, argnums=(0, 1))
    if order == 1:
        return first
    return jax.grad(lambda *x: sum((g**2).sum() for g in first(*x)), argnums=(0, 1))


@pytest.mark.parametrize(
    "how", [{"strides": 2}, {"padding": "VALID"}, {"padding": 2}, {"use_bias": False}]
)
def test_a_layer_is_that_of_flax(rng, how):
    x = jnp.asarray(rng.normal(size=(2, 7, 7, 1)), jnp.float32)
    ours = nn.Conv(4, (3, 3), conv_general_dilated=convolve, **how)
    theirs = nn.Conv(4, (3, 3), **how)
    params = theirs.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        ours.apply(params, x), theirs.apply(params, x), rtol=1e-5, atol=1e-6
    )
