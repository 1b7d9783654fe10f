import jax
import jax.numpy as jnp
import pytest

from jaxfer.nets import InceptionResNetV2

SMALL = InceptionResNetV2(repeats=(1, 1, 1))


def shapes_of(net, side, names=()):
    """Parameters, and the shapes after some layers, without computing them."""

    def run(key):
        x = jnp.zeros((1, side, side, 3))
        params, state = net.init(key, x.shape[1:])
        return params, [net.apply(params, state, x, last=name)[0] for name in names]

    return jax.eval_shape(run, jax.random.key(0))


@pytest.mark.slow
def test_it_has_the_published_number_of_parameters():
    """55,843,464 in timm, with a classifier of 1000 classes."""
    net = InceptionResNetV2().build()
    params, _ = shapes_of(net, 75)
    assert sum(x.size for x in jax.tree.leaves(params)) == 55_843_464 - 1537 * 1000
    assert len(net.layers) == 5 + 3 + 10 + 20 + 10 + 1


@pytest.mark.parametrize(
    ("side", "sides"), [(75, (37, 17, 7, 3, 1)), (299, (149, 73, 35, 17, 8))]
)
def test_maps_have_the_sizes_of_the_paper(side, sides):
    names = ("conv2d_1a", "conv2d_3b", "mixed_5b", "block17_1", "block8_2")
    _, found = shapes_of(SMALL.build(), side, (*names, "conv2d_7b"))
    widths = (32, 80, 320, 1088, 2080)
    assert [x.shape[1:] for x in found[:-1]] == [
        (s, s, w) for s, w in zip(sides, widths, strict=True)
    ]
    assert found[-1].shape == (1, 1536)


def test_small_images_are_refused():
    net = SMALL.build()
    message = "expected images of 75 x 75 pixels or more .* got 74 x 80"
    with pytest.raises(ValueError, match=message):
        net.init(jax.random.key(0), (74, 80, 3))


def test_names_are_those_of_timm():
    (names,) = InceptionResNetV2().names()
    found = names.modules
    assert found["conv2d_1a/norm"] == "conv2d_1a.bn"
    assert found["mixed_5b/branch3_1/conv"] == "mixed_5b.branch3.1.conv"
    assert found["mixed_6a/branch0/conv"] == "mixed_6a.branch0.conv"
    assert found["block35_10/branch2_2/norm"] == "repeat.9.branch2.2.bn"
    assert found["block17_20/conv2d"] == "repeat_1.19.conv2d"
    assert found["block8_9/branch1_0/conv"] == "repeat_2.8.branch1.0.conv"
    assert found["block8_10/conv2d"] == "block8.conv2d"
    assert len({*found.values()}) == len(found)
