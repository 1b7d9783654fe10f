import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxfer import (
    TRAIN,
    Mode,
    Model,
    Treatment,
    cached_prefix,
    freeze_modes,
    freeze_rules,
    init_transfer,
    linear_head,
    losses,
    merge,
    models,
    partition,
    stages,
    steps,
    treatments,
)
from jaxfer.data import Crop
from jaxfer.nets import AlexNetSmall, Conv4, ResNet20, chain
from jaxfer.transfer import ALL_CACHED, Stage, copied_layers
from jaxfer.trees import flatten

PLAIN = AlexNetSmall(width=4, dense=8).build()
NORMALIZED = AlexNetSmall(width=4, dense=8, normalize=True).build()
RESIDUAL = ResNet20(width=2).build()
NETS = [PLAIN, NORMALIZED, RESIDUAL]
IDS = ["plain", "normalized", "resnet20"]
SHAPE = (8, 8, 3)
CLASSES = 5


class _Noise(nn.Module):
    @nn.compact
    def __call__(self, x, mode):
        return nn.Dropout(0.5, deterministic=not mode.dropout)(x)


@pytest.fixture(scope="module")
def two(drawn):
    """A model that has seen data, and one that has not."""

    @functools.cache
    def draw(net):
        params, state = drawn(net, SHAPE, 0)
        seen = jax.tree.map(lambda x: x + 0.5 + 0.1 * jnp.arange(x.size), state)
        dim = models.embedding_dim(net, SHAPE)
        pixels = models.Pixels(np.float32(100), np.float32(50))
        old, new = (linear_head(jax.random.key(i), dim, CLASSES) for i in (0, 1))
        return (
            Model(net, params, seen, old, pixels, ("a",) * CLASSES),
            Model(net, *drawn(net, SHAPE, 1), new),
        )

    return draw


def test_treatments_are_read_by_name_and_name_themselves():
    asked = ["base", "base+", "base3", "BnB", "AnB+", "random", "AnB-keep2", "BnB-thaw"]
    found = treatments(asked, [2])
    assert [t.name for t in found] == asked
    assert [t.n for t in found] == [0, 0, 0, 2, 2, 2, 2, 2]
    assert [t.source for t in found] == [
        *("none", "self", "none", "self", "other", "none", "other", "self")
    ]
    frozen = [t.name for t in found if t.frozen]
    assert frozen == ["BnB", "random", "AnB-keep2", "BnB-thaw"]
    assert [t.length for t in found if t.length != 1] == [3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Treatment("CnB", 1), r"a treatment among \['base'.*, got 'CnB'"),
        (
            lambda: treatments(["AnB-freeze"], [1]),
            "expected a treatment .*, got 'AnB-freeze'",
        ),
        (lambda: Treatment("AnB+", 1, 1), r"AnB\+-keep1, which is not frozen"),
        (
            lambda: Treatment("BnB+", 1, gradual_unfreezing=True),
            r"BnB\+-thaw, which is not frozen",
        ),
        (lambda: Treatment("random", 1, 1), "random-keep1, which copies nothing"),
        (lambda: Treatment("AnB", 0), "n of at least 1 for AnB and .*, got n = 0 and"),
        (lambda: Treatment("AnB", -1), "n of at least 1 for AnB and .*, got n = -1"),
        (lambda: Treatment("base", 2), "expected n of 0 for base and .*, got n = 2"),
    ],
)
def test_treatments_without_meaning_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("net", NETS, ids=IDS)
@pytest.mark.parametrize("kind", ["AnB", "AnB+", "BnB"])
def test_the_first_n_layers_are_copied_with_their_statistics(net, kind, two):
    source, fresh = two(net)
    model, report = init_transfer(Treatment(kind, 3), fresh, source)
    for name in net.layers:
        origin = source if name in net.layers[:3] else fresh
        for part in ("params", "state"):
            one, other = (getattr(m, part)[name] for m in (model, origin))
            jax.tree.map(np.testing.assert_array_equal, one, other)
    assert {path.split("/")[0] for path in report.taken} == {*net.layers[:3]}
    assert not set(report.taken) & set(report.kept)
    assert len(report.taken) + len(report.kept) == len(flatten(model.params))


