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
    Treatment,
    begin,
    cached_prefix,
    check_layers,
    decouple,
    freeze_modes,
    freeze_rules,
    losses,
    merge,
    stages,
    steps,
    treatments,
)
from jaxfer.nets import chain, eight_layers, resnet20
from jaxfer.nets.layers import Classifier
from jaxfer.trees import flatten

PLAIN = eight_layers(5, width=4, dense=8)
NORMALIZED = eight_layers(5, width=4, dense=8, normalize=True)
RESIDUAL = resnet20(5, width=2)
NETS = [PLAIN, NORMALIZED, RESIDUAL]
IDS = ["plain", "normalized", "resnet20"]
SHAPE = (8, 8, 3)


class _Noise(nn.Module):
    @nn.compact
    def __call__(self, x, mode):
        return nn.Dropout(0.5, deterministic=not mode.dropout)(x)


@pytest.fixture(scope="module")
def two(drawn):
    """A network that has seen data, and one that has not."""

    @functools.cache
    def draw(net):
        params, state = drawn(net, SHAPE, 0)
        seen = jax.tree.map(lambda x: x + 0.5 + 0.1 * jnp.arange(x.size), state)
        return (params, seen), drawn(net, SHAPE, 1)

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
        (lambda: Treatment("CnB", 1), r"treatment 'CnB', needed one of \['base'"),
        (lambda: treatments(["AnB-freeze"], [1]), "treatment 'AnB-freeze', needed"),
        (lambda: Treatment("AnB+", 1, keep=1), r"AnB\+-keep1 has nothing frozen"),
        (lambda: Treatment("BnB+", 1, thaw=True), r"BnB\+-thaw has nothing frozen"),
        (lambda: Treatment("random", 1, keep=1), "random-keep1 has nothing copied"),
        (lambda: Treatment("AnB", 0), "found n = 0 and keep = 0 of AnB, needed n of"),
        (lambda: Treatment("AnB", -1), "found n = -1 and keep = 0 of AnB, needed n of"),
        (lambda: Treatment("base", 2), "found n = 2 and keep = 0 of base, needed n"),
    ],
)
def test_treatments_without_meaning_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("net", NETS, ids=IDS)
@pytest.mark.parametrize("kind", ["AnB", "AnB+", "BnB"])
def test_the_first_n_layers_are_copied_with_their_statistics(net, kind, two):
    (source, source_state), fresh = two(net)
    treatment = Treatment(kind, 3)
    params, state, report = begin(net, treatment, fresh, (source, source_state))
    for name in params:
        params_from = source if name in net.layers[:3] else fresh[0]
        state_from = source_state if name in net.layers[:3] else fresh[1]
        jax.tree.map(np.testing.assert_array_equal, params[name], params_from[name])
        jax.tree.map(np.testing.assert_array_equal, state[name], state_from[name])
    assert {path.split("/")[0] for path in report.taken} == {*net.layers[:3]}
    assert not set(report.taken) & set(report.kept)
    assert len(report.taken) + len(report.kept) == len(flatten(params))


def test_kept_layers_are_copied_too_and_train(two):
    source, fresh = two(PLAIN)
    params, _, report = begin(PLAIN, Treatment("AnB", 2, keep=2), fresh, source)
    assert "conv4/Conv_0/kernel" in report.taken and "conv5/Conv_0/bias" in report.kept
    assert stages(PLAIN, Treatment("AnB", 2, keep=2), 10) == [(10, ("conv1", "conv2"))]
    np.testing.assert_array_equal(
        params["conv4"]["Conv_0"]["kernel"], source[0]["conv4"]["Conv_0"]["kernel"]
    )


def test_the_control_copies_the_classifier_too(two):
    source, fresh = two(PLAIN)
    params, _, report = begin(PLAIN, Treatment("base+"), fresh, source)
    jax.tree.map(np.testing.assert_array_equal, params, source[0])
    assert report.kept == ()


