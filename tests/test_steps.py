from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxfer import (
    TRAIN,
    Episode,
    TrainState,
    freeze_modes,
    linear_head,
    models,
    sharding,
    softmax_cross_entropy,
    steps,
)
from jaxfer.data import Crop
from jaxfer.nets import AlexNetSmall, Flatten, chain
from jaxfer.optim import Optim

PARAMS = {"a": {"w": jnp.array([1.0, 2.0])}, "b": {"w": jnp.array([3.0])}}
FREEZE_A = [("a", False), ("**", True)]


def _loss(params, state, step, data):
    """A parabola around the data, whose minimum moves with the step."""
    value = sum(((p["w"] - data - step) ** 2).sum() for p in params.values())
    return value, ({"calls": state["calls"] + 1}, {"sum": params["a"]["w"].sum()})


def _start(optimizer, rules=steps.ALL_TRAIN):
    params = jax.tree.map(jnp.copy, PARAMS)
    return steps.init_train_state(
        params, {"calls": jnp.zeros(())}, optimizer, rules=rules
    )


def test_a_step_is_one_of_gradient_descent():
    optimizer = optax.sgd(0.1)
    step = steps.make_train_step(_loss, optimizer)
    after, metrics = step(_start(optimizer), jnp.asarray(0.5))
    # d/dw (w - .5)^2 = 2 (w - .5)
    np.testing.assert_allclose(after.trainable["a"]["w"], [0.9, 1.7], rtol=1e-6)
    np.testing.assert_allclose(after.trainable["b"]["w"], [2.5], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 0.25 + 2.25 + 6.25)
    assert (int(after.step), float(after.state["calls"])) == (1, 1.0)


def test_the_loss_is_told_the_number_of_the_step():
    optimizer = optax.sgd(0.0)
    step = jax.jit(steps.make_train_step(_loss, optimizer))
    state, seen = _start(optimizer), []
    for _ in range(3):
        state, metrics = step(state, jnp.asarray(0.0))
        seen.append(float(metrics["loss"]))
    np.testing.assert_allclose(seen, [14, 0 + 1 + 4, 1 + 0 + 1], rtol=1e-6)


