import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import (
    cosine_loss_floor,
    episode_accuracy,
    episode_nll,
    lifted_structured_loss,
    nca_loss,
    normalize,
    proxy_nca_loss,
    softmax_cross_entropy,
    squared_euclidean,
)


def _nll(logits: np.ndarray) -> float:
    """Snell et al. 2017, Algorithm 1, line by line."""
    way, n_query, _ = logits.shape
    loss = 0.0
    for k in range(way):
        for q in range(n_query):
            d = -logits[k, q].astype(np.float64)
            loss += (d[k] + np.log(np.exp(-d).sum())) / (way * n_query)
    return loss


def test_episode_nll_is_algorithm_1(rng):
    logits = rng.normal(size=(5, 3, 5)).astype(np.float32)
    assert episode_nll(jnp.asarray(logits)) == pytest.approx(_nll(logits), rel=1e-5)


def test_cross_entropy_of_known_values():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    expected = -(np.log(0.25) + np.log(0.8)) / 2
    loss = softmax_cross_entropy(logits, jnp.array([1, 2]))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_an_absent_class_changes_neither_loss_nor_gradient():
    logits, labels = jnp.array([[1.0, 2.0], [0.5, 0.1]]), jnp.array([0, 1])
    padded = jnp.concatenate([logits, jnp.full((2, 1), -jnp.inf)], axis=1)
    one = jax.value_and_grad(softmax_cross_entropy)(logits, labels)
    other = jax.value_and_grad(softmax_cross_entropy)(padded, labels)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    np.testing.assert_allclose(one[1], other[1][:, :2], rtol=1e-6)
    np.testing.assert_array_equal(other[1][:, 2], 0)


def test_accuracy_counts_every_query():
    logits = np.zeros((3, 2, 3), np.float32)
    for k, q, predicted in [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1), (2, 0, 0)]:
        logits[k, q, predicted] = 1
    logits[2, 1, 2] = 1
    assert episode_accuracy(jnp.asarray(logits)) == pytest.approx(4 / 6)


@pytest.mark.parametrize("right", range(6))
def test_accuracy_with_one_query_a_class(right):
    # Peers squeeze the query axis away and report 1 / way whatever is predicted.
    predicted = np.r_[np.arange(right), np.arange(right, 5) + 1] % 5
    logits = np.eye(5, dtype=np.float32)[predicted][:, None, :]
    expected = np.mean(predicted == np.arange(5))
    assert episode_accuracy(jnp.asarray(logits)) == pytest.approx(expected)


@pytest.mark.parametrize("function", [episode_nll, episode_accuracy])
def test_vmap_equals_a_loop_and_jit_equals_eager(rng, function):
    batch = jnp.asarray(rng.normal(size=(3, 5, 4, 5)), jnp.float32)
    loop = jnp.stack([function(logits) for logits in batch])
    np.testing.assert_allclose(jax.vmap(function)(batch), loop, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(function)(batch[0]), loop[0], rtol=1e-6)


def test_cross_entropy_vmap_equals_a_loop_and_jit_equals_eager(rng):
    logits = jnp.asarray(rng.normal(size=(3, 6, 4)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 4, (3, 6)))
    pairs = zip(logits, labels, strict=True)
    loop = jnp.stack([softmax_cross_entropy(x, y) for x, y in pairs])
    batched = jax.vmap(softmax_cross_entropy)(logits, labels)
    np.testing.assert_allclose(batched, loop, rtol=1e-6)
    jitted = jax.jit(softmax_cross_entropy)(logits[0], labels[0])
    np.testing.assert_allclose(jitted, loop[0], rtol=1e-6)


@pytest.mark.parametrize("function", [episode_nll, episode_accuracy])
@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 5), (5, 0, 5), (3, 2, 5)])
def test_logits_of_another_shape_are_refused(unchecked, function, shape):
    message = rf"\[way, n_query, way\].*got \({shape[0]}, {shape[1]}"
    with pytest.raises(ValueError, match=message):
        function(jnp.zeros(shape))
    with pytest.raises(ValueError, match=message):
        jax.jit(function)(jnp.zeros(shape))


def test_labels_of_another_shape_are_refused(unchecked):
    some = jnp.zeros((2,), jnp.int32)
    for call in (
        lambda: softmax_cross_entropy(jnp.zeros((3, 4)), some),
        lambda: softmax_cross_entropy(jnp.zeros((0, 4)), some[:0]),
        lambda: nca_loss(jnp.zeros((3, 3)), some),
        lambda: nca_loss(jnp.zeros((0, 0)), some[:0]),
        lambda: lifted_structured_loss(jnp.zeros((2, 3)), some),
        lambda: proxy_nca_loss(jnp.zeros((3, 4)), some),
        lambda: proxy_nca_loss(jnp.zeros((0, 4)), some[:0]),
    ):
        with pytest.raises(ValueError, match="expected .*got"):
            call()


@pytest.mark.parametrize("loss", [softmax_cross_entropy, proxy_nca_loss])
@pytest.mark.parametrize("label", [-1, 4, 2**33])
def test_a_label_outside_the_classes_is_never_another_class(loss, label):
    scores = jnp.asarray(np.arange(8.0).reshape(2, 4), jnp.float32)
    with pytest.raises(ValueError, match=f"labels from 0 to 3, got {label}"):
        loss(scores, np.array([0, label]))
    if label < 2**31:
        assert np.isnan(jax.jit(loss)(scores, jnp.array([0, label])))