def test_untrained_layers_are_those_that_were_drawn(two):
    source, fresh = two(PLAIN)
    params, _, report = begin(PLAIN, Treatment("random", 3), fresh, None)
    jax.tree.map(np.testing.assert_array_equal, params, fresh[0])
    assert report.taken == ()
    assert stages(PLAIN, Treatment("random", 1), 9) == [(9, ("conv1",))]


def test_an_n_outside_of_the_layers_is_refused():
    with pytest.raises(ValueError, match=r"n = 8 for AnB, needed at most the 7 layers"):
        check_layers(PLAIN, Treatment("AnB", 8))
    with pytest.raises(ValueError, match="n = 6 and 2 more for AnB-keep2, needed at"):
        check_layers(PLAIN, Treatment("AnB", 6, keep=2))


def test_a_source_that_does_not_match_is_refused_with_all_mismatches(two):
    _, fresh = two(PLAIN)
    other = eight_layers(5, width=6, dense=8, normalize=True)
    source, _ = two(other)
    with pytest.raises(ValueError) as e:
        begin(PLAIN, Treatment("AnB", 2), fresh, source)
    for part in (
        "conv1/Conv_0/bias: in the target, not in the source",
        "conv2/BatchNorm_0/scale: in the source, not in the target",
        "conv2/Conv_0/kernel: (3, 3, 6, 12) in the source, (3, 3, 4, 8) in the target",
    ):
        assert part in str(e.value)
    with pytest.raises(ValueError, match=r"AnB copies \['conv1'\], needed a source"):
        begin(PLAIN, Treatment("AnB", 1), fresh)


def _train(net, params, state, frozen, optimizer, *, count=12, dropout=True):
    """Some steps on noise, and the loss of each."""

    def loss(params, state, step, data):
        x, y = data
        modes = freeze_modes(net, params, frozen, dropout=dropout)
        key = jax.random.fold_in(jax.random.key(5), step)
        logits, state = net.apply(params, state, x, mode=modes, rng=key)
        return losses.softmax_cross_entropy(logits, y), (state, {})

    data = (
        jax.random.normal(jax.random.key(6), (12, *SHAPE)),
        jnp.arange(12, dtype=jnp.int32) % 5,
    )
    rules = freeze_rules(params, frozen)
    train_state = steps.init_train_state(params, state, optimizer, rules=rules)
    step = jax.jit(steps.make_train_step(loss, optimizer))
    for _ in range(count):
        train_state, metrics = step(train_state, data)
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
    (params, state), _ = two(net)
    frozen = net.layers[:3]
    after, metrics = _train(net, params, state, frozen, optimizer)
    for name in frozen:
        jax.tree.map(np.testing.assert_array_equal, after.frozen[name], params[name])
        jax.tree.map(np.testing.assert_array_equal, after.state[name], state[name])
    paths = jax.tree_util.tree_flatten_with_path(after.opt_state)[0]
    held = {jax.tree_util.keystr(path) for path, _ in paths}
    assert not [path for path in held for name in frozen if f"'{name}'" in path]
    moved = flatten(after.trainable)
    before = flatten(params)
    still = [path for path in moved if (moved[path] == before[path]).all()]
    assert not [path for path in still if path.endswith("kernel")]
    if net is not PLAIN:
        stored = flatten({n: after.state[n] for n in net.layers[3:]})
        assert all((stored[p] != flatten(state)[p]).any() for p in stored)


def test_the_gradients_norm_is_that_of_what_trains(two):
    """Pitfall 9: clipping must not see gradients of frozen layers."""
    (params, state), _ = two(PLAIN)
    frozen = PLAIN.layers[:5]
    _, metrics = _train(PLAIN, params, state, frozen, optax.sgd(0.1), count=1)
    x = jax.random.normal(jax.random.key(6), (12, *SHAPE))
    y = jnp.arange(12, dtype=jnp.int32) % 5

    def loss(params):
        key = jax.random.fold_in(jax.random.key(5), 0)
        logits, _ = PLAIN.apply(params, state, x, mode=TRAIN, rng=key)
        return losses.softmax_cross_entropy(logits, y)

    grads = flatten(jax.jit(jax.grad(loss))(params))
    squares = {path: float((g**2).sum()) for path, g in grads.items()}
    trained = sum(v for p, v in squares.items() if p.split("/")[0] not in frozen)
    assert float(metrics["grad_norm"]) == pytest.approx(trained**0.5, rel=1e-4)
    assert trained < 0.99 * sum(squares.values())


