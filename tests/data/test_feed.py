"""One interface for data on the devices and streamed data."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import sharding
from jaxfer.data import View
from jaxfer.data.feed import (
    Source,
    episode_feed,
    in_blocks,
    one_episode,
    place,
    place_episodes,
    stream_rows,
    take_episode,
)
from jaxfer.data.flat import FlatItems
from jaxfer.data.resident import Resident

SHAPE = {"way": 3, "shot": 2, "n_query": 4}


@jax.jit
def _score(x, at):
    """One number per row, which depends on the items and on the row numbers."""
    return x.astype(jnp.float32).reshape(len(x), -1).sum(axis=1) + 1000.0 * at


def _kinds(items):
    return {"host": items, "device": jnp.asarray(items), "view": View.of(items)}


@pytest.mark.parametrize("kind", ["host", "device", "view"])
@pytest.mark.parametrize(("n", "block"), [(1, 4), (4, 4), (9, 4), (12, 5), (3, 1000)])
def test_blocks_are_one_call_in_parts(kind, n, block, rng):
    if kind == "view":
        pytest.importorskip("grain")
    items = rng.integers(0, 9, (n, 3, 3, 1), dtype=np.uint8)
    parts = [*in_blocks(_score, _kinds(items)[kind], block=block)]
    assert [len(part) for part in parts] == [
        min(block, n - start) for start in range(0, n, block)
    ]
    expected = _score(jnp.asarray(items), jnp.arange(n))
    np.testing.assert_array_equal(jnp.concatenate(parts), expected)


@pytest.mark.parametrize("kind", ["host", "device", "view"])
def test_blocks_of_chosen_rows_are_those_rows_in_their_order(kind, rng):
    if kind == "view":
        pytest.importorskip("grain")
    items, rows = rng.integers(0, 9, (9, 2, 2, 1), dtype=np.uint8), [7, 0, 7, 3, 8]
    found = jnp.concatenate([*in_blocks(_score, _kinds(items)[kind], rows, block=2)])
    expected = _score(jnp.asarray(items[rows]), jnp.asarray(rows))
    np.testing.assert_array_equal(found, expected)


def test_all_blocks_have_one_shape():
    shapes = set()

    def watched(x, at):
        shapes.add((x.shape, at.shape, at.dtype.name))
        return x

    assert len([*in_blocks(watched, np.zeros((7, 2)), block=3)]) == 3
    assert shapes == {((3, 2), (3,), "int32")}


def test_a_block_holds_at_most_100_megabytes(unchecked):
    """Only shapes are checked: no array of that size is made."""

    class Huge:
        shape = (3, 10_000, 6_000)

        def __len__(self):
            return 3

        def __getitem__(self, at):
            return np.asarray(at)

    sizes = [len(part) for part in in_blocks(lambda x, at: x, Huge())]
    assert sizes == [1, 1, 1]


def test_small_data_are_placed_and_large_ones_streamed(blobs, capsys):
    small, large = place(blobs), place(blobs, limit=1e-6)
    assert not small.streamed and isinstance(small.items, FlatItems)
    np.testing.assert_array_equal(small.items, blobs.images)
    assert capsys.readouterr().out.startswith("blobs is streamed: ")
    assert large.streamed and isinstance(large.items, View)
    assert small.fingerprint == large.fingerprint == blobs.fingerprint


def test_a_source_is_placed_on_every_device_of_a_mesh(blobs):
    mesh = sharding.make_mesh(2)
    source = place(blobs, mesh)
    assert len(source.items.flat.addressable_shards) == 2
    again = place(place(blobs), mesh)
    assert isinstance(again, Source) and again.fingerprint == source.fingerprint
    assert again.items.flat.sharding == source.items.flat.sharding
    streamed = place(blobs, limit=1e-6)
    assert place(streamed, mesh) is streamed


def test_arrays_have_fingerprints_of_their_content_shape_and_type(rng):
    features = rng.normal(size=(4, 6)).astype(np.float32)
    one = place(features)
    assert one.fingerprint == place(features.copy()).fingerprint
    others = features + 1, features.reshape(6, 4), features.view(np.int32)
    assert one.fingerprint not in {place(x).fingerprint for x in others}


@pytest.mark.parametrize("first", [0, 3])
def test_streamed_rows_are_those_that_a_step_draws(rng, first):
    pytest.importorskip("grain")
    items = rng.integers(0, 9, (20, 2), dtype=np.uint8)

    def draw(key, step):
        return jax.random.randint(jax.random.fold_in(key, step), (5,), 0, 20)

    at = stream_rows(draw, jax.random.key(2), items.__getitem__, num_steps=6)
    found = [np.asarray(x) for x in at(first)]
    assert len(found) == 6 - first
    for step, batch in enumerate(found, first):
        rows = draw(jax.random.key(2), np.uint32(step))
        np.testing.assert_array_equal(batch, items[np.asarray(rows)])


def test_streamed_episodes_are_the_resident_ones(blobs):
    pytest.importorskip("grain")
    mesh = sharding.make_mesh(1)
    resident = place_episodes(blobs, mesh)
    streamed = place_episodes(blobs, mesh, limit=1e-6)
    assert isinstance(resident, Resident) and streamed is blobs
    assert episode_feed(resident, 4, "test", **SHAPE) is resident
    batches = episode_feed(streamed, 4, "test", **SHAPE, per_step=2)(1)
    for step, batch in enumerate(itertools.islice(batches, 2), 1):
        for i in range(2):
            number = 2 * step + i
            expected = take_episode(resident, 4, "test", jnp.uint32(number), **SHAPE)
            for found in (
                take_episode(batch, 4, "test", jnp.uint32(i), **SHAPE),
                one_episode(blobs, 4, "test", number, **SHAPE),
                one_episode(resident, 4, "test", number, **SHAPE),
            ):
                jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_view_of_what_is_in_memory_needs_no_grain(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    view = View.of(np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1))
    parts = in_blocks(lambda x, rows: x, view.take(np.array([2, 0])), block=1)
    found = np.concatenate([np.asarray(part) for part in parts])
    np.testing.assert_array_equal(found, view[np.array([2, 0])])
