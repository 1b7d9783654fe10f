"""The training step on episodes: its loss, sharded, compiled, resident or streamed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import sharding, steps
from jaxfer.data import Affine, Crop, draw, resident, stream
from jaxfer.methods import prototypes
from jaxfer.models import EpisodeShape, Pixels, Recipe, embed_together
from jaxfer.models.episode_step import (
    EpisodeProgram,
    make_episode_loss,
    make_episode_optimizer,
    make_episode_step,
    shifted,
    varied,
)
from jaxfer.nets import Conv4
from jaxfer.optim import Optim
from jaxfer.types import TRAIN, Episode, Mode

SHAPE = EpisodeShape(way=5, shot=2, n_query=3)
NET = Conv4(width=4).build()
PIXELS = Pixels()
TURN, CROP = Affine(rotate=20.0, shift=1.0), Crop(shift=1, mirror=True)


@pytest.fixture
def pieces(blobs, drawn):
    """The loss and the step of a program, its first state, and its data."""

    def make(devices=1, shape=SHAPE, **recipe):
        mesh = sharding.make_mesh(devices)
        program = EpisodeProgram(
            NET,
            Recipe(Optim("sgd", 0.1, momentum=0.0), **recipe),
            shape,
            prototypes(),
            seed=0,
            split="train",
            mesh=mesh if devices > 1 else None,
        )
        params, state = drawn(NET, (16, 16, 1))
        optimizer = make_episode_optimizer(program)
        started = steps.init_train_state({"net": params}, state, optimizer)
        loss = make_episode_loss(program)
        step = steps.make_train_step(loss, optimizer)
        data = sharding.place(resident(blobs), mesh), PIXELS
        return jax.jit(loss), step, started, data, mesh

    return make


def _embedded(started, episode):
    """An episode embedded in one pass, by the definition."""
    flat = [x.reshape(-1, 16, 16, 1) for x in episode[:2]]
    forward = jax.jit(lambda *args: NET.apply(*args, mode=TRAIN))
    params = started.trainable["net"]
    z, state = forward(params, started.state, jnp.concatenate(flat))
    z = np.asarray(z, np.float64)
    support, query = np.split(z, [len(flat[0])])
    way = len(episode.support)
    return support.reshape(way, -1, 4), query.reshape(way, -1, 4), state


def _loss(support, query):
    """Loss and accuracy of prototypes, query by query."""
    prototype = support.mean(axis=1)
    total, right, (way, n_query) = 0.0, 0, query.shape[:2]
    for k in range(way):
        for q in range(n_query):
            d = ((query[k, q] - prototype) ** 2).sum(axis=1)
            total += d[k] + np.log(np.exp(-d).sum())
            right += int(d.argmin() == k)
    return total / (way * n_query), right / (way * n_query)


def test_the_loss_is_that_of_the_definition(pieces):
    """Joint statistics: one pass over support and query together."""
    loss, _, started, data, _ = pieces()
    value, (state, metrics) = loss(started.trainable, started.state, 3, data)
    episode = draw(data[0], 0, "train", 3, **SHAPE.sizes())
    support, query, expected = _embedded(started, episode)
    total, right = _loss(support, query)
    assert float(value) == pytest.approx(total, rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx(right)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state,
        expected,
    )


def test_the_network_sees_pixels_as_the_model_says(pieces):
    loss, _, started, (data, _), _ = pieces()
    pixels = Pixels(np.float32([30]), np.float32(60))
    value, _ = loss(started.trainable, started.state, 3, (data, pixels))
    episode = draw(data, 0, "train", 3, **SHAPE.sizes())
    prepared = jax.tree.map(lambda x: (x * 255 - 30) / 60, episode[:2])
    support, query, _ = _embedded(started, Episode(*prepared, episode.classes))
    assert float(value) == pytest.approx(_loss(support, query)[0], rel=1e-4)


def test_episodes_of_a_step_are_averaged_in_loss_and_statistics(pieces):
    one, _, started, data, _ = pieces()
    many, _, _, _, _ = pieces(batch=3)
    value, (state, _) = many(started.trainable, started.state, 2, data)
    each = [one(started.trainable, started.state, k, data) for k in (6, 7, 8)]
    np.testing.assert_allclose(value, np.mean([e[0] for e in each]), rtol=1e-5)
    states = [e[1][0] for e in each]
    jax.tree.map(
        lambda a, *b: np.testing.assert_allclose(a, sum(b) / 3, rtol=1e-5, atol=1e-6),
        state,
        *states,
    )


def test_sharded_equals_one_device_and_gathers_nothing(pieces):
    """First-step loss, statistics and, under plain SGD, all parameters.

    Gradients and statistics are averaged over the devices; no image and no activation
    crosses them.
    """
    results = []
    for devices in (1, 8):
        _, step, started, data, mesh = pieces(devices, batch=8, augment=CROP)
        call, started = steps.compile_step(step), sharding.place(started, mesh)
        if devices == 8:
            text = call.lower(started, data).compile().as_text()
            assert " all-reduce(" in text or " all-reduce-start(" in text
            for collective in ("all-gather", "all-to-all", "collective-permute"):
                assert f" {collective}(" not in text, collective
        results.append(jax.device_get(call(started, data)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results
    )


def test_the_step_compiles_once_donates_and_moves_nothing_to_the_host(pieces):
    _, step, started, data, mesh = pieces()
    traces = []

    def counted(*args):
        traces.append(1)
        return step(*args)

    call = steps.compile_step(counted)
    state = sharding.place(jax.tree.map(jnp.copy, started), mesh)
    data = sharding.place(data, mesh)
    first = state
    with jax.transfer_guard("disallow"):
        for _ in range(4):
            state, metrics = call(state, data)
    jax.block_until_ready(metrics)
    assert len(traces) == call.compilations == 1
    assert all(x.is_deleted() for x in jax.tree.leaves(first))
    assert int(state.step) == 4


def test_only_transductive_predictions_depend_on_other_queries(pieces):
    _, _, started, (data, _), _ = pieces()
    params, state = started.trainable["net"], started.state
    episode = draw(data, 0, "test", 0, way=3, shot=1, n_query=4)
    other = episode._replace(query=episode.query.at[:, 1:].set(0.5))

    def first_query(episode, mode):
        embedded, _ = embed_together(NET, params, state, episode, mode)
        return prototypes().logits({}, embedded)[:, 0]

    inductive, transductive = (
        np.abs(first_query(episode, mode) - first_query(other, mode))
        for mode in (Mode("running"), Mode("batch"))
    )
    assert inductive.max() == 0
    assert transductive.min() > 1e-3


def test_every_example_is_support_in_turn(pieces):
    """The cyclic loss is the mean over all shifts, each made by hand."""
    loss, _, started, data, _ = pieces(shape=SHAPE._replace(cyclic=True))
    value, (_, metrics) = loss(started.trainable, started.state, 3, data)
    episode = draw(data[0], 0, "train", 3, **SHAPE.sizes())
    support, query, _ = _embedded(started, episode)
    examples = np.concatenate([support, query], axis=1)
    found = []
    for turn in range(5):
        order = [(turn + i) % 5 for i in range(5)]
        found.append(_loss(examples[:, order[:2]], examples[:, order[2:]]))
    losses, accuracies = zip(*found, strict=True)
    assert float(value) == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(accuracies), abs=1e-6)


def test_shifts_of_an_episode():
    numbers = np.arange(10.0).reshape(2, 5, 1)
    episode = Episode(numbers[:, :2], numbers[:, 2:], np.arange(2))
    found = shifted(episode)
    assert found.support.shape == (5, 2, 2, 1) and found.query.shape == (5, 2, 3, 1)
    assert found.support[0, 1, :, 0].tolist() == [5, 6]
    assert found.support[4, 1, :, 0].tolist() == [9, 5]
    assert found.query[4, 0, :, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((TURN,), marks=pytest.mark.slow),
        pytest.param((CROP,), marks=pytest.mark.slow),
        (TURN, CROP),
    ],
)
def test_images_are_moved_by_the_number_of_their_episode(pieces, changes):
    """The loss is that of the episode moved by hand; each number moves otherwise."""
    augment = changes[0] if len(changes) == 1 else changes
    loss, _, started, data, _ = pieces(augment=augment)
    plain, *_ = pieces()
    for number in (3, 4):
        value, _ = loss(started.trainable, started.state, number, data)
        episode = draw(data[0], 0, "train", number, **SHAPE.sizes())
        by_hand = varied(Pixels(), changes, 0, episode, jnp.asarray(number))
        support, query, _ = _embedded(started, by_hand)
        assert float(value) == pytest.approx(_loss(support, query)[0], rel=1e-4)
        still, _ = plain(started.trainable, started.state, number, data)
        assert abs(float(value) - float(still)) > 1e-3
        again = varied(Pixels(), changes, 0, episode, jnp.asarray(7))
        assert float(jnp.abs(again.query - by_hand.query).max()) > 0.05


def test_each_image_of_an_episode_is_moved_in_its_own_way(rng):
    """Whole pixels and flips: each result is the image at one of 18 places."""
    image = rng.random((6, 6, 1)).astype(np.float32)
    same = np.broadcast_to(image, (4, 5, 6, 6, 1))
    episode = Episode(same[:, :2], same[:, 2:], np.arange(4))
    support, query, classes, _ = varied(Pixels(), (CROP,), 0, episode, jnp.asarray(0))
    assert (support.shape, query.shape) == (same[:, :2].shape, same[:, 2:].shape)
    np.testing.assert_array_equal(classes, np.arange(4))
    wide = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    places = {
        wide[y : y + 6, x : x + 6][:, :: -1 if flip else 1].tobytes()
        for y, x, flip in np.ndindex(3, 3, 2)
    }
    flat = np.concatenate(
        [np.asarray(x).reshape(-1, 6, 6, 1) for x in (support, query)]
    )
    found = [x.tobytes() for x in flat]
    assert set(found) <= places and len(set(found)) > 8
    with jax.threefry_partitionable(False):
        again = varied(Pixels(), (CROP,), 0, episode, jnp.asarray(0))
    np.testing.assert_array_equal(again.query, query)


def test_streamed_equals_resident_on_several_devices(pieces, blobs):
    pytest.importorskip("grain")
    _, step, started, data, mesh = pieces(4, batch=4)
    streamed = stream(
        blobs,
        0,
        "train",
        **SHAPE.sizes(),
        per_step=4,
        put=lambda batch: sharding.from_host(batch, mesh),
    )
    batches = streamed(0)
    call = steps.compile_step(step)
    ends = []
    for feed in (lambda: data, lambda: (next(batches), PIXELS)):
        state = sharding.place(jax.tree.map(jnp.copy, started), mesh)
        for _ in range(3):
            state, metrics = call(state, feed())
        ends.append(jax.device_get((state, metrics)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *ends
    )


def test_programs_that_are_equal_share_what_is_compiled():
    base, same = (
        EpisodeProgram(
            Conv4(width=4).build(), Recipe(), SHAPE, prototypes(), seed=0, split="train"
        )
        for _ in range(2)
    )
    assert make_episode_step(base) is make_episode_step(same)
    other = dataclasses.replace(base, seed=1)
    assert make_episode_step(base) is not make_episode_step(other)