def test_frozen_is_absent_from_gradient_optimizer_and_change():
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    state = _start(optimizer, FREEZE_A)
    sizes = {x.size for x in jax.tree.leaves(state.opt_state) if x.ndim}
    assert sizes == {1}, "only b has moments"
    step = jax.jit(steps.make_train_step(_loss, optimizer))
    for _ in range(5):
        state, _ = step(state, jnp.asarray(0.5))
    np.testing.assert_array_equal(state.frozen["a"]["w"], PARAMS["a"]["w"])
    assert state.trainable["b"]["w"][0] != 3.0


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_steps_of_one_call_are_steps_of_many(monkeypatch, backend, count):
    """Unrolled as on CPU, and in the scan that accelerators get."""
    optimizer = optax.adam(0.1)
    step = steps.make_train_step(_loss, optimizer)
    one, losses = _start(optimizer), []
    for _ in range(6):
        one, metrics = jax.jit(step)(one, jnp.asarray(0.5))
        losses.append(metrics["loss"])
    many, stacked = _start(optimizer), []
    call = steps.compile_step(step)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: backend)
        assert ("scan" in str(call.trace(many, 0.5, count=count).jaxpr)) == (
            backend == "gpu"
        )
        for _ in range(6 // count):
            many, metrics = call(many, jnp.asarray(0.5), count=count)
            assert metrics["loss"].shape == (count,)
            stacked.extend(metrics["loss"])
    np.testing.assert_allclose(losses, stacked, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, many)


def test_the_norm_of_the_gradient_is_a_metric():
    optimizer = optax.sgd(0.1)
    _, metrics = steps.make_train_step(_loss, optimizer)(
        _start(optimizer, FREEZE_A), jnp.asarray(0.5)
    )
    # Only what trains counts: d/db (b - .5)^2 at b = 3.
    assert metrics["grad_norm"] == pytest.approx(5.0)


def test_layers_without_parameters_survive_partition_and_merge(key):
    class Relu(nn.Module):
        @nn.compact
        def __call__(self, x, mode):
            return nn.relu(x)

    class Dense(nn.Module):
        @nn.compact
        def __call__(self, x, mode):
            return nn.Dense(2)(x)

    net = chain([("a", Dense()), ("relu", Relu()), ("b", Dense())])
    params, state = net.init(key, (1, 1, 3))
    optimizer = optax.sgd(0.1)

    def loss(params, state, step, data):
        y, state = net.apply(params, state, data, mode=TRAIN)
        return (y**2).sum(), (state, {})

    started = steps.init_train_state(params, state, optimizer, rules=FREEZE_A)
    step = jax.jit(steps.make_train_step(loss, optimizer))
    x = jax.random.normal(key, (4, 1, 1, 3))
    after, first = step(started, x)
    assert step(after, x)[1]["loss"] < first["loss"]


def _mean_square(params, state, number, data):
    """The mean over one micro-batch of `data` `[pieces, size]`, by its number."""
    piece = data[number % data.shape[0]]
    value = ((params["a"]["w"].sum() * piece - params["b"]["w"]) ** 2).mean()
    return value, ({"calls": state["calls"] + 1}, {"first": piece[0]})


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_gradients_of_micro_batches_are_averaged(pieces, rng):
    optimizer = optax.sgd(0.01, 0.9)
    data = jnp.asarray(rng.normal(size=12), jnp.float32)
    whole, parts = _start(optimizer, FREEZE_A), _start(optimizer, FREEZE_A)
    at_once = steps.make_train_step(_mean_square, optimizer)
    in_parts = steps.make_train_step(_mean_square, optimizer, accumulate=pieces)
    for _ in range(3):
        whole, one = at_once(whole, data.reshape(1, 12))
        parts, other = in_parts(parts, data.reshape(pieces, -1))
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
    np.testing.assert_allclose(
        whole.trainable["b"]["w"], parts.trainable["b"]["w"], rtol=1e-5
    )
    assert int(parts.step) == 3, "a step is one update, whatever its micro-batches"
    # Each micro-batch starts from the statistics that the one before it left.
    assert (float(whole.state["calls"]), float(parts.state["calls"])) == (3, 3 * pieces)
    np.testing.assert_allclose(other["first"], data.reshape(pieces, -1)[:, 0].mean())


def test_micro_batches_train_as_one_batch_does_without_batch_norm(key, blobs):
    """Through a whole training: the same examples, head and schedule."""
    few = blobs.take_classes(blobs.class_names[:4], name="few")
    net = Flatten(dim=8)
    head = linear_head(key, 8, 4)
    recipe = models.Recipe(
        Optim("sgd", 0.05, "cosine"), steps=3, batch=12, augment=Crop()
    )
    found = [
        models.train_batches(
            net, few, replace(recipe, accumulate=k), key=key, head=head
        ).model
        for k in (1, 3)
    ]
    trees = [(model.params, model.head.weight, model.head.bias) for model in found]
    _close(*trees)
    before = models.init_model(net, few.images.shape[1:], key)
    moved = found[0].params["embedding"]["Dense_0"]["kernel"]
    assert (moved != before.params["embedding"]["Dense_0"]["kernel"]).any()


def test_episode_eval_scores_each_number():
    # Episode k has logits that are right for its first k classes.
    def draw(data, k):
        rows = jnp.zeros((4, 1), jnp.int32)
        return Episode(rows, rows, jnp.full((4,), k, jnp.int32))

    def classify(episode):
        right = jnp.arange(4) < episode.classes[0]
        return jnp.where(right[:, None], 1.0, -1.0)[:, :, None] * jnp.eye(4)[:, None, :]

    measure = steps.make_episode_eval(draw, classify)
    values = measure(None, np.arange(5, dtype=np.uint32))
    np.testing.assert_allclose(values["accuracy"], np.arange(5) / 4)
    # A row of logits is (1, 0, 0, 0) where right and (-1, 0, 0, 0) where not.
    right, wrong = np.log(1 + 3 / np.e), np.log(1 + 3 * np.e)
    expected = [(k * right + (4 - k) * wrong) / 4 for k in range(5)]
    np.testing.assert_allclose(values["loss"], expected, rtol=1e-6)


@pytest.mark.parametrize(("episodes", "block"), [(7, 3), (6, 3), (2, 100), (1, 1)])
@pytest.mark.parametrize("first", [0, 20])
def test_episodes_are_evaluated_each_once_whatever_the_block(episodes, block, first):
    sizes = set()

    def measure(data, numbers):
        sizes.add(len(numbers))
        return {"accuracy": data[numbers]}

    data = jnp.linspace(0, 1, 200)
    values = steps.evaluate_episodes(
        measure, data, episodes=episodes, first=first, block=block
    )
    np.testing.assert_array_equal(values["accuracy"], data[first : first + episodes])
    assert len(sizes) == 1


def test_what_trains_on_keeps_its_moments_and_what_begins_has_fresh_ones():
    optimizer = optax.adam(optax.schedules.linear_schedule(0.1, 0.0, 10))
    step = jax.jit(steps.make_train_step(_loss, optimizer))
    state = _start(optimizer, FREEZE_A)
    for _ in range(3):
        state, _ = step(state, jnp.asarray(0.5))
    thawed = steps.repartition(state, optimizer, steps.ALL_TRAIN)
    before, after = (
        {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        for leaves, _ in map(
            jax.tree_util.tree_flatten_with_path, (state.opt_state, thawed.opt_state)
        )
    )
    assert int(thawed.step) == 3 and not thawed.frozen
    assert len(after) == len(before) + 2
    for path, leaf in after.items():
        expected = before.get(path, jnp.zeros_like(leaf))
        np.testing.assert_array_equal(leaf, expected, path)
    assert any(int(leaf) == 3 for path, leaf in after.items() if "count" in path)
    moved, _ = step(thawed, jnp.asarray(0.5))
    assert (moved.trainable["a"]["w"] != PARAMS["a"]["w"]).all()
    again = steps.repartition(moved, optimizer, FREEZE_A)
    np.testing.assert_array_equal(again.frozen["a"]["w"], moved.trainable["a"]["w"])


NET = AlexNetSmall(width=2, dense=4).build()


def _population(size, drawn):
    """Small networks with frozen layers, each with data of its own."""
    # Not Adam, which makes a step of the sign of what is zero but for rounding.
    optimizer = optax.sgd(0.05, 0.9)

    def loss(params, state, step, data):
        shared, (x, key) = data
        key = jax.random.fold_in(key, step)
        modes = freeze_modes(NET, ["conv1"])
        logits, state = NET.apply(params, state, x + shared, mode=modes, rng=key)
        labels = jnp.arange(4, dtype=jnp.int32) % 3
        return softmax_cross_entropy(logits, labels), (state, {})

    rules = [("conv1", False), ("**", True)]
    begun = [
        steps.init_train_state(*drawn(NET, (8, 8, 1), i), optimizer, rules=rules)
        for i in range(size)
    ]
    own = (
        jax.random.normal(jax.random.key(99), (size, 4, 8, 8, 1)),
        jax.random.split(jax.random.key(98), size),
    )
    together = steps.stack_population(begun)
    return steps.make_train_step(loss, optimizer), begun, together, (jnp.ones(()), own)


def _close(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), one, other
    )


@pytest.mark.parametrize("unrolled", [True, False], ids=["in turn", "vmap"])
def test_a_population_is_its_members_one_by_one(unrolled, drawn):
    step, begun, together, (shared, own) = _population(2, drawn)
    population = jax.jit(steps.make_population_step(step, unrolled=unrolled))
    for _ in range(2):
        together, metrics = population(together, (shared, own))
    assert metrics["loss"].shape == (2,) and int(together.step) == 2
    for i, state in enumerate(begun):
        mine = jax.tree.map(lambda x, i=i: x[i], own)
        for _ in range(2):
            state, alone = jax.jit(step)(state, (shared, mine))
        at = jax.tree.map(lambda x, i=i: x[i], tuple(together[1:]))
        _close(at, tuple(state[1:]))
        np.testing.assert_allclose(metrics["loss"][i], alone["loss"], rtol=1e-4)
        np.testing.assert_array_equal(
            at[1]["conv1"]["Conv_0"]["kernel"],
            begun[i].frozen["conv1"]["Conv_0"]["kernel"],
        )


@pytest.mark.parametrize(
    ("unrolled", "devices"),
    [(True, 2), pytest.param(False, 8, marks=pytest.mark.slow)],
    ids=["in turn", "vmap"],
)
def test_a_population_over_devices_has_nothing_to_say(
    unrolled, devices, collectives, drawn
):
    """No collective in the compiled step, and the members of one device."""
    step, _, together, data = _population(devices, drawn)
    mesh = sharding.make_mesh(devices)
    single = jax.jit(steps.make_population_step(step, unrolled=unrolled))
    spread = jax.jit(steps.make_population_step(step, mesh=mesh, unrolled=unrolled))
    number, rest = together[0], tuple(together[1:])
    placed = TrainState(sharding.place(number, mesh), *sharding.place_batch(rest, mesh))
    own = sharding.place_batch(data[1], mesh)
    shared = sharding.place(data[0], mesh)
    compiled = spread.lower(placed, (shared, own)).compile()
    assert not collectives(compiled)
    gathered = jax.jit(lambda x: x.sum(0)[None] + x)
    assert collectives(gathered.lower(own[0]).compile()), "it would be found"
    after, metrics = compiled(placed, (shared, own))
    expected, alone = single(together, data)
    _close(after, expected)
    np.testing.assert_allclose(metrics["loss"], alone["loss"], rtol=1e-4)
    kernel = after.trainable["fc6"]["Dense_0"]["kernel"]
    assert len(kernel.addressable_shards) == devices
    assert kernel.addressable_shards[0].data.shape[0] == 1
