"""State dictionaries of every architecture with known names, there and back."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxfer import nets
from jaxfer.pretrained import from_state_dict, to_state_dict
from jaxfer.trees import flatten

pytestmark = pytest.mark.once

SHAPE = (80, 80, 3)
# One of each kind of names: add an architecture here when it gets a method `names`.
SPECS = [
    nets.EfficientNetLite(),
    nets.InceptionResNetV2(repeats=(1, 1, 1)),
    nets.InceptionV1(form="torchvision", width=8),
    nets.MobileNetV2(),
    nets.ResNet(18),
    nets.ResNet(50),
    nets.ResNet12(width=4),
    nets.ViT(width=12, depth=2, heads=2, side=80),
]
CASES = [
    pytest.param(spec, names, id=f"{type(spec).__name__}-{i}-{names.library}")
    for i, spec in enumerate(SPECS)
    for names in spec.names()
]


@functools.cache
def _traced(spec):
    """The net, whose `init` gives zeros: it is traced once and not in each test."""
    net = spec.build()
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), SHAPE))
    init = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return dataclasses.replace(net, init=lambda key, shape: init)


def _random(net, names, rng):
    """A state dictionary of random values, with a classifier of 7 classes."""
    own = to_state_dict(net, *net.init(jax.random.key(0), SHAPE), names)
    shapes = {name: x.shape for name, x in own.items()}
    shapes |= {f"{names.head}.weight": (7, 3), f"{names.head}.bias": (7,)}
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def test_every_architecture_with_names_is_here():
    known = {name for name in nets.NAMES if hasattr(getattr(nets, name), "names")}
    assert {type(spec).__name__ for spec in SPECS} == known


@pytest.mark.parametrize(("spec", "names"), CASES)
def test_a_state_dictionary_comes_back_unchanged(spec, names, rng):
    net = _traced(spec)
    given = _random(net, names, rng)
    params, state, head = from_state_dict(net, given, SHAPE, names)
    found = to_state_dict(net, params, state, names, head)
    assert found.keys() == given.keys()
    for name, x in given.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)
    # Every array here has one place there, and every name is that of a module.
    tree = flatten({"p": params, "s": state})
    leaves = [path.split("/", 1)[1] for path, x in tree.items() if np.ndim(x)]
    assert len(leaves) == len(given) - 2
    modules = {path.rpartition("/")[0] for path in leaves}
    assert {*names.modules} <= modules | {*leaves}
