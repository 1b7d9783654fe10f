import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.nets.dropblock import drop_block


def _slow(key, x, rate, block):
    """Algorithm 1 of Ghiasi et al. 2018 with loops, from the same Bernoulli seeds."""
    n, height, width, channels = x.shape
    a, b = min(block, height), min(block, width)
    gamma = rate / (a * b)
    gamma *= height * width / ((height - a + 1) * (width - b + 1))
    shape = (n, height - a + 1, width - b + 1, channels)
    mask = np.ones(x.shape)
    for i, row, column, c in np.argwhere(jax.random.bernoulli(key, gamma, shape)):
        mask[i, row : row + a, column : column + b, c] = 0
    return x * mask * mask.size / max(mask.sum(), 1)


@pytest.mark.parametrize(
    ("height", "width", "block"),
    [(10, 10, 5), (9, 6, 4), (7, 7, 1), (5, 5, 5), (3, 8, 5), (1, 1, 5)],
)
def test_it_is_the_published_algorithm(rng, key, height, width, block):
    x = rng.normal(size=(3, height, width, 8)).astype(np.float32)
    found = jax.jit(lambda x: drop_block(key, x, rate=0.3, block=block))(x)
    assert (np.asarray(found) == 0).any()
    np.testing.assert_allclose(found, _slow(key, x, 0.3, block), rtol=1e-5)


@pytest.mark.parametrize("block", [1, 3, 5])
def test_about_the_rate_is_dropped_and_the_mean_is_kept(key, block):
    y = np.asarray(drop_block(key, jnp.ones((64, 20, 20, 16)), rate=0.1, block=block))
    # Overlaps make it a little less.
    assert 0.088 < (y == 0).mean() < 0.102
    assert abs(y.mean() - 1) < 1e-4
    assert len(np.unique(y)) == 2


def test_examples_and_channels_are_dropped_independently(key):
    y = drop_block(key, jnp.ones((8, 5, 5, 8)), rate=0.5, block=5)
    dropped = np.asarray(y[:, 0, 0] == 0)
    assert len(np.unique(dropped, axis=0)) > 4
    assert len(np.unique(dropped, axis=1)) > 4


def test_a_map_without_any_value_left_is_zero(key):
    x, keys = jnp.ones((1, 2, 2, 1)), jax.random.split(key, 30)
    y = jax.vmap(lambda key: drop_block(key, x, rate=0.9, block=2))(keys)
    found = {float(v) for v in y.reshape(30, -1)[:, 0]}
    assert found == {0.0, 1.0}


def test_gradients_pass_where_values_are_kept(key):
    x = jnp.ones((2, 6, 6, 3))

    def total(x):
        return drop_block(key, x, rate=0.3, block=3).sum()

    y, gradient = drop_block(key, x, rate=0.3, block=3), jax.grad(total)(x)
    np.testing.assert_allclose(gradient, y, rtol=1e-6)


def test_the_type_is_kept(key):
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    assert drop_block(key, x, rate=0.5, block=2).dtype == jnp.bfloat16
