"""Images that are stored as rows of a matrix are the same images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.data.feed import place
from jaxfer.data.flat import FlatItems, flat_items, padding


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, 5, 4, 3), np.uint8)


@pytest.mark.parametrize("on_device", [False, True])
def test_rows_are_taken_as_from_the_array(images, on_device):
    rows = flat_items(jnp.asarray(images) if on_device else images)
    assert (rows.shape, rows.ndim, len(rows)) == (images.shape, 4, 7)
    assert rows.dtype == np.uint8 and rows.flat.shape == (7, 128)
    for at in (3, slice(2, 5), np.array([6, 0, 6]), np.array([[1, 2], [0, 4]])):
        np.testing.assert_array_equal(rows[at], images[at])
    np.testing.assert_array_equal(rows, images)
    np.testing.assert_array_equal(np.array(rows, np.float32, copy=True), images)


def test_they_pass_through_jit_and_vmap(images):
    rows = flat_items(images)
    at = np.array([[0, 3], [6, 6]])
    taken = jax.jit(jax.vmap(lambda x, i: x[i], in_axes=(None, 0)))(rows, at)
    np.testing.assert_array_equal(taken, images[at])
    assert isinstance(jax.tree.map(lambda x: x, rows), FlatItems)


def test_vectors_and_rows_stay_as_they_are(images, rng):
    vectors = rng.normal(size=(3, 4))
    assert flat_items(vectors) is vectors
    rows = flat_items(images)
    assert flat_items(rows) is rows
    assert place(rows).fingerprint == place(images).fingerprint


@pytest.mark.parametrize("item", [(28, 28, 1), (84, 84, 3), (32, 32, 3), (1,)])
def test_a_row_is_a_multiple_of_the_lanes(item):
    size = int(np.prod(item)) + padding(item)
    assert size % 128 == 0 and padding(item) < 128
