"""Batches, optimizers and losses of the imprinting study, by their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.backbone import Network
from experiments.imprinting_classes import Classes, examples
from experiments.imprinting_config import Optim
from experiments.imprinting_members import Member
from experiments.imprinting_step import (
    Program,
    Task,
    batch_of,
    head_params,
    make_optimizer,
    objective,
)
from jaxfer import cosine_head, linear_head, normalize
from jaxfer.data import Crop
from jaxfer.episodes import class_table


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


COUNTS = [3, 40, 8, 9]
LABELS = np.repeat(np.arange(4, dtype=np.int32), COUNTS)


def _program(**how):
    values = {
        "net": Network(),
        "dim": 4,
        "loss": "softmax",
        "num_classes": 4,
        "margin": 1.0,
        "optim": Optim(),
        "augment": Crop(),
        "batch": 12,
        "drawn": "class",
        "group": 3,
        "n": 60,
        "per_epoch": 5,
        "num_steps": 50,
    }
    return Program(**{**values, **how})


def _task():
    table = jax.tree.map(jnp.asarray, class_table(LABELS, num_classes=4))
    rows = jnp.arange(60, dtype=jnp.int32)
    blank = jnp.zeros((1, 1, 1))
    return Task(
        rows, jnp.asarray(LABELS), table, blank, jnp.ones(()), jax.random.key(3)
    )


def _drawn(program, steps):
    draw = jax.jit(jax.vmap(lambda s: batch_of(program, _task(), s)[0]))
    return np.asarray(draw(jnp.arange(steps, dtype=jnp.int32)))


def test_oversampled_batches_have_every_class_as_often():
    places = _drawn(_program(), 500)
    labels = LABELS[places].ravel()
    found = np.bincount(labels, minlength=4)
    # Chi-square with 3 degrees of freedom: beyond 16.3 once in a thousand.
    assert ((found - 1500) ** 2 / 1500).sum() < 16.3
    assert np.bincount(places[LABELS[places] == 0]).tolist() == pytest.approx(
        [500] * 3, rel=0.2
    )


def test_epochs_have_every_example_once():
    places = _drawn(_program(drawn="epoch"), 10)
    assert sorted(places[:5].ravel()) == sorted(places[5:].ravel()) == [*range(60)]
    assert (places[:5] != places[5:]).any()


def test_groups_are_different_examples_of_different_classes():
    for batch in _drawn(_program(drawn="groups"), 40):
        groups = LABELS[batch].reshape(4, 3)
        assert (groups == groups[:, :1]).all() and len({*groups[:, 0]}) == 4
        assert len({*batch}) == 12


def test_rmsprop_is_that_of_slim_and_new_rows_move_ten_times_as_far():
    # v = .9 * 1 + .1 g^2, m = .9 * 0 + rate g / sqrt(v + 1), p = p - m.
    optim = Optim("rmsprop", 0.1, 10.0, weight_decay=0.0, schedule="stairs", warmup=0.0)
    optimizer = make_optimizer(_program(optim=optim))
    params = {"head": {"weight": jnp.ones((2, 2))}, "net": {"fc": jnp.ones((2, 2))}}
    gradient = jax.tree.map(lambda x: 2 * x, params)
    state = optimizer.init(params)
    v, m = 1.0, 0.0
    for _ in range(3):
        updates, state = optimizer.update(gradient, state, params)
        v = 0.9 * v + 0.1 * 4
        m = 0.9 * m + 0.1 * 2 / (v + 1) ** 0.5
        np.testing.assert_allclose(updates["net"]["fc"], -m, rtol=1e-5)
        np.testing.assert_allclose(updates["head"]["weight"], -10 * m, rtol=1e-5)


def test_stairs_fall_to_94_percent_every_four_epochs():
    optim = Optim("sgd", 1.0, momentum=0.0, schedule="stairs", warmup=0.0)
    optimizer = make_optimizer(_program(optim=optim, loss="nca"))
    params = {"net": {"b": jnp.ones(1)}}
    state, rates = optimizer.init(params), []
    for _ in range(45):
        updates, state = optimizer.update(params, state, params)
        rates.append(-float(updates["net"]["b"][0]))
    expected = 0.94 ** (np.arange(45) // 20)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_decay_is_of_kernels_of_the_network_only():
    optimizer = make_optimizer(_program(optim=Optim(weight_decay=0.5, warmup=0.0)))
    params = {
        "head": {"weight": jnp.ones((2, 2)), "scale": jnp.ones(())},
        "net": {"fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
    }
    none = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(none, optimizer.init(params), params)
    moved = jax.tree.map(lambda u: bool(jnp.any(u != 0)), updates)
    assert moved["net"]["fc"] == {"kernel": True, "bias": False}
    assert moved["head"] == {"weight": False, "scale": False}


@pytest.mark.parametrize("loss", ["softmax", "linear", "proxy_nca", "nca", "lifted"])
def test_losses_are_what_they_are_called(rng, loss):
    z = jnp.asarray(rng.normal(size=(12, 4)) * 3, jnp.float32)
    labels = jnp.asarray(np.arange(12) % 4, jnp.int32)
    draw = linear_head if loss == "linear" else cosine_head
    params = {"head": head_params(draw(jax.random.key(0), 4, 4), loss)}
    value, _ = objective(_program(loss=loss), params, z, labels)
    unit, rows = np.asarray(normalize(z)), np.asarray(params["head"]["weight"])
    if loss in ("softmax", "linear"):
        logits = 10 * unit @ _unit(rows).T if loss == "softmax" else z @ rows.T
        expected = optax.softmax_cross_entropy_with_integer_labels(
            jnp.asarray(logits), labels
        ).mean()
    else:
        others = _unit(rows) if loss == "proxy_nca" else unit
        d = ((unit[:, None] - others) ** 2).sum(-1)
        terms = []
        for i in range(12):
            away = (np.arange(4) if loss == "proxy_nca" else labels) != labels[i]
            if loss == "proxy_nca":
                terms.append(d[i, labels[i]] + np.log(np.exp(-d[i][away]).sum()))
                continue
            for j in range(12):
                if i == j or labels[i] != labels[j]:
                    continue
                if loss == "nca":
                    terms.append(d[i, j] + np.log(np.exp(-d[i][away]).sum()))
                else:
                    far = np.exp(1 - np.sqrt(d[[i, j]][:, away])).sum()
                    terms.append(max(0, np.sqrt(d[i, j]) + np.log(far)) ** 2 / 2)
        expected = np.mean(terms)
    assert value == pytest.approx(float(expected), rel=1e-4)


def test_novel_classes_are_drawn_from_their_first_examples_alone():
    rng = np.random.default_rng(0)
    train = rng.permutation(np.repeat(np.arange(5, dtype=np.int32), 9))
    few = np.stack([rng.permutation(np.flatnonzero(train == c))[:6] for c in (3, 4)])
    blank = np.zeros((1, 1, 1), np.float32)
    one = np.float32(1)
    classes = Classes(tuple("abcde"), 3, train, train, few.astype(np.int32), blank, one)
    known = set(np.flatnonzero(train < 3))
    for row, n, first in (
        ("rand_ft", 2, 3),
        ("joint", 6, 3),
        ("transfer_rand_ft", 2, 0),
    ):
        member = Member(0, row, n, 4, "softmax")
        rows, labels, table = examples(classes, member)
        program = _program(num_classes=first + 2, n=len(rows))
        task = _task()._replace(table=jax.tree.map(jnp.asarray, table))
        draw = jax.jit(
            jax.vmap(
                lambda s, task=task, program=program: batch_of(program, task, s)[0]
            )
        )
        places = np.unique(draw(jnp.arange(200, dtype=jnp.int32)))
        assert {*rows[places]} == {*few[:, :n].ravel()} | (known if first else set())
        np.testing.assert_array_equal(labels[places], train[rows[places]] - (3 - first))
    rows, labels, table = examples(classes, Member(0, "base", 0, 4, "softmax"))
    assert {*rows} == known and table.counts.tolist() == [9, 9, 9]
    np.testing.assert_array_equal(labels, train[rows])
