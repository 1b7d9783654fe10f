import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfer.nets import InceptionV1

SIZES = {
    "conv1": (8, 8, 16),
    "conv2": (8, 8, 16),
    "conv3": (4, 4, 48),
    "inception3a": (4, 4, 64),
    "inception3b": (2, 2, 120),
    "inception4a": (2, 2, 128),
    "inception4e": (1, 1, 208),
    "inception5b": (256,),
}


def test_it_has_the_parameters_of_the_one_in_torchvision():
    """6,624,904 with a classifier of 1000 classes, without those on the side."""
    net = InceptionV1().build()
    params, _ = jax.eval_shape(lambda k: net.init(k, (224, 224, 3)), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == 6_624_904 - 1025 * 1000
    kernels = [x for x in jax.tree.leaves(params) if x.ndim == 4]
    assert len(kernels) == 3 + 9 * 6
    assert net.layers == (
        *("conv1", "conv2", "conv3", "inception3a", "inception3b", "inception4a"),
        *("inception4b", "inception4c", "inception4d", "inception4e"),
        *("inception5a", "inception5b"),
    )


@pytest.mark.parametrize("side", [32, pytest.param(224, marks=pytest.mark.slow)])
def test_sides_halve_five_times(side):
    net = InceptionV1(width=16).build()

    def shapes(key):
        x = jnp.zeros((1, side, side, 3))
        params, state = net.init(key, x.shape[1:])
        return [net.apply(params, state, x, last=name)[0] for name in SIZES]

    found = jax.eval_shape(shapes, jax.random.key(0))
    for x, (h, *rest) in zip(found, SIZES.values(), strict=True):
        expected = (h * side // 32, *rest)
        if len(rest) == 2:
            expected = (h * side // 32, h * side // 32, rest[1])
        assert x.shape[1:] == (expected if len(rest) == 2 else (256,))


@pytest.mark.parametrize("side", [31, 33, 64, 75])
def test_torchvision_pools_with_ceil_mode(side):
    """The sides as PyTorch computes them, where they differ from half of the sides."""
    net = InceptionV1(width=16, form="torchvision").build()

    def sides(key):
        x = jnp.zeros((1, side, side, 3))
        params, state = net.init(key, x.shape[1:])
        names = ("conv1", "conv3", "inception3b", "inception4e")
        return [net.apply(params, state, x, last=name)[0] for name in names]

    found = [x.shape[1] for x in jax.eval_shape(sides, jax.random.key(0))]
    expected, n = [], (side + 6 - 7) // 2 + 1
    for pool in (3, 3, 3, 2):
        n = max(1, -(-(n - pool) // 2) + 1)
        expected.append(n)
    assert found == expected


def test_an_unknown_form_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"form among \['slim', 'torchvision'\], got"):
        InceptionV1(form="keras").build()


def test_names_are_those_of_torchvision():
    (names,) = InceptionV1().names()
    assert names.modules["conv1/norm"] == "conv1.bn"
    assert names.modules["inception3a/branch1/conv"] == "inception3a.branch1.conv"
    assert names.modules["inception5b/branch3_1/norm"] == "inception5b.branch3.1.bn"
    assert names.modules["inception4c/branch4_1/conv"] == "inception4c.branch4.1.conv"
    assert len({*names.modules.values()}) == len(names.modules) == 2 * (3 + 9 * 6)


@pytest.mark.slow
def test_a_block_is_four_branches(rng, drawn):
    net = InceptionV1(width=8).build()
    params, state = drawn(net, (32, 32, 3))
    shape = (2, 3, 3, params["inception4a"]["branch1"]["conv"]["kernel"].shape[2])
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def unit(x, name):
        learnt = params["inception4a"][name]
        stored = state["inception4a"][name]["norm"]
        y = jax.lax.conv_general_dilated(
            x,
            learnt["conv"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        norm = learnt["norm"]
        inverse = norm["scale"] / jnp.sqrt(stored["var"] + 1e-3)
        centred = y - stored["mean"][None, None, None]
        return nn.relu(
            centred * inverse[None, None, None] + norm["bias"][None, None, None]
        )

    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    pooled = np.max(
        [wide[:, i : i + 3, j : j + 3] for i in range(3) for j in range(3)], axis=0
    )
    branches = [
        unit(x, "branch1"),
        unit(unit(x, "branch2_0"), "branch2_1"),
        unit(unit(x, "branch3_0"), "branch3_1"),
        unit(jnp.asarray(pooled), "branch4_1"),
    ]
    expected = jnp.concatenate(branches, axis=-1)
    found, _ = net.apply(params, state, x, first="inception4a", last="inception4a")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