def test_flops_fall_as_n_grows_with_the_gradients_norm_on(drawn):
    net = eight_layers(5, width=8, dense=8)
    params, state = drawn(net, SHAPE)
    x, y = jnp.zeros((8, *SHAPE)), jnp.zeros(8, jnp.int32)
    optimizer = optax.sgd(0.1, 0.9)

    def flops(n):
        frozen = net.layers[:n]

        def loss(params, state, step, data):
            modes = freeze_modes(net, params, frozen)
            key = jax.random.key(0)
            logits, state = net.apply(params, state, x, mode=modes, rng=key)
            return losses.softmax_cross_entropy(logits, y), (state, {})

        rules = freeze_rules(params, frozen)
        begun = steps.init_train_state(params, state, optimizer, rules=rules)
        step = jax.jit(steps.make_train_step(loss, optimizer))
        return step.lower(begun, None).compile().cost_analysis()["flops"]

    counted = {n: flops(n) for n in (0, 1, 3, 5, 7)}
    assert [*counted.values()] == sorted(counted.values(), reverse=True)
    assert len(set(counted.values())) == 5
    assert counted[5] < 0.5 * counted[0], counted


def test_dropout_in_a_frozen_layer_follows_its_switch(two):
    (params, state), _ = two(PLAIN)
    x = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    for switch in (True, False):
        modes = freeze_modes(PLAIN, params, PLAIN.layers, dropout=switch)
        a, b = (
            jax.jit(
                lambda key, modes=modes: PLAIN.apply(
                    params, state, x, mode=modes, rng=key, last="fc7"
                )[0]
            )(jax.random.key(i))
            for i in (0, 1)
        )
        assert bool((a == b).all()) is not switch


def test_a_frozen_batch_norm_layer_runs_on_its_stored_statistics(two):
    (params, state), _ = two(NORMALIZED)
    x = 5 + jax.random.normal(jax.random.key(1), (4, *SHAPE))
    modes = freeze_modes(NORMALIZED, params, NORMALIZED.layers[:2])
    frozen, _ = NORMALIZED.apply(params, state, x, mode=modes, last="conv2")
    stored, _ = NORMALIZED.apply(params, state, x, last="conv2")
    np.testing.assert_array_equal(frozen, stored)


def test_thawing_goes_from_the_last_layer_to_the_first():
    plan = stages(PLAIN, Treatment("BnB", 3, thaw=True), 40)
    assert plan == [
        (10, ("conv1", "conv2", "conv3")),
        (20, ("conv1", "conv2")),
        (30, ("conv1",)),
        (40, ()),
    ]


@pytest.mark.parametrize(
    ("n", "dropout", "prefix"),
    [
        (1, True, ("conv1", "conv2")),
        (5, True, ("conv5", "fc6")),
        (7, True, ("conv5", "fc6")),
        (7, False, ("fc7", "fc8")),
    ],
)
def test_a_prefix_ends_before_the_first_layer_that_draws(n, dropout, prefix, two):
    (params, state), _ = two(PLAIN)
    frozen = PLAIN.layers[:n]
    modes = freeze_modes(PLAIN, params, frozen, dropout=dropout)
    assert cached_prefix(PLAIN, params, state, SHAPE, modes, frozen) == prefix


@pytest.mark.parametrize(
    ("n", "prefix"), [(1, ("conv1", "block1")), (10, ("block9", "fc"))]
)
def test_a_prefix_goes_by_the_order_of_layers_and_not_of_names(n, prefix, two):
    """Compiled functions give dictionaries back in the order of their keys."""
    (params, state), _ = two(RESIDUAL)
    frozen = RESIDUAL.layers[:n]
    modes = freeze_modes(RESIDUAL, params, frozen)
    found = cached_prefix(RESIDUAL, params, state, SHAPE, modes, frozen)
    assert found == prefix and list(params)[0] == "block1"


