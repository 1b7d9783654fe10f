import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import heads
from jaxfer.heads import bregman_divergence, mixture_log_density, with_priors

GENERATORS = {
    "squared": lambda z: (z * z).sum(),
    "entropy": lambda z: (z * jnp.log(z)).sum(),
    "itakura_saito": lambda z: -jnp.log(z).sum(),
    "softplus": lambda z: jnp.logaddexp(z, 0).sum(),
}
EVERY = pytest.mark.parametrize("name", GENERATORS)


@pytest.fixture
def points(rng):
    shapes = (5, 4), (3, 4)
    return [jnp.asarray(rng.uniform(0.2, 3, x), jnp.float32) for x in shapes]


def by_hand(name, a, b):
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return {
        "squared": ((a - b) ** 2).sum(),
        "entropy": (a * np.log(a / b) - a + b).sum(),
        "itakura_saito": (a / b - np.log(a / b) - 1).sum(),
        "softplus": (
            np.logaddexp(a, 0) - np.logaddexp(b, 0) - (a - b) / (1 + np.exp(-b))
        ).sum(),
    }[name]


@EVERY
def test_divergences_are_the_known_ones(points, name):
    a, b = points
    found = bregman_divergence(GENERATORS[name], a, b)
    expected = [[by_hand(name, x, y) for y in b] for x in a]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    assert (np.asarray(found) > 0).all()
    run = jax.jit(lambda a, b: bregman_divergence(GENERATORS[name], a, b))
    np.testing.assert_allclose(run(a, b), found, rtol=1e-5, atol=1e-5)


@EVERY
def test_the_mean_is_the_best_representative(points, rng, name):
    a, _ = points
    mean = a.mean(0, keepdims=True)
    others = mean * jnp.asarray(rng.uniform(0.9, 1.1, (50, 4)), jnp.float32)
    far = bregman_divergence(GENERATORS[name], a, jnp.concatenate([mean, others]))
    total = np.asarray(far.sum(0))
    assert (total[0] < total[1:]).all()


@EVERY
def test_gradients_are_finite_differences(points, rng, name):
    with jax.enable_x64(True):
        a, b = (jnp.asarray(np.asarray(x), jnp.float64) for x in points)
        f = lambda b: bregman_divergence(GENERATORS[name], a, b).sum()  # noqa: E731
        way = jnp.asarray(rng.normal(size=b.shape))
        step = 1e-6
        expected = (f(b + step * way) - f(b - step * way)) / (2 * step)
        np.testing.assert_allclose(jnp.vdot(jax.grad(f)(b), way), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["entropy", "itakura_saito"])
def test_points_outside_the_domain_are_refused(points, name):
    a, b = points
    for bad in ((a, -b), (-a, b)):
        with pytest.raises(ValueError, match="in the domain of the generator, got"):
            bregman_divergence(GENERATORS[name], *bad)
    run = jax.jit(lambda a, b: bregman_divergence(GENERATORS[name], a, b))
    assert not np.isfinite(run(a, -b)).any()


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_a_mixture_of_gaussians_has_its_density(rng, temperature):
    from scipy.stats import multivariate_normal

    support = jnp.asarray(3 + rng.normal(size=(3, 4, 2)), jnp.float32)
    head = heads.prototype_head(heads.support_sums(support), temperature=temperature)
    z = jnp.asarray(3 + rng.normal(size=(7, 2)), jnp.float32)
    priors = np.array([0.5, 0.3, 0.2], np.float32)
    spread = np.eye(2) * temperature / 2
    means = np.asarray(support, np.float64).mean(1)
    parts = [multivariate_normal(mean, spread).pdf(z) for mean in means]
    found = mixture_log_density(head, z, priors)
    expected = np.log(priors @ np.array(parts))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # The posterior under the priors is that of the logits.
    logits = heads.head_logits(with_priors(head, priors), z)
    joint = priors[:, None] * np.array(parts)
    np.testing.assert_allclose(
        jax.nn.softmax(logits), (joint / joint.sum(0)).T, atol=1e-5
    )
    even = mixture_log_density(head, z)
    np.testing.assert_allclose(even, np.log(np.mean(parts, 0)), rtol=1e-4, atol=1e-4)


def test_other_heads_and_priors_are_refused(rng):
    support = jnp.asarray(rng.normal(size=(3, 4, 2)), jnp.float32)
    sums = heads.support_sums(support)
    cosine = heads.prototype_head(sums, distance="cosine")
    with pytest.raises(ValueError, match="head of squared distances"):
        mixture_log_density(cosine, support[:, 0])
    head = heads.prototype_head(sums)
    with pytest.raises(ValueError, match=r"priors of shape \(3,\), got \(2,\)"):
        mixture_log_density(head, support[:, 0], np.ones(2))
    with pytest.raises(ValueError, match=r"priors of shape \(3,\), got \(2,\)"):
        with_priors(head, np.ones(2))
