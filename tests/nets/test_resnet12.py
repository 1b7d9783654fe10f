import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import EVAL, TRAIN, Mode
from jaxfer.nets import ResNet12


@pytest.fixture
def net():
    return ResNet12(width=4).build()


def test_maps_shrink_to_a_vector(net, drawn):
    params, state = drawn(net, (42, 40, 3))
    x = jnp.zeros((2, 42, 40, 3))
    shapes = []
    for name in net.layers:
        x, _ = net.apply(params, state, x, first=name, last=name)
        shapes.append(x.shape[1:])
    assert shapes == [(21, 20, 4), (10, 10, 10), (5, 5, 20), (40,)]


def test_small_images_are_refused(net):
    with pytest.raises(ValueError, match="at least 16x16 for ResNet12, got a map of 1"):
        net.init(jax.random.key(0), (15, 15, 3))


def test_a_block_is_three_convolutions_beside_a_shortcut(net, drawn, rng):
    params, state = drawn(net, (16, 16, 4))
    x = jnp.asarray(rng.normal(size=(2, 16, 16, 4)), jnp.float32)
    _, state = net.apply(params, state, x, mode=Mode("batch"))
    own, stored = params["block1"], state["block1"]

    def unit(x, i, padding):
        kernel = own[f"conv{i}"]["kernel"]
        y = jax.lax.conv_general_dilated(
            *(x, kernel, (1, 1), padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, var = (stored[f"norm{i}"][k] for k in ("mean", "var"))
        scale, bias = (own[f"norm{i}"][k] for k in ("scale", "bias"))
        mean, var, scale, bias = (
            v.reshape(1, 1, 1, -1) for v in (mean, var, scale, bias)
        )
        return (y - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    def leaky(x):
        return jnp.where(x > 0, x, 0.1 * x)

    same = [(1, 1), (1, 1)]
    y = unit(leaky(unit(leaky(unit(x, 1, same)), 2, same)), 3, same)
    # The shortcut is a convolution even where input and output have the same shape.
    y = leaky(y + unit(x, "_shortcut", [(0, 0), (0, 0)]))
    expected = y.reshape(2, 8, 2, 8, 2, 4).max((2, 4))
    found, _ = net.apply(params, state, x, mode=EVAL, last="block1")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_blocks_are_dropped_in_training_only(net, drawn, key):
    params, state = drawn(net, (80, 80, 3))
    assert net.stochastic == net.layers
    assert ResNet12(dropout=0.0).build().stochastic == ()
    x = jnp.ones((2, 10, 10, 20))

    def run(mode, rng):
        y, _ = net.apply(
            params, state, x, mode=mode, rng=rng, first="block4", last="block4"
        )
        return np.asarray(y)

    on = Mode(dropout=True)
    assert (run(on, key) != run(on, jax.random.key(1))).any()
    np.testing.assert_array_equal(run(on, key), run(on, key))
    np.testing.assert_array_equal(run(EVAL, key), run(EVAL, None))
    # The map is 5x5, as is a block: whole channels are dropped, and the others scaled.
    ratio = run(on, key) / run(EVAL, None)
    dropped = ratio == 0
    assert dropped.any()
    np.testing.assert_allclose(ratio[~dropped], 1 / (1 - dropped.mean()), rtol=1e-5)
    with pytest.raises(ValueError, match="expected an rng for block1"):
        net.apply(params, state, jnp.ones((1, 80, 80, 3)), mode=TRAIN)


def test_early_blocks_drop_single_values(net, drawn, key):
    params, state = drawn(net, (32, 32, 3))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
    y, _ = net.apply(params, state, x, mode=Mode(dropout=True), rng=key, last="block1")
    dropped = np.asarray(y == 0)
    assert abs(dropped.mean() - 0.1) < 0.02
    # As often beside a dropped value as elsewhere.
    beside = dropped[:, :, 1:][dropped[:, :, :-1]]
    assert abs(beside.mean() - 0.1) < 0.04
