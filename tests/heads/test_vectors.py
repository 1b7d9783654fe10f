"""Precision: squared distances far from the origin, directions of any length."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import heads, losses

WAY, SHOT, QUERIES, DIM = 5, 3, 4, 64
OFFSETS = [0, 300, 3000]


def _episode(rng, offset):
    """Support and queries around an offset, as float32 holds them."""
    centres = rng.normal(size=(WAY, 1, DIM))
    return (
        np.float32(offset + centres + 0.9 * rng.normal(size=(WAY, n, DIM)))
        for n in (SHOT, QUERIES)
    )


def _oracle(support, query):
    """The loss of an episode and its gradients, by differences and in float64."""
    with jax.enable_x64(True):

        def loss(support, query):
            c = support.mean(axis=1)
            d = jnp.sum((query[:, :, None] - c[None, None]) ** 2, axis=-1)
            own = jnp.einsum("kqk->kq", jax.nn.log_softmax(-d))
            return -own.mean()

        found = jax.value_and_grad(loss, (0, 1))(
            jnp.asarray(support, jnp.float64), jnp.asarray(query, jnp.float64)
        )
        return jax.tree.map(np.asarray, found)


def _loss(support, query):
    head = heads.prototype_head(heads.support_sums(support))
    return losses.episode_nll(heads.head_logits(head, query))


@pytest.mark.parametrize("offset", OFFSETS)
def test_prototypes_keep_their_digits_wherever_embeddings_lie(rng, offset):
    support, query = _episode(rng, offset)
    value, gradients = _oracle(support, query)
    ours, found = jax.jit(jax.value_and_grad(_loss, (0, 1)))(support, query)
    # A sum of three numbers near the offset is rounded to about 1e-7 of them.
    assert ours == pytest.approx(value, abs=1e-5 * (1 + offset / 10))
    for one, other in zip(found, gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * (1 + offset / 30))


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("make", [heads.nearest_head, heads.matching_head])
def test_examples_as_rows_keep_their_digits(rng, offset, make):
    support, query = _episode(rng, offset)
    flat, z = support.reshape(-1, DIM), query.reshape(-1, DIM)
    labels = np.repeat(np.arange(WAY), SHOT)
    head = make(jnp.asarray(flat), labels, num_classes=WAY, distance="sqeuclidean")
    d = ((z[:, None].astype(np.float64) - flat[None]) ** 2).sum(-1).reshape(-1, WAY, 3)
    if make is heads.nearest_head:
        expected = -d.min(axis=2)
    else:
        expected = np.log(np.exp(-d + d.min()).sum(2)) - d.min()
    logits = np.asarray(heads.head_logits(head, jnp.asarray(z)), np.float64)
    # Up to a term that the classes of a query share.
    np.testing.assert_allclose(
        logits - logits[:, :1], expected - expected[:, :1], atol=1e-4
    )


@pytest.mark.parametrize("offset", OFFSETS)
def test_squared_distances_keep_their_digits(rng, offset):
    a, b = (x.reshape(-1, DIM) for x in _episode(rng, offset))
    exact = ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1)
    np.testing.assert_allclose(
        heads.squared_euclidean(jnp.asarray(a), jnp.asarray(b)), exact, rtol=1e-5
    )

    def ours(a):
        return jnp.sin(heads.squared_euclidean(a, jnp.asarray(b)) / 100).sum()

    slope = np.cos(exact / 100)[..., None] * (a[:, None].astype(np.float64) - b) / 50
    np.testing.assert_allclose(jax.grad(ours)(jnp.asarray(a)), slope.sum(1), atol=1e-4)


@pytest.mark.parametrize("offset", [0, 3000])
def test_centred_losses_under_vmap_and_jit(rng, offset):
    episodes = [tuple(map(jnp.asarray, _episode(rng, offset))) for _ in range(3)]
    loop = jnp.stack([_loss(*episode) for episode in episodes])
    batched = [jnp.stack(x) for x in zip(*episodes, strict=True)]
    np.testing.assert_allclose(jax.vmap(_loss)(*batched), loop, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(jax.vmap(_loss))(*batched), loop, rtol=1e-4)


def test_the_centre_has_no_gradient_and_changes_no_probability(rng):
    support, query = (jnp.asarray(x) for x in _episode(rng, 1))
    head = heads.prototype_head(heads.support_sums(support))

    def shares(centre):
        moved = dataclasses.replace(head, centre=centre)
        return jax.nn.softmax(heads.head_logits(moved, query))

    for centre in (jnp.zeros(DIM), head.centre + 2):
        np.testing.assert_allclose(shares(centre), shares(head.centre), atol=1e-4)
    assert not jax.grad(lambda c: shares(c)[0, 0, 0])(head.centre).any()


def test_one_bad_row_does_not_spoil_the_distances_of_others(rng):
    a, b = (x.reshape(-1, DIM) for x in _episode(rng, 300))
    a[3] = np.nan
    b[2, 0] = np.inf
    found = np.asarray(heads.squared_euclidean(jnp.asarray(a), jnp.asarray(b)))
    good = np.delete(np.delete(found, 3, 0), 2, 1)
    assert np.isfinite(good).all() and np.isnan(found[3]).all()


SCALES = [1e-37, 1e-30, 1e-15, 1.0, 1e15, 1e20, 1e30, 1e37]


@pytest.mark.parametrize("scale", SCALES)
def test_a_direction_does_not_depend_on_the_length(rng, scale):
    z = np.float32(rng.uniform(0.5, 2, (6, 8)) * rng.choice([-1, 1], (6, 8)))
    long = jnp.asarray(z * np.float32(scale))
    exact = np.asarray(long, np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    heads.check_embeddings(long)
    np.testing.assert_allclose(heads.normalize(long), exact, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(heads.normalize)(long), exact, rtol=1e-5)
    sums = heads.support_sums(long[None], unit=True)
    np.testing.assert_allclose(sums.total[0], exact.sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e20, 1e30])
def test_the_gradient_of_a_direction_is_true_at_any_length(rng, scale):
    z = rng.normal(size=8)
    along = rng.normal(size=8)
    unit = z / np.linalg.norm(z)
    exact = (along - unit * (unit @ along)) / np.linalg.norm(z)
    found = jax.grad(lambda z: heads.normalize(z) @ jnp.float32(along))(
        jnp.float32(z * scale)
    )
    np.testing.assert_allclose(
        np.asarray(found, np.float64) * scale, exact, rtol=1e-3, atol=1e-4
    )


def test_check_embeddings_accepts_what_normalize_gives_a_direction():
    tiny = float(np.finfo(np.float32).tiny)
    for value in (tiny, 1e-30, 1e20, 3e38):
        z = np.array([[value, 0.0]])
        heads.check_embeddings(z)
        assert heads.normalize(jnp.asarray(z, jnp.float32))[0, 0] == pytest.approx(1)
    for value, message in [
        (0.0, "bees: expected a nonzero embedding, got zeros in example 1 of 2"),
        (1e-39, "bees: expected a nonzero embedding"),
        (1e39, "bees: expected finite numbers, got inf in example 1 of 2"),
        (np.nan, "bees: expected finite numbers, got nan in example 1 of 2"),
    ]:
        z = np.array([[1.0, 0.0], [value, 0.0]])
        with pytest.raises(ValueError, match=message):
            heads.check_embeddings(z, "bees")
        with np.errstate(over="ignore"):
            length = jnp.linalg.norm(heads.normalize(jnp.asarray(z, jnp.float32))[1])
        assert not length == pytest.approx(1)


def test_check_embeddings_refuses_what_is_no_matrix(unchecked):
    for z in (np.ones(3), np.array([["a"]])):
        with pytest.raises(ValueError, match=r"expected numbers of shape \[n, dim\]"):
            heads.check_embeddings(z)
    heads.check_embeddings(np.zeros((0, 4)))


def test_a_nan_stays_one():
    z = jnp.array([[jnp.nan, 1.0], [jnp.inf, 1.0], [3.0, 4.0]])
    unit = heads.normalize(z)
    assert np.isnan(unit[:2]).any(axis=1).all() and np.isfinite(unit[2]).all()
