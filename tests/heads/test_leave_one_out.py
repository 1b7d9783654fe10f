"""Leave-one-out logits against classifiers that are made without each example."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import heads
from jaxfer.heads.leave_one_out import fit_temperature, support_logits

WAY, DIM = 3, 5
KINDS = ("prototype", "imprint", "matching", "nearest", "linear", "lda")


@pytest.fixture
def support(rng):
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 0])
    z = 2 * rng.normal(size=(WAY, DIM))[labels] + rng.normal(size=(10, DIM))
    return z, labels


def head(kind, z, labels):
    """The library's own head."""
    z, labels = jnp.asarray(z, jnp.float32), np.asarray(labels)
    how = {"num_classes": WAY}
    if kind == "matching":
        return heads.matching_head(z, labels, **how)
    if kind == "nearest":
        return heads.nearest_head(z, labels, **how)
    if kind == "imprint":
        sums = heads.class_sums(heads.normalize(z), labels, **how)
        return heads.imprint_head(sums, scale=1.0)
    sums = heads.class_sums(z, labels, gram=True, **how)
    if kind == "prototype":
        return heads.prototype_head(sums)
    return heads.ridge_head(sums) if kind == "linear" else heads.lda_head(sums)


def centred(logits):
    return np.asarray(logits) - np.asarray(logits).mean(-1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_support_logits_are_those_of_the_head(support, kind):
    z, labels = support
    found = support_logits(kind, z, labels, leave_out=False)(1.0)
    expected = heads.head_logits(head(kind, z, labels), jnp.asarray(z, jnp.float32))
    if kind in ("linear", "imprint", "matching"):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(centred(found), centred(expected), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["prototype", "imprint", "matching", "nearest"])
def test_leaving_out_equals_a_head_made_without_the_example(support, kind):
    z, labels = support
    found = support_logits(kind, z, labels, leave_out=True)(1.0)
    for i in range(len(z)):
        rest = np.arange(len(z)) != i
        other = head(kind, z[rest], labels[rest])
        query = jnp.asarray(z[i : i + 1], jnp.float32)
        expected = heads.head_logits(other, query)[0]
        np.testing.assert_allclose(
            centred(found[i]), centred(expected), rtol=1e-3, atol=1e-4
        )


def test_leaving_out_of_ridge_is_exact_for_a_fixed_penalty(support):
    z, labels = support
    found = support_logits("linear", z, labels, leave_out=True, penalty=0.3)(1.0)
    n, targets = len(z), np.eye(WAY)[labels]
    ridge = 0.3 * ((z - z.mean(0)) ** 2).sum() / n
    for i in range(n):
        rest = np.arange(n) != i
        mean = z[rest].mean(0)
        a = z[rest] - mean
        w = np.linalg.solve(a.T @ a + ridge * np.eye(DIM), a.T @ targets[rest])
        expected = (z[i] - mean) @ w + targets[rest].mean(0)
        np.testing.assert_allclose(found[i], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shrinkage", [0.2, 0.7])
def test_leaving_out_of_lda_changes_means_and_scatter(support, shrinkage):
    """The level of the shrinkage and the degrees of freedom stay as they were."""
    z, labels = support
    found = support_logits("lda", z, labels, leave_out=True, shrinkage=shrinkage)(1.0)
    counts = np.bincount(labels)
    means = np.stack([z[labels == k].mean(0) for k in range(WAY)])
    freedom = len(z) - WAY
    within = (z - means[labels]).T @ (z - means[labels]) / freedom
    level = shrinkage * np.trace(within) / DIM
    for i in range(len(z)):
        rest = np.arange(len(z)) != i
        own = np.stack([z[rest & (labels == k)].mean(0) for k in range(WAY)])
        a = (z - own[labels])[rest]
        shrunk = (1 - shrinkage) * a.T @ a / freedom + level * np.eye(DIM)
        v = z[i] - own
        expected = -0.5 * np.einsum("kd,de,ke->k", v, np.linalg.inv(shrunk), v)
        np.testing.assert_allclose(found[i], expected, rtol=1e-6)
    assert counts.min() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_temperature_has_the_lowest_loss(support, kind):
    z, labels = support
    best = fit_temperature(kind, z, labels)

    def loss(t):
        logits = support_logits(kind, z, labels, leave_out=True)(t)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return -np.log(shares[range(10), labels] / shares.sum(1)).mean()

    for other in (0.5 * best, 0.9 * best, 1.1 * best, 2 * best):
        assert loss(best) < loss(other) + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_with_one_example_per_class_it_follows_the_scale_of_the_logits(rng, kind):
    z = rng.normal(size=(WAY, DIM))
    found = fit_temperature(kind, z, np.arange(WAY))
    assert 0 < found < np.inf
    if kind in ("prototype", "nearest"):
        assert fit_temperature(kind, 3 * z, np.arange(WAY)) == pytest.approx(9 * found)


def test_odd_support_sets_have_a_temperature():
    same = np.ones((4, DIM))
    for kind in KINDS:
        assert np.isfinite(fit_temperature(kind, same, np.array([0, 0, 1, 1])))
        assert fit_temperature(kind, same, np.zeros(4, int)) == 1.0
        assert np.isfinite(fit_temperature(kind, same[:2], np.array([0, 1])))
