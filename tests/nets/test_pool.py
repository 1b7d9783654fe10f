import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfer.nets.pool import EPSILON, BatchNormPool, batch_norm_pool, max_pool2
from jaxfer.types import EVAL, TRAIN


def _plain(x, scale, bias):
    """The same in the published order, for autodiff to differentiate."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    normal = (x - mean[None, None, None]) / jnp.sqrt(var + EPSILON)[None, None, None]
    y = normal * scale[None, None, None] + bias[None, None, None]
    return nn.relu(max_pool2(y)), mean, var


@pytest.fixture
def arguments(rng):
    def make(height, width):
        x = rng.normal(1.5, 2, (3, height, width, 5))
        # Of either sign, and one of them 0.
        scale, bias = np.array([1.2, -0.7, 0.4, 0.0, -2.0]), rng.normal(0, 0.5, 5)
        return [jnp.asarray(a, jnp.float32) for a in (x, scale, bias)]

    return make


@pytest.mark.parametrize("side", [2, 3, 6, 7])
def test_max_pool_is_the_pool_of_the_definition(rng, side):
    x = rng.normal(size=(2, side, side, 3)).astype(np.float32)
    half = side // 2
    expected = np.zeros((2, half, half, 3), np.float32)
    for i in range(half):
        for j in range(half):
            window = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            expected[:, i, j] = window.max(axis=(1, 2))
    np.testing.assert_array_equal(max_pool2(jnp.asarray(x)), expected)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 7), (2, 5), (3, 2)])
def test_values_and_gradients_are_those_of_the_plain_order(
    arguments, rng, height, width
):
    x, scale, bias = arguments(height, width)
    ours, theirs = batch_norm_pool(x, scale, bias), _plain(x, scale, bias)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    weights = jnp.asarray(rng.normal(size=ours[0].shape), jnp.float32)

    def gradients(op):
        def value(*args):
            return (op(*args)[0] * weights).sum()

        return jax.jit(jax.grad(value, argnums=(0, 1, 2)))(x, scale, bias)

    # Where the scale is 0 every value ties after it, and none before: there is no
    # gradient for x there, whichever is taken.
    for a, b in zip(gradients(batch_norm_pool), gradients(_plain), strict=True):
        if a.ndim == 1:
            a, b = a[jnp.array([0, 1, 2, 4])], b[jnp.array([0, 1, 2, 4])]
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)


def test_maxima_that_tie_share_the_gradient_equally():
    """A window of equal pixels, as background is, and one where two are highest."""
    x = jnp.array([[1.0, 1, 3, 0], [1, 1, 3, 1]])[None, :, :, None]
    one, zero = jnp.ones(1), jnp.zeros(1)

    def value(x):
        return batch_norm_pool(x, one, zero + 9)[0][0, 0, :, 0] @ jnp.array([4.0, 2.0])

    # By hand: d is (1, 1, 1, 1) and (1, 0, 1, 0), dx = (d - mean(d) - x_hat mean(d
    # x_hat)) / sigma.
    d = np.array([[1.0, 1, 1, 0], [1, 1, 1, 0]])
    pixels = np.asarray(x)[0, :, :, 0]
    sigma = np.sqrt(pixels.var() + EPSILON)
    normal = (pixels - pixels.mean()) / sigma
    expected = (d - d.mean() - normal * (d * normal).mean()) / sigma
    np.testing.assert_allclose(jax.grad(value)(x)[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("mode", [EVAL, TRAIN])
def test_it_is_flaxs_batch_norm_before_a_pool(arguments, mode):
    x, scale, bias = arguments(6, 6)
    ours = BatchNormPool(nn.initializers.ones, jnp.float32)
    theirs = nn.BatchNorm(mode == EVAL, momentum=0.9, epsilon=EPSILON)
    start = {"mean": jnp.arange(5.0) / 3, "var": jnp.arange(1.0, 6.0)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": start}
    created = ours.init(jax.random.key(0), x, mode)
    assert jax.tree.map(jnp.shape, created) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_array_equal(created["batch_stats"]["var"], 1)
    y, kept = ours.apply(variables, x, mode, mutable=["batch_stats"])
    normal, expected = theirs.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, nn.relu(max_pool2(normal)), rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        kept["batch_stats"],
        expected.get("batch_stats", start),
    )


def test_vmap_equals_a_loop_in_value_and_gradient(arguments, rng):
    x, scale, bias = arguments(5, 4)
    batch = jnp.stack([x, 2 * x + 1])
    scales = jnp.stack([scale, -scale])

    def gradient(x, scale):
        return jax.grad(lambda *a: (batch_norm_pool(*a, bias)[0] ** 2).sum(), (0, 1))(
            x, scale
        )

    together = jax.vmap(gradient)(batch, scales)
    for i in range(2):
        alone = gradient(batch[i], scales[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5),
            together,
            alone,
        )


def test_half_precision_maps_have_float32_statistics_and_their_own_gradient(arguments):
    x, scale, bias = arguments(6, 6)
    half = x.astype(jnp.bfloat16)
    y, mean, var = batch_norm_pool(half, scale, bias)
    assert mean.dtype == var.dtype == jnp.float32
    np.testing.assert_allclose(
        y, batch_norm_pool(half.astype(jnp.float32), scale, bias)[0], rtol=1e-4
    )
    gradient = jax.grad(lambda x: batch_norm_pool(x, scale, bias)[0].sum())(half)
    assert gradient.dtype == jnp.bfloat16
