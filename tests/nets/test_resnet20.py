import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxfer import EVAL, TRAIN
from jaxfer.nets import ResNet20


def test_it_has_the_published_number_of_parameters(drawn):
    """He et al. 2016, Table 6: 0.27M with a classifier of 10 classes (650 of them)."""
    params, _ = drawn(ResNet20().build(), (32, 32, 3))
    sizes = jax.tree.map(jnp.size, params)
    assert sum(jax.tree.leaves(sizes)) == 269_722 - 650
    kernels = [x for x in jax.tree.leaves(params) if x.ndim == 4]
    assert len(kernels) == 19
    assert {*params} == {"conv1", *(f"block{i}" for i in range(1, 10))}


def test_sides_halve_and_channels_double_at_the_stages(drawn):
    net = ResNet20(width=4).build()
    params, state = drawn(net, (16, 16, 3))
    shapes = [
        net.apply(params, state, jnp.zeros((1, 16, 16, 3)), last=name)[0].shape[1:]
        for name in ("conv1", "block3", "block4", "block7", "block9")
    ]
    assert shapes == [(16, 16, 4), (16, 16, 4), (8, 8, 8), (4, 4, 16), (16,)]


def test_a_block_is_two_convolutions_beside_a_shortcut(rng, drawn):
    net = ResNet20(width=2).build()
    params, state = drawn(net, (8, 8, 1))
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 1)), jnp.float32)
    _, state = net.apply(params, state, x, mode=TRAIN)
    x, _ = net.apply(params, state, x, last="block3")

    def conv(x, name, stride):
        return jax.lax.conv_general_dilated(
            x,
            params["block4"][name]["kernel"],
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def norm(x, name):
        stored, learnt = state["block4"][name], params["block4"][name]
        inverse = learnt["scale"] / jnp.sqrt(stored["var"] + 1e-5)
        centred = x - stored["mean"][None, None, None]
        return centred * inverse[None, None, None] + learnt["bias"][None, None, None]

    y = nn.relu(norm(conv(x, "Conv_0", 2), "BatchNorm_0"))
    y = norm(conv(y, "Conv_1", 1), "BatchNorm_1")
    shortcut = jnp.concatenate(
        [jnp.zeros((2, 4, 4, 1)), x[:, ::2, ::2], jnp.zeros((2, 4, 4, 1))], axis=-1
    )
    found, _ = net.apply(params, state, x, mode=EVAL, first="block4", last="block4")
    np.testing.assert_allclose(found, nn.relu(y + shortcut), rtol=1e-4, atol=1e-5)