def test_prefixes_that_change_are_refused_and_it_is_said_why(two):
    (params, state), _ = two(NORMALIZED)
    frozen = NORMALIZED.layers[:3]
    modes = freeze_modes(NORMALIZED, params, frozen)
    arguments = (NORMALIZED, params, state, SHAPE)
    with pytest.raises(ValueError, match="cached of augmented images: found augment"):
        cached_prefix(*arguments, modes, frozen, augmented=True)
    batch = {**modes, "conv2": Mode("batch")}
    with pytest.raises(ValueError, match="through conv2, which runs on the stat"):
        cached_prefix(*arguments, batch, frozen)
    with pytest.raises(ValueError, match="nothing is frozen; needed a frozen layer"):
        cached_prefix(*arguments, modes, ())
    noisy = chain([("noise", _Noise()), ("same", _Noise())])
    with pytest.raises(ValueError, match="to cache: noise drops at random; needed a"):
        modes = freeze_modes(noisy, {}, ["noise"])
        begun = noisy.init(jax.random.key(0), SHAPE)
        cached_prefix(noisy, *begun, SHAPE, modes, ["noise"])


@pytest.mark.parametrize(
    ("net", "count"), [(PLAIN, 10), (NORMALIZED, 3)], ids=["plain", "normalized"]
)
def test_training_on_the_prefix_is_training_on_the_images(net, count, two):
    """Relative 1e-5 after SGD steps; few, as statistics of few examples add to it."""
    (params, state), _ = two(net)
    frozen = net.layers[:4]
    modes = freeze_modes(net, params, frozen)
    last, first = cached_prefix(net, params, state, SHAPE, modes, frozen)
    x = jax.random.normal(jax.random.key(6), (12, *SHAPE))
    y = jnp.arange(12, dtype=jnp.int32) % 5
    cached, _ = net.apply(params, state, x, last=last)
    optimizer = optax.sgd(0.01, 0.9)

    def run(x, first):
        def loss(params, state, step, data):
            key = jax.random.fold_in(jax.random.key(5), step)
            logits, state = net.apply(
                params, state, x, mode=modes, rng=key, first=first
            )
            return losses.softmax_cross_entropy(logits, y), (state, {})

        rules = freeze_rules(params, frozen)
        train_state = steps.init_train_state(params, state, optimizer, rules=rules)
        step = jax.jit(steps.make_train_step(loss, optimizer))
        for _ in range(count):
            train_state, _ = step(train_state, None)
        return merge(train_state.trainable, train_state.frozen)

    for one, other in zip(
        jax.tree.leaves(run(x, None)), jax.tree.leaves(run(cached, first)), strict=True
    ):
        scale = float(jnp.abs(one).max()) + 1e-12
        assert float(jnp.abs(one - other).max()) <= 1e-5 * scale


def test_a_layer_without_parameters_can_be_frozen(drawn):
    net = chain([("noise", _Noise()), ("fc", Classifier(3))], classifier=True)
    params, state = drawn(net, SHAPE)
    after, _ = _train(net, params, state, ["noise"], MOMENTUM, count=2)
    assert not after.frozen and list(after.trainable) == ["fc"]


def test_the_losses_of_transfer_add_up_and_the_larger_one_is_named():
    base, bnb, anb = [60.0, 62.0, 61.0], [59.0, 61.2, 60.1], [55.0, 56.9, 56.2]
    lost = decouple(base, bnb, anb)
    both = lost.co_adaptation.mean + lost.specificity.mean
    assert both == pytest.approx(np.mean(base) - np.mean(anb))
    assert lost.excess.mean == pytest.approx(
        lost.specificity.mean - lost.co_adaptation.mean
    )
    assert lost.dominant == "specificity"
    assert decouple(base, anb, anb).dominant == "co_adaptation"
    assert decouple(base, base, base).dominant is None
    assert decouple(base[:1], bnb[:1], anb[:1]).dominant is None
