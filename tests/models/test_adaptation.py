"""MAML against NumPy, finite differences and loops, and trained on episodes."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxfer import methods
from jaxfer.data import Images, resident
from jaxfer.losses import episode_nll
from jaxfer.models import (
    EpisodeShape,
    Options,
    Recipe,
    adapted_logits,
    embed_classes,
    measure_episodes,
    train_episodes,
)
from jaxfer.nets import Conv4, Flatten
from jaxfer.optim import Optim
from jaxfer.types import EVAL, TRAIN, Episode, Mode

WAY, SHOT, QUERY = 3, 2, 4
MAML = methods.maml(3, 0.2)


def episode(item, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    support = rng.normal(size=(WAY, SHOT, *item)).astype(dtype)
    query = rng.normal(size=(WAY, QUERY, *item)).astype(dtype)
    return Episode(support, query, np.arange(WAY))


def start(net, item, method=MAML):
    params, state = net.init(jax.random.key(0), item)
    return {**params, "method": method.init(jax.random.key(1), 1)}, state


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_a_linear_network_is_adapted_as_by_hand():
    """The gradients of a linear layer and a linear head, in NumPy."""
    net, one = Flatten(dim=4).build(), episode((2, 2, 1))
    params, state = start(net, (2, 2, 1))
    layer = params["embedding"]["Dense_0"]
    a, b = np.asarray(layer["kernel"], float), np.asarray(layer["bias"], float)
    w, c = np.zeros((4, WAY)), np.zeros(WAY)
    x, q = (np.reshape(part, (-1, 4)).astype(float) for part in one[:2])
    y = np.eye(WAY)[np.repeat(np.arange(WAY), SHOT)]
    for _ in range(3):
        z = x @ a + b
        gap = (softmax(z @ w + c) - y) / len(x)
        back = gap @ w.T
        a, b = a - 0.2 * x.T @ back, b - 0.2 * back.sum(axis=0)
        w, c = w - 0.2 * z.T @ gap, c - 0.2 * gap.sum(axis=0)
    expected = ((q @ a + b) @ w + c).reshape(WAY, QUERY, WAY)
    tuned = {name: params[name] for name in net.layers}
    for own, method in ((params, MAML), (tuned, methods.fine_tuning(3, 0.2))):
        logits, _ = adapted_logits(net, own, state, one, method)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def small():
    """A convolutional network in float64, whose activations have no ties."""
    with jax.enable_x64(True):
        net = Conv4(width=2, precision="float64").build()
        both, one = start(net, (16, 16, 1)), episode((16, 16, 1), dtype=np.float64)
        params, state = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), both)
        support = jnp.asarray(one.support.reshape(-1, 16, 16, 1))
        own = {name: params[name] for name in net.layers}
        # Otherwise activations would be nearly 0.
        state = net.apply(own, state, support, mode=Mode("batch", momentum=0.0))[1]
        yield net, params, state, one


def loss_of(small, method, mode):
    net, _, state, one = small

    def loss(params):
        logits, _ = adapted_logits(net, params, state, one, method, mode)
        return episode_nll(logits)

    return jax.jit(loss)


@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=["running", "batch"])
def test_second_derivatives_agree_with_finite_differences(small, mode):
    with jax.enable_x64(True):
        loss = loss_of(small, methods.maml(2, 0.3), mode)
        check_grads(loss, (small[1],), order=1, modes=["rev"], eps=1e-5, rtol=1e-4)


def test_the_first_order_takes_steps_as_constants(small):
    """Its gradient is that of the adapted parameters, passed on to the first ones."""
    net, params, state, one = small
    with jax.enable_x64(True):

        def gradient(first_order):
            method = methods.maml(2, 0.3, first_order=first_order)
            found = jax.grad(loss_of(small, method, EVAL))(params)
            leaves = jax.tree.leaves({name: found[name] for name in net.layers})
            return np.concatenate([np.ravel(x) for x in leaves])

        def after_steps(moved):
            return episode_nll(_by_steps(net, params, moved, state, one))

        zero = {name: jax.tree.map(jnp.zeros_like, params[name]) for name in net.layers}
        leaves = jax.tree.leaves(jax.jit(jax.grad(after_steps))(zero))
        by_hand = np.concatenate([np.ravel(x) for x in leaves])
        first = gradient(True)
        assert np.abs(by_hand).max() > 1e-3
        np.testing.assert_allclose(first, by_hand, rtol=1e-7, atol=1e-10)
        assert np.abs(first - gradient(False)).max() > 1e-3


def _by_steps(net, params, moved, state, one):
    own = {name: params[name] for name in net.layers}
    support = jnp.asarray(one.support.reshape(-1, *one.support.shape[2:]))
    owner = np.repeat(np.arange(WAY), SHOT)
    head = jnp.zeros((2, WAY)), jnp.zeros(WAY)

    def loss(fast):
        z, _ = net.apply(fast[0], state, support, mode=EVAL)
        scores = z.reshape(len(support), -1) @ fast[1][0] + fast[1][1][None]
        return -jax.nn.log_softmax(scores)[np.arange(len(owner)), owner].mean()

    fast, rate = (own, head), jnp.exp(params["method"]["log_rate"])
    for _ in range(2):
        steps = jax.grad(loss)(fast)
        fast = jax.tree.map(lambda x, g: x - rate * g, fast, steps)
    own = jax.tree.map(lambda x, d: x + d, fast[0], moved)
    query = jnp.asarray(one.query.reshape(-1, *one.query.shape[2:]))
    z, _ = net.apply(own, state, query, mode=EVAL)
    scores = z.reshape(len(query), -1) @ fast[1][0] + fast[1][1][None]
    return scores.reshape(WAY, QUERY, WAY)


def test_episodes_do_not_meet():
    """vmap equals a loop, jit equals eager, and no query depends on another."""
    net = Conv4(width=4).build()
    params, state = start(net, (16, 16, 1))
    several = [episode((16, 16, 1), seed) for seed in range(2)]
    run = partial(adapted_logits, net, params, state, method=methods.maml(2, 0.3))
    stacked = jax.tree.map(lambda *x: np.stack(x), *several)
    together = jax.jit(jax.vmap(lambda one: run(episode=one)[0]))(stacked)
    alone = [jax.jit(lambda one: run(episode=one)[0])(one) for one in several]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-3, atol=1e-5)
    few = several[0]._replace(query=several[0].query[:, :1])
    np.testing.assert_allclose(
        jax.jit(lambda one: run(episode=one)[0])(few)[:, 0],
        alone[0][:, 0],
        rtol=1e-4,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        run(episode=few)[0][:, 0], alone[0][:, 0], rtol=1e-3, atol=1e-5
    )


def test_training_makes_adaptation_better():
    rng = np.random.default_rng(0)
    # Six dimensions, of which two matter.
    centres = rng.normal(size=(30, 1, 6)) * np.array([2, 2, 0, 0, 0, 0])
    x = centres + rng.normal(size=(30, 10, 6)) * np.array([0.5, 0.5, *[1.5] * 4])
    x = x.reshape(-1, 1, 1, 6).astype(np.float32)
    labels = np.repeat(np.arange(30, dtype=np.int32), 10)
    images = Images("features", x, labels, tuple(map(str, range(30))))
    train = images.take_classes(images.class_names[:22], name="train")
    test = images.take_classes(images.class_names[22:], name="test")
    shape = EpisodeShape(WAY, 2, 4)
    method = methods.maml(2, 0.1)
    trained = train_episodes(
        Flatten(dim=4),
        train,
        shape,
        Recipe(Optim("adam", 1e-2), episodes=200),
        seed=0,
        method=method,
        options=Options(progress=False),
    ).model
    measure = partial(
        measure_episodes,
        images=test,
        shape=shape,
        seed=0,
        split="test",
        episodes=20,
        method=method,
    )
    params, state = Flatten(dim=4).build().init(jax.random.key(0), (1, 1, 6))
    own = {**params, "method": method.init(jax.random.key(1), 4)}
    fresh = dataclasses.replace(trained, params=own, state=state)
    before, after = (measure(m)["accuracy"].mean() for m in (fresh, trained))
    assert after > before + 0.1
    again = measure(trained, images=jax.tree.map(jnp.asarray, resident(test)))
    np.testing.assert_array_equal(again["loss"], measure(trained)["loss"])
    with pytest.raises(ValueError, match="expected images for 'maml', .* embeddings"):
        measure(trained, images=embed_classes(trained, test))


def test_other_methods_do_not_adapt():
    net = Flatten(dim=4).build()
    params, state = start(net, (2, 2, 1))
    with pytest.raises(ValueError, match="that adapts the network, got 'prototypes'"):
        adapted_logits(net, params, state, episode((2, 2, 1)), methods.prototypes())
    for bad in ({"steps": 0}, {"rate": 0.0}):
        for make in (methods.maml, methods.fine_tuning):
            with pytest.raises(ValueError, match="steps of at least 1 and a rate ab"):
                make(**bad)
