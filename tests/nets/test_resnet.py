import jax
import jax.numpy as jnp
import pytest

from jaxfer import TRAIN
from jaxfer.nets import ResNet


def _shapes(net, side, last):
    def run(x):
        params, state = net.init(jax.random.key(0), x.shape[1:])
        return net.apply(params, state, x, last=last, mode=TRAIN)[0]

    return jax.eval_shape(run, jnp.zeros((1, side, side, 3))).shape[1:]


@pytest.mark.parametrize(
    ("depth", "wide"), [(18, 1), pytest.param(50, 4, marks=pytest.mark.slow)]
)
def test_sides_halve_and_channels_double_at_the_stages(depth, wide):
    net = ResNet(depth).build()
    ends = {18: (2, 4, 6, 8), 50: (3, 7, 13, 16)}[depth]
    assert net.layers == ("conv1", *(f"block{i}" for i in range(1, ends[-1] + 1)))
    assert _shapes(net, 97, "conv1") == (25, 25, 64)
    assert _shapes(net, 97, f"block{ends[0]}") == (25, 25, 64 * wide)
    assert _shapes(net, 97, f"block{ends[1]}") == (13, 13, 128 * wide)
    assert _shapes(net, 97, f"block{ends[2]}") == (7, 7, 256 * wide)
    assert _shapes(net, 97, f"block{ends[3]}") == (512 * wide,)


def test_the_dimension_and_the_precision_are_options(drawn):
    net = ResNet(dim=5, precision="bfloat16").build()
    params, state = drawn(net, (32, 32, 3))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    x = jnp.zeros((2, 8, 8, 64), jnp.float32)
    y, _ = net.apply(params, state, x, first="block1", last="block2")
    assert y.dtype == jnp.bfloat16
    y, _ = net.apply(params, state, jnp.zeros((2, 512)), first="embedding")
    assert (y.shape, y.dtype) == ((2, 5), jnp.float32)


@pytest.mark.usefixtures("unchecked")
def test_other_depths_are_refused():
    with pytest.raises(ValueError, match="expected depth of 18, 34 or 50, got 19"):
        ResNet(19)
