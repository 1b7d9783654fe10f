import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import episode_accuracy, episode_nll, softmax_cross_entropy


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


def test_logits_of_the_wrong_rank_or_batch_are_refused():
    with pytest.raises(Exception, match="(?i)rank|shape|type"):
        episode_nll(jnp.zeros((5, 5)))
    with pytest.raises(Exception, match="(?i)shape|type"):
        softmax_cross_entropy(jnp.zeros((3, 4)), jnp.zeros((2,), jnp.int32))