def test_a_transfer_keeps_its_own_head_and_takes_the_sources_pixels(two):
    source, fresh = two(PLAIN)
    model, _ = init_transfer(Treatment("AnB", 1), fresh, source)
    assert model.head is fresh.head and model.class_names == fresh.class_names
    assert model.pixels is source.pixels


def test_layers_copied_beyond_the_frozen_ones_train(two):
    source, fresh = two(PLAIN)
    treatment = Treatment("AnB", 2, extra_copied=2)
    model, report = init_transfer(treatment, fresh, source)
    assert copied_layers(PLAIN, treatment) == ("conv1", "conv2", "conv3", "conv4")
    assert "conv4/Conv_0/kernel" in report.taken and "conv5/Conv_0/bias" in report.kept
    assert stages(PLAIN, treatment, 10) == (Stage(("conv1", "conv2")),)
    np.testing.assert_array_equal(
        model.params["conv4"]["Conv_0"]["kernel"],
        source.params["conv4"]["Conv_0"]["kernel"],
    )


def test_the_control_copies_the_head_too(two):
    source, fresh = two(PLAIN)
    model, report = init_transfer(Treatment("base+"), fresh, source)
    jax.tree.map(np.testing.assert_array_equal, model.params, source.params)
    assert report.kept == () and model.head is source.head


def test_untrained_layers_are_those_that_were_drawn(two):
    _, fresh = two(PLAIN)
    model, report = init_transfer(Treatment("random", 3), fresh)
    jax.tree.map(np.testing.assert_array_equal, model.params, fresh.params)
    assert report.taken == ()
    assert stages(PLAIN, Treatment("random", 1), 9) == (Stage(("conv1",)),)


def test_an_n_outside_of_the_layers_is_refused():
    with pytest.raises(ValueError, match=r"at most the 7 layers .*, got 8 for AnB"):
        copied_layers(PLAIN, Treatment("AnB", 8))
    with pytest.raises(ValueError, match="got 8 for AnB-keep2"):
        copied_layers(PLAIN, Treatment("AnB", 6, extra_copied=2))
    with pytest.raises(ValueError, match="got 8 for random"):
        copied_layers(PLAIN, Treatment("random", 8))


def test_a_source_that_does_not_match_is_refused_with_all_mismatches(two):
    _, fresh = two(PLAIN)
    other = AlexNetSmall(width=6, dense=8, normalize=True).build()
    source, _ = two(other)
    with pytest.raises(ValueError) as e:
        init_transfer(Treatment("AnB", 2), fresh, source)
    for part in (
        "conv1/Conv_0/bias: in the target, not in the source",
        "conv2/BatchNorm_0/scale: in the source, not in the target",
        "conv2/Conv_0/kernel: (3, 3, 6, 12) in the source, (3, 3, 4, 8) in the target",
    ):
        assert part in str(e.value)
    with pytest.raises(ValueError, match="expected a source for AnB, which copies"):
        init_transfer(Treatment("AnB", 1), fresh)


def _start(model, optimizer, frozen):
    """The state that a training of the net with its head begins with."""
    head = {"weight": model.head.weight, "bias": model.head.bias}
    return steps.init_train_state(
        {"net": model.params, "head": head},
        model.state,
        optimizer,
        rules=freeze_rules(model.net, model.params, frozen),
    )


def _loss(model, frozen, *, dropout=True, first=None):
    """The loss of a training on (images or activations, labels)."""
    modes = freeze_modes(model.net, frozen, dropout=dropout)

    def loss(params, state, step, data):
        x, y = data
        key = jax.random.fold_in(jax.random.key(5), step)
        net = params.get("net", {})
        z, state = model.net.apply(net, state, x, mode=modes, rng=key, first=first)
        head = params["head"]
        logits = z.reshape(len(z), -1) @ head["weight"].T + head["bias"][None]
        return losses.softmax_cross_entropy(logits, y), (state, {})

    return loss


