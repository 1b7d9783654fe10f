"""Where prototypes, imprinted and linear heads are one classifier."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import (
    as_cosine,
    as_linear,
    as_prototypes,
    cosine_head,
    head_logits,
    imprint_head,
    linear_head,
    nearest_head,
    normalize,
    prototype_head,
    squared_euclidean,
    support_sums,
)

WAY, SHOT, DIM = 5, 3, 6


@pytest.fixture
def support(rng):
    return normalize(jnp.asarray(rng.normal(size=(WAY, SHOT, DIM)), jnp.float32))


@pytest.fixture
def z(rng):
    """On the sphere, where the identities hold."""
    return normalize(jnp.asarray(rng.normal(size=(40, DIM)), jnp.float32))


def _probabilities(head, z):
    return jax.nn.softmax(head_logits(head, z), axis=1)


def test_a_linear_form_has_the_logits_of_the_imprinted_head(support, z):
    head = imprint_head(support_sums(support), scale=7.0)
    linear = as_linear(dataclasses.replace(head, weight=3 * head.weight))
    plain = np.asarray(z) @ np.asarray(linear.weight).T
    assert not linear.unit and linear.scale == 1
    np.testing.assert_allclose(plain, head_logits(head, z), rtol=1e-4, atol=1e-5)


def test_a_linear_form_folds_in_a_scale_for_each_class(support, z):
    head = imprint_head(support_sums(support))
    head = dataclasses.replace(head, scale=jnp.arange(1.0, WAY + 1))
    np.testing.assert_allclose(
        head_logits(as_linear(head), z), head_logits(head, z), rtol=1e-4, atol=1e-5
    )


def test_a_linear_form_of_prototypes_holds_everywhere(support, z):
    head = prototype_head(support_sums(4 * support))
    linear = as_linear(head)
    assert linear.centre is None
    np.testing.assert_allclose(
        head_logits(linear, 9 * z), head_logits(head, 9 * z), rtol=1e-4, atol=1e-4
    )
    plain = np.asarray(9 * z) @ np.asarray(linear.weight).T + np.asarray(linear.bias)
    np.testing.assert_allclose(plain, head_logits(head, 9 * z), rtol=1e-4, atol=1e-4)


def test_the_cosine_form_of_prototypes_has_their_directions(support):
    means = np.asarray(support).mean(axis=1)
    cosine = as_cosine(prototype_head(support_sums(support + 2)))
    np.testing.assert_allclose(cosine.weight, normalize(jnp.asarray(means + 2)), 1e-5)


@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0])
def test_imprinted_probabilities_are_those_of_scaled_squared_distances(
    support, z, scale
):
    head = imprint_head(support_sums(support), scale=scale)
    np.testing.assert_allclose(
        _probabilities(as_prototypes(head), z),
        _probabilities(head, z),
        rtol=1e-4,
        atol=1e-6,
    )
    # By the definition: softmax of -s/2 |z - c|^2.
    distances = ((np.asarray(z)[:, None] - np.asarray(head.weight)) ** 2).sum(-1)
    np.testing.assert_allclose(
        jax.nn.softmax(-scale / 2 * distances, axis=1),
        _probabilities(head, z),
        rtol=1e-4,
        atol=1e-6,
    )


def test_squared_distances_on_the_sphere_are_cosines_of_scale_2(support, z):
    # Qi et al. 2018, Eqs. 3 to 5.
    prototypes = prototype_head(support_sums(support[:, :1]))
    np.testing.assert_allclose(
        _probabilities(as_cosine(prototypes, scale=2.0), z),
        _probabilities(prototypes, z),
        rtol=1e-4,
        atol=1e-6,
    )
    other = as_cosine(prototypes, scale=1.0)
    assert np.abs(_probabilities(other, z) - _probabilities(prototypes, z)).max() > 0.01


def test_the_nearest_template_in_cosine_is_the_nearest_in_space(support, z):
    rows, owner = support.reshape(-1, DIM), jnp.repeat(jnp.arange(WAY), SHOT)
    by_cosine = nearest_head(rows, owner, num_classes=WAY, distance="cosine")
    in_space = nearest_head(rows, owner, num_classes=WAY)
    np.testing.assert_array_equal(
        head_logits(by_cosine, z).argmax(1), head_logits(in_space, z).argmax(1)
    )
    np.testing.assert_array_equal(
        head_logits(by_cosine, z).argmax(1),
        np.asarray(owner)[np.asarray(squared_euclidean(z, rows)).argmin(1)],
    )


def test_a_linear_classifier_becomes_a_cosine_one(key, z):
    linear = linear_head(key, DIM, WAY)
    linear = dataclasses.replace(linear, bias=jnp.full(WAY, 5.0))
    cosine = as_cosine(linear, scale=4.0)
    w = np.asarray(linear.weight)
    expected = 4 * np.asarray(z) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    np.testing.assert_allclose(
        head_logits(cosine, 3 * z), expected, rtol=1e-4, atol=1e-5
    )


def test_what_is_no_distance_is_refused(key):
    with pytest.raises(
        ValueError, match="expected an imprinted head.*got unit = False"
    ):
        as_prototypes(linear_head(key, DIM, WAY))
    scales = dataclasses.replace(cosine_head(key, DIM, WAY), scale=jnp.ones(WAY))
    with pytest.raises(ValueError, match=r"one scale.*got scales of shape \(5,\)"):
        as_prototypes(scales)