def test_a_query_with_a_nan_is_wrong_and_its_loss_is_nan():
    # argmax takes the first NaN: without care an episode of NaN scores 1 / way.
    assert episode_accuracy(jnp.full((5, 3, 5), jnp.nan)) == 0
    logits = jnp.tile(jnp.eye(5)[:, None, :], (1, 3, 1))
    logits = logits.at[2, 1, 4].set(jnp.nan).at[0, 0, 0].set(jnp.nan)
    assert episode_accuracy(logits) == pytest.approx(13 / 15)
    assert jax.jit(episode_accuracy)(logits) == pytest.approx(13 / 15)
    assert np.isnan(episode_nll(logits)) and np.isnan(jax.jit(episode_nll)(logits))


@pytest.mark.parametrize(("classes", "scale"), [(100, 1.0), (10, 3.0), (2, 0.5)])
def test_the_floor_of_cosines_is_reached_and_not_passed(rng, classes, scale):
    best = np.where(np.eye(classes), scale, -scale)
    loss = softmax_cross_entropy(jnp.asarray(best), jnp.arange(classes))
    floor = cosine_loss_floor(classes, scale)
    assert loss == pytest.approx(floor, rel=1e-5)
    near = rng.uniform(-scale, scale, best.shape)
    assert softmax_cross_entropy(jnp.asarray(near), jnp.arange(classes)) > floor


def test_a_hundred_cosines_give_a_probability_of_069_at_most():
    # Qi et al. 2018, section 4.1: e / (e + 99 / e).
    assert np.exp(-cosine_loss_floor(100, 1.0)) == pytest.approx(
        np.e / (np.e + 99 / np.e)
    )
    assert round(np.exp(-cosine_loss_floor(100, 1.0)), 3) == 0.069
    with pytest.raises(
        ValueError, match="at least 1 class and a scale of at least 0, got 0"
    ):
        cosine_loss_floor(0, 1.0)


LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 3])


def _squared(z, others):
    z, others = np.asarray(z, np.float64), np.asarray(others, np.float64)
    return ((z[:, None] - others[None]) ** 2).sum(-1)


def _slow_nca(z):
    d = _squared(z, z)
    terms = []
    for x, y in np.argwhere(LABELS[:, None] == LABELS[None]):
        if x != y:
            negatives = np.exp(-d[x][LABELS != LABELS[x]]).sum()
            terms.append(-np.log(np.exp(-d[x, y]) / negatives))
    return np.mean(terms)


def _slow_lifted(z, margin):
    d = np.sqrt(_squared(z, z))
    total, pairs = 0.0, 0
    for i in range(len(z)):
        for j in range(i + 1, len(z)):
            if LABELS[i] == LABELS[j]:
                other = LABELS != LABELS[i]
                inner = np.exp(margin - d[i][other]).sum()
                inner += np.exp(margin - d[j][other]).sum()
                total += max(0.0, np.log(inner) + d[i, j]) ** 2
                pairs += 1
    return total / (2 * pairs)


@pytest.fixture
def z(rng):
    return normalize(jnp.asarray(rng.normal(size=(8, 5)), jnp.float32))


def test_nca_is_its_equation(z):
    loss = nca_loss(squared_euclidean(z, z), jnp.asarray(LABELS))
    assert loss == pytest.approx(_slow_nca(z), rel=1e-4)


@pytest.mark.parametrize("margin", [1.0, 0.2])
def test_lifted_structured_is_its_equation(z, margin):
    loss = lifted_structured_loss(
        squared_euclidean(z, z), jnp.asarray(LABELS), margin=margin
    )
    assert loss == pytest.approx(_slow_lifted(z, margin), rel=1e-4)


def test_proxy_nca_has_only_the_negatives_below(z, rng):
    proxies = normalize(jnp.asarray(rng.normal(size=(4, 5)), jnp.float32))
    d = _squared(z, proxies)
    terms = [
        -np.log(np.exp(-row[k]) / np.delete(np.exp(-row), k).sum())
        for row, k in zip(d, LABELS, strict=True)
    ]
    loss = proxy_nca_loss(squared_euclidean(z, proxies), jnp.asarray(LABELS))
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)
    with pytest.raises(ValueError, match=r"at least 2 classes, got shape \(8, 1\)"):
        proxy_nca_loss(jnp.ones((8, 1)), jnp.zeros(8, jnp.int32))


@pytest.mark.parametrize("loss", [nca_loss, lifted_structured_loss])
def test_a_batch_without_pairs_or_negatives_has_no_loss(z, loss):
    for labels in (jnp.arange(8), jnp.zeros(8, jnp.int32)):
        value, gradient = jax.value_and_grad(
            lambda z, labels=labels: loss(squared_euclidean(z, z), labels)
        )(z)
        assert value == 0 and not gradient.any()


@pytest.mark.parametrize("loss", [nca_loss, lifted_structured_loss])
def test_gradients_of_metric_losses_are_finite_where_examples_coincide(z, loss):
    twins = jnp.concatenate([z[:4], z[:4]])
    labels = jnp.asarray(np.r_[LABELS[:4], LABELS[:4]])
    gradient = jax.grad(lambda z: loss(squared_euclidean(z, z), labels))(twins)
    assert np.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize("loss", [nca_loss, lifted_structured_loss, proxy_nca_loss])
def test_metric_losses_under_vmap_and_jit(rng, loss):
    d = jnp.asarray(rng.uniform(0.1, 4, (3, 8, 8)), jnp.float32)
    labels = jnp.asarray(np.stack([np.roll(LABELS, i) for i in range(3)]))
    eager = [loss(d[i], labels[i]) for i in range(3)]
    np.testing.assert_allclose(jax.vmap(loss)(d, labels), eager, rtol=1e-5)
    jitted = [jax.jit(loss)(d[i], labels[i]) for i in range(3)]
    np.testing.assert_allclose(jitted, eager, rtol=1e-5)
