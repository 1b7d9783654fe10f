import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import EVAL, TRAIN, ClassSums, Episode, Head, Mode, TrainState
from jaxfer.types import layer_mode


def _head() -> Head:
    return Head(
        weight=jnp.ones((3, 2)),
        bias=jnp.zeros(3),
        scale=jnp.ones(()),
        owner=jnp.arange(3),
        num_classes=3,
        unit=True,
        pool="max",
    )


@pytest.mark.parametrize(
    "value",
    [
        ClassSums(jnp.ones((3, 2)), jnp.ones(3)),
        Episode(jnp.ones((5, 1, 4)), jnp.ones((5, 3, 4)), jnp.arange(5)),
        TrainState(jnp.zeros((), jnp.int32), {"a": jnp.ones(2)}, {}, {}, ()),
        _head(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_states_round_trip_through_flatten(value):
    leaves, tree = jax.tree.flatten(value)
    again = jax.tree.unflatten(tree, leaves)
    assert type(again) is type(value)
    assert jax.tree.structure(again) == tree
    for one, other in zip(leaves, jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_heads_static_fields_are_not_leaves_and_survive_jit():
    head = _head()
    assert len(jax.tree.leaves(head)) == 4
    out = jax.jit(lambda h: dataclasses.replace(h, bias=h.bias + 1))(head)
    assert (out.num_classes, out.unit, out.pool) == (3, True, "max")
    np.testing.assert_array_equal(out.bias, 1)


def test_one_mode_serves_every_layer():
    assert layer_mode(TRAIN, "anything") is TRAIN
    assert EVAL == Mode("running", dropout=False)


def test_a_mapping_of_modes_must_name_the_layer():
    modes = {"conv1": EVAL, "conv2": TRAIN}
    assert layer_mode(modes, "conv1") == EVAL
    with pytest.raises(ValueError, match=r"no mode for 'conv3'.*conv1.*conv2"):
        layer_mode(modes, "conv3")
