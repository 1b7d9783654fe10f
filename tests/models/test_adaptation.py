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
    Model,
    Options,
    Recipe,
    adapted_logits,
    embed_classes,
    measure_episodes,
    train_episodes,
)
from jaxfer.nets import Conv4, Flatten
from jaxfer.optim import Optim
from jaxfer.transfer import Stage
from jaxfer.types import EVAL, TRAIN, Episode, Mode

pytestmark = pytest.mark.once

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


@pytest.mark.parametrize(
    "mode", [pytest.param(EVAL, marks=pytest.mark.slow, id="running"), TRAIN]
)
def test_second_derivatives_agree_with_finite_differences(small, mode):
    with jax.enable_x64(True):
        loss = loss_of(small, methods.maml(2, 0.3), mode)
        check_grads(loss, (small[1],), order=1, modes=["rev"], eps=1e-5, rtol=1e-4)


def test_the_first_order_takes_steps_as_constants():
    """Its gradient is that of the adapted parameters, passed on to the first ones."""
    net, one = Flatten(dim=3).build(), episode((2, 2, 1))
    params, state = start(net, (2, 2, 1))
    x, q = (jnp.asarray(part.reshape(-1, 4)) for part in one[:2])
    owner = jnp.repeat(jnp.arange(WAY), SHOT)
    layer = params["embedding"]["Dense_0"]

    def scores(fast, x):
        (a, b), (w, c) = fast
        return (x @ a + b[None]) @ w + c[None]

    def loss(fast):
        return -jax.nn.log_softmax(scores(fast, x))[jnp.arange(len(x)), owner].mean()

    def adapted(own):
        fast = own, (jnp.zeros((3, WAY)), jnp.zeros(WAY))
        for _ in range(3):
            steps = jax.lax.stop_gradient(jax.grad(loss)(fast))
            fast = jax.tree.map(lambda p, g: p - 0.2 * g, fast, steps)
        return episode_nll(scores(fast, q).reshape(WAY, QUERY, WAY))

    def gradient(first_order):
        method = methods.maml(3, 0.2, first_order=first_order)
        run = lambda p: episode_nll(  # noqa: E731
            adapted_logits(net, p, state, one, method)[0]
        )
        found = jax.grad(run)(params)["embedding"]["Dense_0"]
        return found["kernel"], found["bias"]

    by_hand = jax.grad(adapted)((layer["kernel"], layer["bias"]))
    first, second = gradient(True), gradient(False)
    for own, expected, other in zip(first, by_hand, second, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-6)
        assert np.abs(own - other).max() > 1e-3


@pytest.mark.parametrize(
    "net, item",
    [
        (Flatten(dim=4), (2, 2, 1)),
        pytest.param(Conv4(width=2), (16, 16, 1), marks=pytest.mark.slow),
    ],
    ids=["linear", "convolutional"],
)
def test_episodes_do_not_meet(net, item):
    """vmap equals a loop, and no query depends on another."""
    net = net.build()
    params, state = start(net, item)
    method = methods.maml(2, 0.3)
    run = jax.jit(lambda one: adapted_logits(net, params, state, one, method)[0])
    several = [episode(item, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *several)
    alone, near = [run(one) for one in several], {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(jax.vmap(run)(stacked), np.stack(alone), **near)
    turned = several[0]._replace(query=several[0].query[:, ::-1].copy())
    turned.query[:, 1:] = 9.0
    np.testing.assert_allclose(run(turned)[:, 0], alone[0][:, -1], **near)
    if len(net.layers) == 1:
        eager = adapted_logits(net, params, state, several[0], method)[0]
        np.testing.assert_allclose(eager, alone[0], **near)


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
    with pytest.raises(ValueError, match="for the method 'maml', got embeddings"):
        measure(trained, images=embed_classes(trained, test))


@pytest.mark.slow
def test_bfloat16_activations_are_adapted_in_float32():
    net = Conv4(width=2, precision="bfloat16").build()
    params, state = start(net, (16, 16, 1))
    one = episode((16, 16, 1))
    logits, _ = adapted_logits(net, params, state, one, methods.maml(2, 0.1))
    assert logits.dtype == jnp.float32 and np.isfinite(logits).all()


def test_what_does_not_fit_an_adapted_network_is_refused(blobs):
    with pytest.raises(ValueError, match="expected no cyclic shifts for the method"):
        EpisodeShape(3, 1, 2, cyclic=True).check(MAML)
    with pytest.raises(ValueError, match="expected no least_shot for the method"):
        EpisodeShape(3, 2, 2, least_shot=1).check(MAML)
    shape, how = EpisodeShape(3, 1, 2), {"seed": 0, "method": MAML}
    with pytest.raises(ValueError, match="expected no frozen layers for the method"):
        train_episodes(
            Conv4(width=2),
            blobs,
            shape,
            Recipe(episodes=1),
            stages=[Stage(frozen=("conv1",))],
            **how,
        )
    params, state = Conv4(width=2).build().init(jax.random.key(0), (16, 16, 1))
    model = Model(Conv4(width=2).build(), params, state)
    with pytest.raises(ValueError, match="trained with a learned rate of adaptation"):
        measure_episodes(model, blobs, shape, split="test", episodes=1, **how)


def test_other_methods_do_not_adapt():
    net = Flatten(dim=4).build()
    params, state = start(net, (2, 2, 1))
    with pytest.raises(ValueError, match="that adapts the network, got 'prototypes'"):
        adapted_logits(net, params, state, episode((2, 2, 1)), methods.prototypes())
    for bad in ({"steps": 0}, {"rate": 0.0}):
        for make in (methods.maml, methods.fine_tuning):
            with pytest.raises(ValueError, match="steps of at least 1 and a rate ab"):
                make(**bad)
