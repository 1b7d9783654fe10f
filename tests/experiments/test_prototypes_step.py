"""The training step: its rate and loss, sharded, compiled, resident or streamed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import prototypes_step as ours
from experiments.prototypes_config import Config, Embedding, Optim, Task
from jaxfer import sharding, steps
from jaxfer.data import Affine, draw, resident, stream
from jaxfer.losses import episode_nll
from jaxfer.types import TRAIN, Episode

TINY = Config(net=Embedding(width=8), task=Task(way=5, shot=2, query=3))


def _with(**changes):
    return dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize("halve", [8, 500, 2000])
@pytest.mark.parametrize("per_step", [1, 2, 6, 7, 12])
def test_the_rate_halves_with_the_step_that_reaches_the_episode(halve, per_step):
    config = _with(optim=Optim(1e-3, halve_every=halve), episodes_per_step=per_step)
    steps_taken = np.arange(0, 12 * halve // per_step + 2)
    rates = ours.learning_rate(config, jnp.asarray(steps_taken, jnp.int32))
    expected = [1e-3 / 2 ** (int(n) * per_step // halve) for n in steps_taken]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_rate_may_be_constant():
    config = _with(optim=Optim(1e-3, halve_every=0))
    assert ours.learning_rate(config, jnp.asarray(10**6)) == pytest.approx(1e-3)


@pytest.fixture
def pieces(blobs):
    def make(devices=1, **changes):
        config = _with(devices=devices, **changes)
        net = ours.make_net(config)
        mesh = sharding.make_mesh(devices)
        optimizer = optax.sgd(0.1)
        params, state = net.init(jax.random.key(0), (16, 16, 1))
        started = steps.init_train_state(params, state, optimizer)
        loss = ours.make_loss(config, net, mesh)
        data = sharding.place(resident(blobs), mesh)
        step = steps.make_train_step(loss, optimizer)
        return jax.jit(loss), step, started, data, mesh

    return make


def test_the_loss_is_that_of_the_definition(pieces, blobs):
    loss, _, started, data, _ = pieces()
    value, (state, metrics) = loss(started.trainable, started.state, 3, data)
    config = TINY
    net = ours.make_net(config)
    episode = draw(data, 0, "train", 3, way=5, shot=2, n_query=3)
    # Joint statistics: one pass over support and query together.
    images = jnp.concatenate(
        [episode.support.reshape(10, 16, 16, 1), episode.query.reshape(15, 16, 16, 1)]
    )
    forward = jax.jit(lambda *args: net.apply(*args, mode=TRAIN))
    z, expected_state = forward(started.trainable, started.state, images)
    z = np.asarray(z, np.float64)
    prototype = z[:10].reshape(5, 2, -1).mean(axis=1)
    total, right = 0.0, 0
    for k in range(5):
        for q in range(3):
            d = ((z[10 + 3 * k + q] - prototype) ** 2).sum(axis=1)
            total += d[k] + np.log(np.exp(-d).sum())
            right += int(d.argmin() == k)
    assert float(value) == pytest.approx(total / 15, rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx(right / 15)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state,
        expected_state,
    )


def test_episodes_of_a_step_are_averaged_in_loss_and_statistics(pieces):
    one, _, started, data, _ = pieces()
    many, _, _, _, _ = pieces(episodes_per_step=3)
    value, (state, _) = many(started.trainable, started.state, 2, data)
    each = [one(started.trainable, started.state, k, data) for k in (6, 7, 8)]
    np.testing.assert_allclose(value, np.mean([e[0] for e in each]), rtol=1e-5)
    states = [e[1][0] for e in each]
    jax.tree.map(
        lambda a, *b: np.testing.assert_allclose(a, sum(b) / 3, rtol=1e-5, atol=1e-6),
        state,
        *states,
    )


def test_sharded_equals_one_device(pieces):
    """First-step loss, statistics and, under plain SGD, the whole tree."""
    results = []
    for devices in (1, 8):
        _, step, started, data, mesh = pieces(devices, episodes_per_step=8)
        after, metrics = steps.compile_step(step)(sharding.place(started, mesh), data)
        results.append(jax.device_get((after, metrics)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results
    )


def test_sharded_step_moves_gradients_and_statistics_only(pieces):
    """No image and no activation crosses devices: all-reduces, and nothing gathered."""
    _, step, started, data, mesh = pieces(8, episodes_per_step=8)
    compiled = steps.compile_step(step).lower(sharding.place(started, mesh), data)
    text = compiled.compile().as_text()
    assert " all-reduce(" in text or " all-reduce-start(" in text
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert f" {collective}(" not in text, collective


def test_the_step_compiles_once_donates_and_moves_nothing_to_the_host(pieces):
    _, step, started, data, mesh = pieces()
    traces = []

    def counted(*args):
        traces.append(1)
        return step(*args)

    call = steps.compile_step(counted)
    state = sharding.place(jax.tree.map(jnp.copy, started), mesh)
    first = state
    with jax.transfer_guard("disallow"):
        for _ in range(4):
            state, metrics = call(state, data)
    jax.block_until_ready(metrics)
    assert len(traces) == 1
    assert all(x.is_deleted() for x in jax.tree.leaves(first))
    assert int(state.step) == 4


def test_inductive_predictions_hang_on_no_other_query_transductive_ones_do(blobs):
    net = ours.make_net(TINY)
    params, state = net.init(jax.random.key(0), (16, 16, 1))
    data = jax.device_put(resident(blobs))
    episode = draw(data, 0, "test", 0, way=3, shot=1, n_query=4)
    other = episode._replace(query=episode.query.at[:, 1:].set(0.5))

    def first_query(episode, embed):
        return ours.prototype_logits(embed(episode), "sqeuclidean")[:, 0]

    def inductive(episode):
        flat = [x.reshape(-1, 16, 16, 1) for x in episode[:2]]
        z = [net.apply(params, state, x)[0] for x in flat]
        return Episode(z[0].reshape(3, 1, -1), z[1].reshape(3, 4, -1), episode.classes)

    def transductive(episode):
        return ours.embed_together(net, params, state, episode)[0]

    np.testing.assert_array_equal(
        first_query(episode, inductive), first_query(other, inductive)
    )
    moved = first_query(episode, transductive) - first_query(other, transductive)
    assert float(jnp.abs(moved).min()) > 1e-3


def test_a_cosine_rises_ends_at_zero_and_counts_steps():
    optim = Optim(2e-3, schedule="cosine", warmup=4)
    config = _with(optim=optim, episodes=48, episodes_per_step=2)
    rates = ours.learning_rate(config, jnp.arange(24))
    np.testing.assert_allclose(rates[:4], 2e-3 * np.arange(1, 5) / 4, rtol=1e-6)
    expected = 1e-3 * (1 + np.cos(np.pi * np.arange(1, 21) / 20))
    np.testing.assert_allclose(rates[4:], expected, rtol=1e-5, atol=1e-9)


def test_every_example_is_support_in_turn(pieces, blobs):
    """The cyclic loss is the mean over all shifts, each made by hand."""
    task = dataclasses.replace(TINY.task, cyclic=True)
    loss, _, started, data, _ = pieces(task=task)
    value, (_, metrics) = loss(started.trainable, started.state, 3, data)
    net = ours.make_net(TINY)
    episode = draw(data, 0, "train", 3, way=5, shot=2, n_query=3)
    z, _ = ours.embed_together(net, started.trainable, started.state, episode)
    values, accuracies = [], []
    for turn in range(5):
        examples = jnp.concatenate([z.support, z.query], axis=1)
        order = [(turn + i) % 5 for i in range(5)]
        support = jnp.stack([examples[:, i] for i in order[:2]], axis=1)
        query = jnp.stack([examples[:, i] for i in order[2:]], axis=1)
        logits = ours.prototype_logits(Episode(support, query, None), "sqeuclidean")
        values.append(episode_nll(logits))
        accuracies.append(
            np.mean(np.asarray(logits).argmax(-1) == np.arange(5)[:, None])
        )
    assert float(value) == pytest.approx(np.mean(values), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(accuracies), abs=1e-6)


def test_images_are_moved_by_the_number_of_their_episode(pieces, blobs):
    """The loss is that of the episode moved by hand, and each number moves its own."""
    config = _with(augment=Affine(rotate=20.0, shift=1.0))
    loss, _, started, data, _ = pieces(augment=config.augment)
    plain, *_ = pieces()
    net, values = ours.make_net(config), []
    for number in (3, 4):
        value, _ = loss(started.trainable, started.state, number, data)
        episode = draw(data, 0, "train", number, way=5, shot=2, n_query=3)
        moved = ours.moved(config, episode, jnp.asarray(number))
        z, _ = ours.embed_together(net, started.trainable, started.state, moved)
        expected = episode_nll(ours.prototype_logits(z, "sqeuclidean"))
        assert float(value) == pytest.approx(float(expected), rel=1e-4)
        still, _ = plain(started.trainable, started.state, number, data)
        assert abs(float(value) - float(still)) > 1e-3
        again = ours.moved(config, episode, jnp.asarray(7))
        values.append(float(jnp.abs(again.query - moved.query).max()))
    assert min(values) > 0.05


@pytest.mark.parametrize("devices", [1, 4])
def test_streamed_equals_resident(pieces, blobs, devices):
    pytest.importorskip("grain")
    _, step, started, data, mesh = pieces(devices, episodes_per_step=4)
    streamed = stream(
        blobs,
        TINY.seed,
        "train",
        **TINY.task.shape(),
        per_step=4,
        put=lambda batch: sharding.from_host(batch, mesh),
    )
    batches = streamed(0)
    call = steps.compile_step(step)
    ends = []
    for feed in (lambda: data, lambda: next(batches)):
        state = sharding.place(jax.tree.map(jnp.copy, started), mesh)
        for _ in range(3):
            state, metrics = call(state, feed())
        ends.append(jax.device_get((state, metrics)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *ends
    )
