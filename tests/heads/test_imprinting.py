"""Imprinting against its definition, example by example."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer import (
    ClassSums,
    class_sums,
    cosine_head,
    head_logits,
    imprint,
    imprint_head,
    losses,
    normalize,
    proxy_head,
    sharding,
    support_sums,
)

DIM, BASE, ROOM = 6, 4, 7


@pytest.fixture
def base(key):
    """Four trained rows, and three empty slots full of rubbish."""
    head = cosine_head(key, DIM, ROOM)
    return dataclasses.replace(head, owner=jnp.array([0, 1, 2, 3, -1, -1, -1]))


@pytest.fixture
def sums():
    return ClassSums(jnp.zeros((ROOM, DIM)), jnp.zeros(ROOM))


def _unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_rows_are_unit_means_of_unit_embeddings(base, sums, rng):
    z = jnp.asarray(rng.normal(size=(5, DIM)) * 3, jnp.float32)
    labels = jnp.array([4, 6, 4, -1, 4])
    head, sums = jax.jit(imprint)(base, sums, z, labels)
    expected = _unit(_unit(np.asarray(z)[[0, 2, 4]]).mean(axis=0))
    np.testing.assert_allclose(head.weight[4], expected, rtol=1e-5)
    np.testing.assert_allclose(head.weight[6], _unit(z[1]), rtol=1e-5)
    np.testing.assert_array_equal(head.owner, [0, 1, 2, 3, 4, -1, 6])
    np.testing.assert_array_equal(sums.count, [0, 0, 0, 0, 3, 0, 1])
    assert np.isneginf(head_logits(head, z)[:, 5]).all()


def test_rows_of_other_classes_keep_their_bits_and_logits(base, sums, rng):
    z = jnp.asarray(rng.normal(size=(5, DIM)), jnp.float32)
    head, _ = jax.jit(imprint)(base, sums, z, jnp.full(5, 5))
    before, after = jax.jit(head_logits)(base, z), jax.jit(head_logits)(head, z)
    np.testing.assert_array_equal(head.weight[:BASE], base.weight[:BASE])
    np.testing.assert_array_equal(after[:, :BASE], before[:, :BASE])
    assert np.isfinite(after[:, 5]).all() and np.isneginf(before[:, 5]).all()


def test_imprinting_example_by_example_is_imprinting_them_at_once(base, sums, rng):
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    labels = jnp.array([4, 5, 4, 5, 5, 4])
    whole, all_sums = imprint(base, sums, z, labels)
    head = base
    for i in range(6):
        head, sums = imprint(head, sums, z[i : i + 1], labels[i : i + 1])
    np.testing.assert_allclose(head.weight, whole.weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums.total, all_sums.total, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sums.count, all_sums.count)


def test_a_new_class_gets_the_mean_of_the_scales_there_are(base, sums):
    base = dataclasses.replace(base, scale=jnp.array([4.0, 6, 8, 10, 99, 99, 99]))
    z = jnp.ones((3, DIM))
    head, _ = imprint(base, sums, z, jnp.array([1, 5, 5]))
    # Class 1 was there and keeps its own; empty slots have no say.
    np.testing.assert_array_equal(head.scale, [4, 6, 8, 10, 99, 7, 99])


def test_the_first_class_of_all_keeps_the_scale_of_its_slot(base, sums):
    empty = dataclasses.replace(base, owner=jnp.full(ROOM, -1), scale=jnp.full(7, 3.0))
    head, _ = imprint(empty, sums, jnp.ones((1, DIM)), jnp.array([2]))
    np.testing.assert_array_equal(head.scale, np.full(7, 3.0))


def test_training_leaves_rows_on_the_sphere_whatever_their_length(base, rng):
    # Peers learn a norm for each class (weight normalisation), drop out after the
    # normalisation, or normalise once, before the first step.
    z = jnp.asarray(rng.normal(size=(20, DIM)) * 5, jnp.float32)
    labels = jnp.arange(20) % BASE

    def loss(trained, z):
        head = dataclasses.replace(base, **trained)
        return losses.softmax_cross_entropy(head_logits(head, z), labels)

    trained = {"weight": base.weight, "scale": base.scale}
    optimizer = optax.sgd(0.5)
    state = optimizer.init(trained)
    gradient = jax.jit(jax.grad(loss))
    for _ in range(10):
        found = gradient(trained, z)
        along = jnp.sum(found["weight"] * trained["weight"], axis=1)
        np.testing.assert_allclose(along, 0, atol=1e-6)
        updates, state = optimizer.update(found, state)
        trained = optax.apply_updates(trained, updates)
    moved = np.asarray(trained["weight"])[:BASE]
    assert np.abs(moved - base.weight[:BASE]).max() > 0.1
    logits = np.asarray(head_logits(dataclasses.replace(base, **trained), z))[:, :BASE]
    cosines = _unit(z) @ _unit(moved).T
    np.testing.assert_allclose(logits, trained["scale"] * cosines, rtol=1e-4, atol=1e-4)
    # A class of longer rows has no advantage.
    longer = {
        **trained,
        "weight": trained["weight"] * jnp.array([9.0] + [1] * 6)[:, None],
    }
    np.testing.assert_allclose(loss(longer, z), loss(trained, z), rtol=1e-5)


def test_unit_sums_are_sums_of_unit_embeddings(rng):
    support = rng.normal(size=(4, 3, DIM)).astype(np.float32)
    support[2, 1] = 0
    total, count, _ = support_sums(jnp.asarray(support), unit=True)
    oracle = support_sums(normalize(jnp.asarray(support)))
    np.testing.assert_allclose(total, oracle.total, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(count, oracle.count)
    np.testing.assert_allclose(
        total[2], _unit(support[2, 0]) + _unit(support[2, 2]), rtol=1e-5
    )


def test_one_proxy_a_class_is_imprinting(rng):
    z = jnp.asarray(rng.normal(size=(30, DIM)), jnp.float32)
    labels = jnp.asarray(rng.integers(-1, 4, 30), jnp.int32)
    one = proxy_head(z, labels, num_classes=5, proxies=1)
    mean = imprint_head(class_sums(normalize(z), labels, num_classes=5))
    np.testing.assert_allclose(
        head_logits(one, z), head_logits(mean, z), rtol=1e-4, atol=1e-5
    )


def test_classes_spread_over_devices_are_trained_and_imprinted_there(
    key, rng, collectives
):
    mesh = sharding.make_mesh(2, 4)
    head = cosine_head(key, DIM, 16)
    head = dataclasses.replace(head, owner=head.owner.at[12:].set(-1))
    z = jnp.asarray(rng.normal(size=(8, DIM)), jnp.float32)
    labels = jnp.arange(8)
    params = {"head": {"weight": head.weight, "scale": head.scale}}
    rules = [("head/weight", ("model",)), ("head/scale", ())]
    spread = jax.device_put(params, sharding.param_shardings(rules, params, mesh))

    @jax.jit
    @jax.value_and_grad
    def loss(params, z):
        logits = head_logits(dataclasses.replace(head, **params["head"]), z)
        return losses.softmax_cross_entropy(logits, labels)

    batch = jax.device_put(z, sharding.over_data(mesh))
    said = collectives(loss.lower(spread, batch).compile())
    # Sums of logits and gradients; rows of classes stay where they are.
    assert said and all("all-reduce" in word for word in said)
    value, gradient = loss(spread, batch)
    alone, expected = loss(params, z)
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    assert gradient["head"]["weight"].addressable_shards[0].data.shape == (4, DIM)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        gradient,
        expected,
    )
    sums = ClassSums(jnp.zeros((16, DIM)), jnp.zeros(16))
    wide = dataclasses.replace(head, **spread["head"])
    new = jnp.full(8, 13)
    grown, _ = jax.jit(imprint)(wide, sums, z, new)
    np.testing.assert_allclose(
        grown.weight, imprint(head, sums, z, new)[0].weight, rtol=1e-5, atol=1e-6
    )
    assert grown.weight.addressable_shards[0].data.shape == (4, DIM)


def _slow_proxies(z, k, rounds):
    """k-means on the sphere of one class, by its definition."""
    z = _unit(z)
    rows = [z[np.argmax(z @ z.mean(axis=0))]]
    for _ in range(k - 1):
        rows.append(z[np.argmin(np.max(z @ np.stack(rows).T, axis=1))])
    rows = np.stack(rows)
    for _ in range(rounds):
        mine = np.argmax(z @ rows.T, axis=1)
        rows = np.stack(
            [
                _unit(z[mine == j].mean(axis=0)) if (mine == j).any() else rows[j]
                for j in range(k)
            ]
        )
    return rows


@pytest.mark.parametrize("pool", ["max", "logsumexp"])
def test_proxies_are_k_means_of_each_class(rng, pool):
    z = jnp.asarray(rng.normal(size=(90, DIM)), jnp.float32)
    labels = jnp.asarray(rng.permutation(np.arange(90) % 3), jnp.int32)
    head = proxy_head(
        z, labels, num_classes=3, proxies=4, scale=5.0, pool=pool, rounds=7
    )
    oracle = [_slow_proxies(z[labels == c], 4, 7) for c in range(3)]
    np.testing.assert_allclose(
        head.weight, np.concatenate(oracle), rtol=1e-4, atol=1e-5
    )
    scores = 5 * np.einsum("nd,ckd->nck", _unit(z), oracle)
    combined = scores.max(2) if pool == "max" else np.log(np.exp(scores).sum(2))
    np.testing.assert_allclose(head_logits(head, z), combined, rtol=1e-4, atol=1e-4)


def test_a_class_of_few_examples_has_as_many_proxies(rng):
    z = jnp.asarray(rng.normal(size=(4, DIM)), jnp.float32)
    z = jnp.concatenate([z, z[:1]])
    labels = jnp.array([0, 0, 2, 2, 0])
    head = proxy_head(z, labels, num_classes=4, proxies=3)
    # Class 0 has two distinct examples of three, class 1 and 3 none.
    owned = [[0, 0, -1], [-1] * 3, [2, 2, -1], [-1] * 3]
    np.testing.assert_array_equal(head.owner, np.ravel(owned))
    np.testing.assert_allclose(
        head.weight[0:1] @ head.weight[1:2].T, _unit(z[0]) @ _unit(z[1]), atol=1e-5
    )
    logits = head_logits(head, z)
    assert np.isneginf(logits[:, [1, 3]]).all() and np.isfinite(logits[:, [0, 2]]).all()
    np.testing.assert_array_equal(logits.argmax(1), labels)


def test_bad_proxies_are_refused(unchecked):
    z, labels = jnp.ones((1, 2)), jnp.array([0])
    for how, message in [
        ({"proxies": 0}, "at least 1 proxy and 1 round, got 0 and 10"),
        ({"rounds": 0}, "at least 1 proxy and 1 round, got 1 and 0"),
        ({"pool": "mean"}, "expected pool 'max' or 'logsumexp', got 'mean'"),
    ]:
        with pytest.raises(ValueError, match=message):
            proxy_head(z, labels, num_classes=1, **{"proxies": 1} | how)
    with pytest.raises(ValueError, match=r"at least 1 example, got shape \(0, 2\)"):
        proxy_head(z[:0], labels[:0], num_classes=1, proxies=1)


def test_a_head_with_several_rows_per_class_is_not_imprinted(sums):
    head = proxy_head(jnp.ones((2, DIM)), jnp.array([0, 1]), num_classes=2, proxies=2)
    with pytest.raises(ValueError, match="one row per class.*got 4 rows of 2 classes"):
        imprint(head, sums, jnp.ones((1, DIM)), jnp.array([0]))


def test_examples_of_another_dimension_are_not_imprinted(base, sums, unchecked):
    label = jnp.array([0])
    few = ClassSums(sums.total[1:], sums.count[1:])
    for z, of in ((jnp.ones((1, 2)), sums), (jnp.ones((1, DIM)), few)):
        with pytest.raises(ValueError, match=r"\[n, 6\] and sums of shape \(7, 6\)"):
            imprint(base, of, z, label)