def _data():
    x = jax.random.normal(jax.random.key(6), (12, *SHAPE))
    return x, jnp.arange(12, dtype=jnp.int32) % CLASSES


def _train(model, frozen, optimizer, *, count=12):
    """Some steps on noise, and the metrics of the last."""
    train_state = _start(model, optimizer, frozen)
    step = jax.jit(steps.make_train_step(_loss(model, frozen), optimizer))
    for _ in range(count):
        train_state, metrics = step(train_state, _data())
    return train_state, metrics


CLIPPED_ADAMW = optax.chain(
    optax.clip_by_global_norm(0.5), optax.adamw(0.05, weight_decay=0.3)
)
MOMENTUM = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05, 0.9))


@pytest.mark.parametrize(
    ("net", "optimizer"),
    [
        (PLAIN, CLIPPED_ADAMW),
        (NORMALIZED, CLIPPED_ADAMW),
        (NORMALIZED, MOMENTUM),
        (RESIDUAL, CLIPPED_ADAMW),
    ],
    ids=["plain adamw", "normalized adamw", "normalized sgd", "resnet20 adamw"],
)
def test_frozen_layers_do_not_move_by_a_bit(net, optimizer, two):
    """Pitfall 9: decoupled decay, momentum, clipping, BatchNorm statistics."""
    model, _ = two(net)
    frozen = net.layers[:3]
    after, metrics = _train(model, frozen, optimizer)
    for name in frozen:
        for now, before in (
            (after.frozen["net"], model.params),
            (after.state, model.state),
        ):
            jax.tree.map(np.testing.assert_array_equal, now[name], before[name])
    paths = jax.tree_util.tree_flatten_with_path(after.opt_state)[0]
    held = {jax.tree_util.keystr(path) for path, _ in paths}
    assert not [path for path in held for name in frozen if f"'{name}'" in path]
    moved, before = flatten(after.trainable["net"]), flatten(model.params)
    still = [path for path in moved if (moved[path] == before[path]).all()]
    assert not [path for path in still if path.endswith("kernel")]
    if net is not PLAIN:
        stored = flatten({n: after.state[n] for n in net.layers[3:]})
        assert all((stored[p] != flatten(model.state)[p]).any() for p in stored)


def test_the_gradients_norm_is_that_of_what_trains(two):
    """Pitfall 9: clipping must not see gradients of frozen layers."""
    model, _ = two(PLAIN)
    frozen = PLAIN.layers[:5]
    _, metrics = _train(model, frozen, optax.sgd(0.1), count=1)
    begun, loss = _start(model, optax.sgd(0.1), frozen), _loss(model, ())

    def value(params):
        return loss(params, model.state, 0, _data())[0]

    params = merge(begun.trainable, begun.frozen)
    grads = flatten(jax.jit(jax.grad(value))(params))
    squares = {path: float((g**2).sum()) for path, g in grads.items()}
    trained = sum(
        square
        for path, square in squares.items()
        if not path.startswith(tuple(f"net/{name}/" for name in frozen))
    )
    assert float(metrics["grad_norm"]) == pytest.approx(trained**0.5, rel=1e-4)
    assert trained < 0.99 * sum(squares.values())


def test_flops_fall_as_n_grows_with_the_gradients_norm_on(drawn):
    net = AlexNetSmall(width=8, dense=8).build()
    model = Model(net, *drawn(net, SHAPE), linear_head(jax.random.key(0), 8, CLASSES))
    optimizer = optax.sgd(0.1, 0.9)

    def flops(n):
        frozen = net.layers[:n]
        step = jax.jit(steps.make_train_step(_loss(model, frozen), optimizer))
        lowered = step.lower(_start(model, optimizer, frozen), _data())
        return lowered.compile().cost_analysis()["flops"]

    counted = {n: flops(n) for n in (0, 1, 3, 5, 7)}
    assert [*counted.values()] == sorted(counted.values(), reverse=True)
    assert len(set(counted.values())) == 5
    assert counted[5] < 0.5 * counted[0], counted


