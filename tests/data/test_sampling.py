"""Batches of labelled images, sampled by the number of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.data.sampling import Sampler, draw_batch
from jaxfer.episodes import class_table

COUNTS = [3, 40, 8, 9]
LABELS = np.repeat(np.arange(4, dtype=np.int32), COUNTS)


def _drawn(kind, steps, *, group=3):
    table = jax.tree.map(jnp.asarray, class_table(LABELS, num_classes=4))
    draw = jax.vmap(
        lambda step: draw_batch(
            Sampler(kind, group), jax.random.key(3), step, batch=12, n=60, table=table
        )
    )
    drawn = jax.jit(draw)(jnp.arange(steps, dtype=jnp.int32))
    return np.asarray(drawn.places), np.asarray(drawn.numbers)


def test_epochs_have_every_example_once_in_a_new_order():
    places, numbers = _drawn("epoch", 10)
    assert sorted(places[:5].ravel()) == sorted(places[5:].ravel()) == [*range(60)]
    assert (places[:5] != places[5:]).any()
    # Augmentation differs by example and by epoch.
    assert len({*numbers.ravel()}) == numbers.size


def test_batches_by_class_have_every_class_as_often():
    places, numbers = _drawn("class", 500)
    found = np.bincount(LABELS[places].ravel(), minlength=4)
    # Chi-square with 3 degrees of freedom exceeds 16.3 once in a thousand times.
    assert ((found - 1500) ** 2 / 1500).sum() < 16.3
    times = np.bincount(places[LABELS[places] == 0])
    assert times.tolist() == pytest.approx([500] * 3, rel=0.2)
    assert len({*numbers.ravel()}) == numbers.size


def test_groups_are_different_examples_of_different_classes():
    places, numbers = _drawn("groups", 40)
    for batch in places:
        groups = LABELS[batch].reshape(4, 3)
        assert (groups == groups[:, :1]).all() and len({*groups[:, 0]}) == 4
        assert len({*batch}) == 12
    assert len({*numbers.ravel()}) == numbers.size


def test_draws_depend_on_neither_jax_defaults_nor_the_other_steps():
    for kind in ("epoch", "class", "groups"):
        places, _ = _drawn(kind, 4)
        with jax.threefry_partitionable(False):
            again, _ = _drawn(kind, 6)
        np.testing.assert_array_equal(places, again[:4])


def test_what_cannot_be_drawn_is_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="at least one batch of 12, got 11 examples"):
        draw_batch(Sampler(), key, 0, batch=12, n=11)
    with pytest.raises(ValueError, match="expected a class table for sampler 'class'"):
        draw_batch(Sampler("class"), key, 0, batch=2, n=11)
    with pytest.raises(ValueError, match="group of at least 1, got 0"):
        Sampler("groups", 0)
