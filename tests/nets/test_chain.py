import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfer import EVAL, Mode
from jaxfer.nets import chain


class _Noisy(nn.Module):
    @nn.compact
    def __call__(self, x, mode):
        return nn.Dropout(0.5, deterministic=not mode.dropout)(x)


class _Dense(nn.Module):
    @nn.compact
    def __call__(self, x, mode):
        return nn.Dense(3)(x)


def test_layers_are_the_parameter_groups_in_order(key):
    net = chain([("z", _Dense()), ("b", _Dense()), ("top", _Dense())])
    assert net.layers == ("z", "b", "top")
    x = jnp.ones((2, 1, 1, 4))
    params, state = net.init(key, (1, 1, 4))
    assert list(params) == ["z", "b", "top"]
    features, _ = net.apply(params, state, x, last="b")
    z, _ = net.apply(params, state, features, first="top")
    np.testing.assert_allclose(z, net.apply(params, state, x)[0], rtol=1e-6)


def test_layers_draw_their_own_parameters(key):
    net = chain([("a", _Dense()), ("b", _Dense())])
    params, _ = net.init(key, (1, 1, 3))
    kernels = [params[name]["Dense_0"]["kernel"] for name in net.layers]
    assert (kernels[0] != kernels[1]).all()


def test_dropout_follows_the_mode_of_its_layer_and_its_own_randomness(key):
    net = chain([("a", _Noisy()), ("b", _Noisy())])
    params, state = net.init(key, (8, 8, 1))
    x = jnp.ones((1, 8, 8, 1))
    on = Mode(dropout=True)

    def zeros(**modes):
        y, _ = net.apply(params, state, x, mode={"a": EVAL, "b": EVAL} | modes, rng=key)
        return y == 0

    assert not zeros().any()
    assert 0.2 < zeros(a=on).mean() < 0.8
    assert (zeros(a=on) != zeros(b=on)).any()
    np.testing.assert_array_equal(zeros(a=on, b=on), zeros(a=on) | zeros(b=on))


def test_layers_in_the_wrong_order_are_refused(key):
    net = chain([("a", _Dense()), ("b", _Dense())])
    params, state = net.init(key, (1, 1, 3))
    with pytest.raises(ValueError, match=r"order \['a', 'b'\], got first = 'b' after"):
        net.apply(params, state, jnp.ones((1, 3)), first="b", last="a")


def test_names_must_differ():
    with pytest.raises(ValueError, match=r"expected different names, got \['a', 'a'\]"):
        chain([("a", _Dense()), ("a", _Dense())])


def test_there_must_be_a_block_and_stochastic_names_are_of_blocks():
    with pytest.raises(ValueError, match="expected at least one block, got none"):
        chain([])
    with pytest.raises(ValueError, match=r"stochastic among \['a'\], got \['b'\]"):
        chain([("a", _Dense())], stochastic=["b"])
    assert chain([("a", _Noisy())], stochastic=["a"]).stochastic == ("a",)


def test_init_runs_no_layer_on_data(key):
    net = chain([("a", _Dense())])
    shapes = jax.eval_shape(lambda key: net.init(key, (1, 1, 4)), key)
    assert shapes[0]["a"]["Dense_0"]["kernel"].shape == (4, 3)