def test_dropout_in_a_frozen_layer_follows_its_switch(two):
    model, _ = two(PLAIN)
    x = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    for switch in (True, False):
        modes = freeze_modes(PLAIN, PLAIN.layers, dropout=switch)
        run = jax.jit(functools.partial(PLAIN.apply, mode=modes))
        a, b = (
            run(model.params, model.state, x, rng=jax.random.key(i))[0] for i in (0, 1)
        )
        assert bool((a == b).all()) is not switch


def test_a_frozen_batch_norm_layer_runs_on_its_stored_statistics(two):
    model, _ = two(NORMALIZED)
    x = 5 + jax.random.normal(jax.random.key(1), (4, *SHAPE))
    modes = freeze_modes(NORMALIZED, NORMALIZED.layers[:2])
    assert modes["conv2"] == Mode(dropout=True) and modes["conv3"] == TRAIN
    given = model.params, model.state, x
    frozen, _ = NORMALIZED.apply(*given, mode=modes, last="conv2")
    stored, _ = NORMALIZED.apply(*given, last="conv2")
    np.testing.assert_array_equal(frozen, stored)


def test_unfreezing_goes_from_the_last_layer_to_the_first():
    plan = stages(PLAIN, Treatment("BnB", 3, gradual_unfreezing=True), 40)
    assert plan == (
        Stage(("conv1", "conv2", "conv3"), 10),
        Stage(("conv1", "conv2"), 20),
        Stage(("conv1",), 30),
        Stage((), 40),
    )


@pytest.mark.parametrize(
    ("n", "dropout", "prefix"),
    [
        (1, True, ("conv1", "conv2")),
        (5, True, ("conv5", "fc6")),
        (7, True, ("conv5", "fc6")),
        (7, False, ("fc7", ALL_CACHED)),
    ],
)
def test_a_prefix_ends_before_the_first_layer_that_draws(n, dropout, prefix):
    assert cached_prefix(PLAIN, PLAIN.layers[:n], dropout=dropout) == prefix


@pytest.mark.parametrize(
    ("n", "prefix"), [(1, ("conv1", "block1")), (10, ("block9", ALL_CACHED))]
)
def test_a_prefix_goes_by_the_order_of_layers_and_not_of_names(n, prefix):
    assert cached_prefix(RESIDUAL, RESIDUAL.layers[:n]) == prefix


def test_a_prefix_has_no_gaps():
    assert cached_prefix(PLAIN, ("conv1", "conv3")) == ("conv1", "conv2")


def test_prefixes_that_change_are_refused_and_it_is_said_why():
    frozen = NORMALIZED.layers[:3]
    with pytest.raises(ValueError, match="augmented images: disable augmentation"):
        cached_prefix(NORMALIZED, frozen, augmented=True)
    for not_first in ((), ("conv2",)):
        with pytest.raises(ValueError, match="the first layer, .*'conv1'.* is not fr"):
            cached_prefix(NORMALIZED, not_first)
    noisy = chain([("noise", _Noise()), ("same", _Noise())], stochastic=["noise"])
    with pytest.raises(ValueError, match="'noise'.* has dropout"):
        cached_prefix(noisy, ["noise"])
    assert cached_prefix(noisy, ["noise"], dropout=False) == ("noise", "same")


