import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfer import EVAL, TRAIN
from jaxfer.nets import AlexNetSmall, Flatten
from jaxfer.trees import flatten


def test_layers_and_parameters_are_those_of_the_paper(drawn):
    net = AlexNetSmall(width=24, dense=512).build()
    params, state = drawn(net, (16, 16, 3))
    assert tuple(params) == net.layers and net.stochastic == ("fc6", "fc7")
    assert net.layers == ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    kernels = {k: v.shape for k, v in flatten(params).items() if "kernel" in k}
    assert [*kernels.values()] == [
        (3, 3, 3, 24),
        (3, 3, 24, 48),
        (3, 3, 48, 72),
        (3, 3, 72, 72),
        (3, 3, 72, 72),
        (2 * 2 * 72, 512),
        (512, 512),
    ]
    assert not jax.tree.leaves(state)


def test_it_computes_what_its_layers_say(rng, drawn):
    """Against the same operations in plain jax.lax, in the usual order."""
    net = AlexNetSmall(width=2, dense=4).build()
    params, state = drawn(net, (9, 8, 1))
    x = jnp.asarray(rng.normal(size=(2, 9, 8, 1)), jnp.float32)
    y = x
    for i in range(1, 6):
        conv = params[f"conv{i}"]["Conv_0"]
        y = jax.lax.conv_general_dilated(
            y,
            conv["kernel"],
            (1, 1),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = nn.relu(y + conv["bias"][None, None, None])
        if i in (1, 2, 5):
            y = nn.max_pool(y, (2, 2), (2, 2))
    y = y.reshape(2, -1)
    for name in ("fc6", "fc7"):
        dense = params[name]["Dense_0"]
        y = nn.relu(y @ dense["kernel"] + dense["bias"][None])
    found, _ = net.apply(params, state, x)
    np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)


def test_dropout_is_in_the_first_two_dense_layers_alone(key, drawn):
    net = AlexNetSmall(width=2, dense=256, dropout=0.25).build()
    params, state = drawn(net, (8, 8, 1))
    x = jnp.ones((1, 8, 8, 1))
    for name in net.layers:
        h = jnp.ones((4, 6 if name == "fc6" else 256)) if "fc" in name else None
        first = name if h is not None else None
        before, after = (
            net.apply(
                params,
                state,
                x if h is None else h,
                mode=mode,
                rng=key,
                first=first,
                last=name,
            )[0]
            for mode in (EVAL, TRAIN)
        )
        alive = before != 0
        dropped = float(((after == 0) & alive).sum() / alive.sum())
        assert (0.15 < dropped < 0.35) if "fc" in name else dropped == 0, name


def test_a_layer_that_drops_asks_for_a_key(drawn):
    net = AlexNetSmall(width=2, dense=4).build()
    params, state = drawn(net, (8, 8, 1))
    with pytest.raises(ValueError, match="expected an rng for fc6, which has"):
        net.apply(params, state, jnp.ones((1, 8, 8, 1)), mode=TRAIN)


def test_the_normalized_one_has_statistics_in_every_layer(key, rng, drawn):
    net = AlexNetSmall(width=4, dense=6, normalize=True).build()
    params, state = drawn(net, (8, 8, 2))
    assert all(state[name] for name in net.layers)
    x = jnp.asarray(rng.normal(size=(64, 8, 8, 2)), jnp.float32)
    _, after = net.apply(params, state, x, mode=TRAIN, rng=key)
    for name in net.layers:
        mean = after[name]["BatchNorm_0"]["mean"]
        assert (mean != 0).any() and bool(jnp.isfinite(mean).all()), name


def test_small_images_are_refused(drawn):
    with pytest.raises(ValueError, match="at least 8x8 .*, got a map of 1x1"):
        drawn(AlexNetSmall().build(), (4, 4, 3))


def test_an_embedding_is_one_more_linear_layer(rng, drawn):
    plain = AlexNetSmall(width=2, dense=4).build()
    net = AlexNetSmall(width=2, dense=4, dim=3).build()
    assert net.layers == (*plain.layers, "embedding")
    params, state = drawn(net, (8, 8, 1))
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 1)), jnp.float32)
    features, _ = plain.apply(params, state, x)
    dense = params["embedding"]["Dense_0"]
    np.testing.assert_allclose(
        net.apply(params, state, x)[0],
        features @ dense["kernel"] + dense["bias"][None],
        rtol=1e-4,
        atol=1e-5,
    )


def test_without_dropout_no_layer_is_stochastic():
    assert AlexNetSmall(dropout=0.0).build().stochastic == ()


def test_flat_pixels_are_the_pixels_or_a_matrix_times_them(rng, drawn):
    x = jnp.asarray(rng.normal(size=(5, 4, 4, 2)), jnp.float32)
    plain = Flatten().build()
    assert plain.init(jax.random.key(0), (4, 4, 2)) == ({}, {})
    np.testing.assert_array_equal(plain.apply({}, {}, x)[0], x.reshape(5, -1))
    with pytest.raises(ValueError, match="expected no layer names"):
        plain.apply({}, {}, x, last="conv1")
    net = Flatten(dim=3).build()
    params, state = drawn(net, (4, 4, 2))
    dense = params["embedding"]["Dense_0"]
    np.testing.assert_allclose(
        net.apply(params, state, x)[0],
        x.reshape(5, -1) @ dense["kernel"] + dense["bias"][None],
        rtol=1e-4,
        atol=1e-5,
    )
