"""Closed-form linear heads against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import class_sums, head_logits, lda_head, prototype_head, ridge_head
from jaxfer.heads.discriminant import shrunk_covariance

WAY, DIM = 4, 6


@pytest.fixture
def examples(rng):
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    stretch = np.diag([3.0, 1, 1, 0.3, 1, 2])
    z = rng.normal(size=(WAY, DIM))[labels] + rng.normal(size=(12, DIM)) @ stretch
    return z.astype(np.float32), labels


def summed(z, labels, classes=WAY):
    return class_sums(jnp.asarray(z), labels, num_classes=classes, gram=True)


def within(z, labels):
    means = np.stack([z[labels == k].mean(0) for k in range(WAY)])
    rest = z - means[labels]
    return rest.T @ rest / (len(z) - WAY), means


def oas(covariance, n):
    """Chen et al. 2010, Eq. 23, term by term."""
    trace, squares = np.trace(covariance), np.trace(covariance @ covariance)
    return min(
        1.0,
        ((1 - 2 / DIM) * squares + trace**2)
        / ((n + 1 - 2 / DIM) * (squares - trace**2 / DIM)),
    )


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.3, 1.0])
def test_lda_is_the_posterior_of_gaussians(examples, rng, shrinkage):
    z, labels = examples
    wide = z.astype(np.float64)
    covariance, means = within(wide, labels)
    share = oas(covariance, len(z) - WAY) if shrinkage is None else shrinkage
    shrunk = (1 - share) * covariance
    shrunk += share * np.trace(covariance) / DIM * np.eye(DIM)
    found, _ = shrunk_covariance(summed(z, labels), shrinkage)
    np.testing.assert_allclose(found, shrunk, rtol=1e-4, atol=1e-5)
    query = rng.normal(size=(7, DIM)).astype(np.float32)
    rest = query[:, None].astype(np.float64) - means[None]
    density = -0.5 * np.einsum("qkd,de,qke->qk", rest, np.linalg.inv(shrunk), rest)
    expected = density - density.mean(axis=1, keepdims=True)
    logits = head_logits(
        lda_head(summed(z, labels), shrinkage=shrinkage), jnp.asarray(query)
    )
    ours = np.asarray(logits, np.float64)
    ours -= ours.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


def test_with_one_example_per_class_the_whole_covariance_is_used(rng):
    z = rng.normal(size=(WAY, DIM)).astype(np.float32)
    wide = z.astype(np.float64) - z.mean(0)
    covariance = wide.T @ wide / (WAY - 1)
    share = oas(covariance, WAY - 1)
    expected = (1 - share) * covariance
    expected += share * np.trace(covariance) / DIM * np.eye(DIM)
    sums = summed(z, np.arange(WAY))
    found, means = shrunk_covariance(sums)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(means, z)
    assert head_logits(lda_head(sums), jnp.asarray(z)).argmax(1).tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_with_full_shrinkage_lda_is_the_prototype_classifier(rng):
    z = rng.normal(size=(12, DIM)).astype(np.float32)
    query = jnp.asarray(rng.normal(size=(20, DIM)), jnp.float32)
    sums = summed(z, np.arange(12) % WAY)
    found = head_logits(lda_head(sums, shrinkage=1.0), query).argmax(1)
    assert found.tolist() == head_logits(prototype_head(sums), query).argmax(1).tolist()


def test_ridge_is_least_squares_with_an_intercept(examples, rng):
    z, labels = examples
    wide = z.astype(np.float64)
    targets = np.eye(WAY)[labels]
    centred = wide - wide.mean(0)
    weight = np.linalg.solve(
        centred.T @ centred + 0.1 * np.sum(centred**2) / len(z) * np.eye(DIM),
        centred.T @ (targets - targets.mean(0)),
    )
    query = rng.normal(size=(5, DIM)).astype(np.float32)
    expected = (query - wide.mean(0)) @ weight + targets.mean(0)
    found = head_logits(ridge_head(summed(z, labels), penalty=0.1), jnp.asarray(query))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_second_moments_add_up_exactly(rng):
    z = rng.integers(-9, 9, (20, DIM)).astype(np.float32)
    labels = rng.integers(-1, WAY, 20)
    whole = summed(z, labels)
    parts = [summed(z[i : i + 1], labels[i : i + 1]) for i in range(20)]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    jax.tree.map(np.testing.assert_array_equal, added, whole)
    used = z[labels >= 0]
    np.testing.assert_array_equal(whole.gram, used.T @ used)


@pytest.mark.parametrize("make", [lda_head, ridge_head], ids=["lda", "ridge"])
def test_empty_classes_change_nothing_and_are_never_predicted(examples, rng, make):
    z, labels = examples
    query = jnp.asarray(rng.normal(size=(9, DIM)), jnp.float32)
    few = head_logits(make(summed(z, labels)), query)
    many = head_logits(make(summed(z, labels, 8)), query)
    np.testing.assert_allclose(many[:, :WAY], few, rtol=1e-5, atol=1e-5)
    assert np.isneginf(many[:, WAY:]).all()


@pytest.mark.parametrize("make", [lda_head, ridge_head], ids=["lda", "ridge"])
def test_vmap_equals_a_loop_and_jit_equals_eager(rng, make):
    z = jnp.asarray(rng.normal(size=(3, 12, DIM)), jnp.float32)
    labels = jnp.tile(jnp.arange(WAY), 3)

    def weights(z):
        return make(summed(z, labels)).weight

    loop = jnp.stack([weights(x) for x in z])
    for found in (jax.vmap(weights)(z), jax.jit(jax.vmap(weights))(z)):
        np.testing.assert_allclose(found, loop, rtol=1e-4, atol=1e-5)


def test_equal_examples_give_finite_logits():
    z = np.ones((4, DIM), np.float32)
    for make in (lda_head, ridge_head):
        logits = head_logits(make(summed(z, np.arange(4))), jnp.asarray(z))
        assert np.isfinite(logits).all()


def test_sums_without_second_moments_are_refused():
    sums = class_sums(jnp.ones((2, 3)), np.array([0, 1]), num_classes=2)
    for make in (lda_head, ridge_head):
        with pytest.raises(ValueError, match=r"got none: use class_sums\(..., gram"):
            make(sums)