@pytest.mark.parametrize(
    ("net", "count"), [(PLAIN, 10), (NORMALIZED, 3)], ids=["plain", "normalized"]
)
def test_training_on_the_prefix_is_training_on_the_images(net, count, two):
    """Relative 1e-5 after SGD steps; few, as statistics of few examples add to it."""
    model, _ = two(net)
    frozen, optimizer = net.layers[:4], optax.sgd(0.01, 0.9)
    prefix = cached_prefix(net, frozen)
    x, y = _data()
    cached, _ = net.apply(model.params, model.state, x, last=prefix.last)

    def run(x, first):
        train_state = _start(model, optimizer, frozen)
        loss = _loss(model, frozen, first=first)
        step = jax.jit(steps.make_train_step(loss, optimizer))
        for _ in range(count):
            train_state, _ = step(train_state, (x, y))
        return merge(train_state.trainable, train_state.frozen)

    for one, other in zip(
        jax.tree.leaves(run(x, None)),
        jax.tree.leaves(run(cached, prefix.first)),
        strict=True,
    ):
        scale = float(jnp.abs(one).max()) + 1e-12
        assert float(jnp.abs(one - other).max()) <= 1e-5 * scale


def test_a_layer_without_parameters_can_be_frozen(drawn):
    net = chain([("noise", _Noise())], stochastic=["noise"])
    model = Model(net, *drawn(net, SHAPE), linear_head(jax.random.key(0), 192, CLASSES))
    after, _ = _train(model, ["noise"], MOMENTUM, count=2)
    assert set(flatten(after.trainable)) == {"net/noise", "head/bias", "head/weight"}
    assert not jax.tree.leaves(after.trainable["net"])
    assert (after.trainable["head"]["weight"] != model.head.weight).any()


def test_a_module_that_runs_as_a_whole_trains_without_a_cache(key, blobs, capsys):
    """Its frozen layers cannot be run apart, so no activations are cached."""

    class Whole(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(4, name="low")(x.reshape(x.shape[0], -1)))
            return nn.Dense(4, name="high")(x)

    few = blobs.take_classes(blobs.class_names[:2], name="few")
    model = models.init_model(Whole(), few.images.shape[1:], key)
    recipe = models.Recipe(steps=2, batch=8, augment=Crop(), frozen_dropout=False)
    examples = models.Examples(
        np.arange(24), few.labels, models.Pixels(), key, few.class_names
    )
    (trained,) = models.train_population(
        Whole(),
        few,
        [examples],
        recipe,
        heads=[linear_head(key, 4, 2)],
        starts=[model],
        stages=(Stage(("low",)),),
        cache=True,
    )
    assert "a plain Linen module runs as a whole" in capsys.readouterr().out
    one, other = trained.model.params, model.params
    jax.tree.map(np.testing.assert_array_equal, one["low"], other["low"])
    assert (one["high"]["kernel"] != other["high"]["kernel"]).any()


def test_rules_freeze_layers_that_are_there():
    blocks = [("conv", nn.Dense(1)), ("pool", _Noise()), ("fc", nn.Dense(1))]
    net = chain(blocks)
    params = {"conv": {"w": 0}, "pool": {}, "fc": {"w": 1}}
    for frozen in ([], ["conv"], ["pool"], ["conv", "pool"], ["conv", "pool", "fc"]):
        rules = freeze_rules(net, params, frozen)
        trainable, still = partition({"net": params, "head": {"w": 2}}, rules)
        known = {name for name in frozen if params[name]}
        assert {n for n, p in still.get("net", {}).items() if p} == known
        assert "head" in trainable
    with pytest.raises(ValueError, match=r"among \['conv', 'pool', 'fc'\], got \['no"):
        freeze_rules(net, params, ["conv", "nosuch"])
    with pytest.raises(ValueError, match="list of layers, got the string 'conv'"):
        freeze_rules(net, params, "conv")


def test_a_layer_of_the_net_may_lack_in_the_parameters():
    params = {"conv1": {"w": 0}}
    rules = freeze_rules(Conv4().build(), params, ["conv1", "conv2"])
    _, frozen = partition({"net": params, "head": {"w": 1}}, rules)
    assert frozen == {"net": params}
    with pytest.raises(ValueError, match=r"'conv4'\], got \['conv5'\]"):
        freeze_rules(Conv4().build(), params, ["conv5"])
