"""Formulas against slow oracles, then vmap against a loop and jit against eager."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import heads
from jaxfer.types import ClassSums, Head

WAY, SHOT, QUERIES, DIM = 4, 3, 6, 5


@pytest.fixture
def support(rng):
    return jnp.asarray(rng.normal(size=(WAY, SHOT, DIM)), jnp.float32)


@pytest.fixture
def z(rng):
    return jnp.asarray(rng.normal(size=(QUERIES, DIM)), jnp.float32)


LABELS = jnp.repeat(jnp.arange(WAY), SHOT)


def _distance(name: str, a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if name == "sqeuclidean":
        return ((a - b) ** 2).sum()
    return 1 - (a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (heads.squared_euclidean, "sqeuclidean"),
        (heads.cosine_distance, "cosine"),
    ],
)
def test_distances_are_those_of_the_definition(support, z, function, name):
    flat = support.reshape(-1, DIM)
    oracle = [[_distance(name, a, b) for b in flat] for a in z]
    np.testing.assert_allclose(function(z, flat), oracle, rtol=1e-5, atol=1e-6)


def test_squared_distance_has_the_gradient_of_the_broadcast_form(support, z):
    flat = support.reshape(-1, DIM)

    def broadcast(a, b):
        return jnp.sum((a[:, None, :] - b[None, :, :]) ** 2, -1)

    ours = jax.grad(lambda a: jnp.sin(heads.squared_euclidean(a, flat)).sum())(z)
    oracle = jax.grad(lambda a: jnp.sin(broadcast(a, flat)).sum())(z)
    np.testing.assert_allclose(ours, oracle, rtol=1e-4, atol=1e-5)


def test_class_means_are_means_whatever_the_order(support, rng):
    order = rng.permutation(WAY * SHOT)
    flat = support.reshape(-1, DIM)[order]
    means = heads.class_means(flat, LABELS[order], num_classes=WAY)
    np.testing.assert_allclose(means, support.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_labels_may_skip_classes_and_an_empty_class_is_no_nan():
    # Peers assume labels 0..n-1 without a gap, or divide by zero.
    z = jnp.array([[2.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    labels = jnp.array([3, 3, 1])
    sums = heads.class_sums(z, labels, num_classes=5)
    np.testing.assert_array_equal(sums.count, [0, 1, 0, 2, 0])
    means = heads.sums_means(sums)
    np.testing.assert_array_equal(means, [[0, 0], [0, 5], [0, 0], [3, 0], [0, 0]])
    logits = heads.head_logits(heads.prototype_head(sums), z)
    np.testing.assert_array_equal(np.isneginf(logits), [[1, 0, 1, 0, 1]] * 3)
    np.testing.assert_array_equal(logits.argmax(axis=1), [3, 3, 1])

    def loss(z):
        sums = heads.class_sums(z, labels, num_classes=5)
        return -jax.nn.log_softmax(heads.head_logits(heads.prototype_head(sums), z))[
            0, 3
        ]

    assert np.isfinite(jax.grad(loss)(z)).all()


@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_outside_the_classes_is_not_counted(label):
    z = jnp.ones((2, 3))
    sums = heads.class_sums(z, jnp.array([0, label]), num_classes=2)
    np.testing.assert_array_equal(sums.count, [1, 0])
    np.testing.assert_array_equal(sums.total, [[1, 1, 1], [0, 0, 0]])


def test_sums_add_up_exactly():
    # Integers are exact in float32, so any order of adding gives the same bits.
    z = jnp.arange(24.0).reshape(8, 3)
    labels = jnp.array([0, 1, 2, 0, 1, 2, 0, 0])
    whole = heads.class_sums(z, labels, num_classes=3)
    parts = [
        heads.class_sums(z[i : i + 2], labels[i : i + 2], num_classes=3)
        for i in range(0, 8, 2)
    ]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    jax.tree.map(np.testing.assert_array_equal, added, whole)


def test_support_sums_are_the_class_sums_of_the_support(support):
    ours = heads.support_sums(support)
    oracle = heads.class_sums(support.reshape(-1, DIM), LABELS, num_classes=WAY)
    np.testing.assert_allclose(ours.total, oracle.total, rtol=1e-6)
    np.testing.assert_array_equal(ours.count, oracle.count)


@pytest.mark.parametrize("distance", ["sqeuclidean", "cosine"])
def test_prototype_head_is_softmax_over_negative_distance(support, z, distance):
    head = heads.prototype_head(heads.support_sums(support), distance=distance)
    prototypes = np.asarray(support, np.float64).mean(axis=1)
    negative = -np.array([[_distance(distance, q, c) for c in prototypes] for q in z])
    ours = jax.nn.softmax(heads.head_logits(head, z), axis=-1)
    np.testing.assert_allclose(ours, _softmax(negative), rtol=1e-4, atol=1e-6)


def test_prototype_head_scores_squared_distance_and_not_its_root(support, z):
    # Peers score with the unsquared distance and call it ProtoNet. Logits differ from
    # -d^2 by |z - m|^2, which all classes of a query share.
    head = heads.prototype_head(heads.support_sums(support))
    squared = heads.squared_euclidean(z, support.mean(axis=1))
    constant = heads.head_logits(head, z) + squared
    shared = ((z - head.centre[None]) ** 2).sum(1)[:, None]
    np.testing.assert_allclose(
        constant, np.broadcast_to(shared, constant.shape), rtol=1e-4
    )
    rooted = jax.nn.softmax(-jnp.sqrt(squared), axis=-1)
    ours = jax.nn.softmax(heads.head_logits(head, z), axis=-1)
    assert np.abs(ours - rooted).max() > 0.05


def test_prototype_head_is_the_linear_head_of_the_paper(support, z):
    # Snell et al. 2017, Eq. 8: w_k = 2 c_k, b_k = -c_k . c_k, which is the head with
    # its centre at the origin; a softmax does not see where the centre is.
    c = support.mean(axis=1)
    head = heads.prototype_head(heads.support_sums(support))
    linear = Head(2 * c, -(c * c).sum(1), jnp.ones(()), jnp.arange(WAY), WAY)
    np.testing.assert_allclose(
        jax.nn.softmax(heads.head_logits(head, z)),
        jax.nn.softmax(heads.head_logits(linear, z)),
        rtol=1e-4,
    )
    origin = dataclasses.replace(head, centre=jnp.zeros(DIM))
    np.testing.assert_allclose(
        heads.head_logits(origin, z), heads.head_logits(linear, z), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("distance", ["sqeuclidean", "cosine"])
def test_matching_head_sums_attention_by_class(support, z, distance):
    flat = support.reshape(-1, DIM)
    head = heads.matching_head(flat, LABELS, num_classes=WAY, distance=distance)
    attention = _softmax(
        -np.array([[_distance(distance, q, s) for s in flat] for q in z])
    )
    oracle = attention.reshape(QUERIES, WAY, SHOT).sum(axis=-1)
    ours = jax.nn.softmax(heads.head_logits(head, z), axis=-1)
    np.testing.assert_allclose(ours, oracle, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("distance", ["sqeuclidean", "cosine"])
def test_matching_is_prototypes_at_one_shot(support, z, distance):
    one = support[:, :1]
    match = heads.matching_head(
        one[:, 0], jnp.arange(WAY), num_classes=WAY, distance=distance
    )
    proto = heads.prototype_head(heads.support_sums(one), distance=distance)
    np.testing.assert_allclose(
        heads.head_logits(match, z), heads.head_logits(proto, z), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("distance", ["sqeuclidean", "cosine"])
def test_nearest_head_predicts_the_class_of_the_nearest_point(support, z, distance):
    flat = support.reshape(-1, DIM)
    head = heads.nearest_head(flat, LABELS, num_classes=WAY, distance=distance)
    nearest = [np.argmin([_distance(distance, q, s) for s in flat]) for q in z]
    predicted = heads.head_logits(head, z).argmax(axis=-1)
    np.testing.assert_array_equal(predicted, np.asarray(LABELS)[nearest])


def test_imprinting_is_scaled_cosine_to_the_mean_direction(support, z):
    unit = heads.normalize(support)
    head = heads.imprint_head(heads.support_sums(unit), scale=7.0)
    w = np.asarray(unit, np.float64).mean(axis=1)
    oracle = [[7 * (1 - _distance("cosine", q, c)) for c in w] for q in z]
    np.testing.assert_allclose(heads.head_logits(head, z), oracle, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(head.weight, axis=1), 1, rtol=1e-6)


def test_unit_heads_ignore_the_length_of_rows_and_embeddings(support, z):
    head = heads.imprint_head(heads.support_sums(heads.normalize(support)))
    longer = dataclasses.replace(head, weight=3 * head.weight)
    np.testing.assert_allclose(
        heads.head_logits(longer, 5 * z), heads.head_logits(head, z), rtol=1e-4
    )


def test_a_zero_embedding_has_zero_value_and_gradient():
    assert not heads.normalize(jnp.zeros(3)).any()
    assert not jax.grad(lambda z: heads.normalize(z).sum())(jnp.zeros(3)).any()


def test_linear_head_starts_as_xavier_says(key):
    head = heads.linear_head(key, 300, 100)
    bound = np.sqrt(6 / 400)
    assert np.abs(head.weight).max() <= bound
    assert head.weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert not head.bias.any()


@pytest.mark.parametrize("pool", ["max", "logsumexp"])
def test_rows_of_a_class_are_pooled(z, rng, pool):
    owner = np.array([2, 0, -1, 2, 0, 2])
    weight = rng.normal(size=(6, DIM)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    head = Head(
        jnp.asarray(weight),
        jnp.asarray(bias),
        jnp.asarray(1.5, jnp.float32),
        jnp.asarray(owner),
        num_classes=4,
        pool=pool,
    )
    scores = 1.5 * np.asarray(z) @ weight.T + bias
    combine = np.max if pool == "max" else lambda s, axis: np.log(np.exp(s).sum(axis))
    logits = np.asarray(heads.head_logits(head, z))
    for k in (0, 2):
        expected = combine(scores[:, owner == k], axis=1)
        np.testing.assert_allclose(logits[:, k], expected, rtol=1e-4, atol=1e-5)
    # No row of class 1, none of class 3, and an empty slot that belongs to nobody.
    assert np.isneginf(logits[:, [1, 3]]).all()

    def loss(head):
        return heads.head_logits(head, z)[:, 2].sum()

    gradient = jax.grad(loss, allow_int=True)(head)
    assert np.isfinite(gradient.weight).all() and gradient.weight[0].any()
    assert not gradient.weight[2].any()


@pytest.mark.parametrize("pool", [None, "max", "logsumexp"])
def test_padded_slots_change_no_logit_and_no_compilation(z, rng, pool):
    weight = jnp.asarray(rng.normal(size=(WAY, DIM)), jnp.float32)
    padded = Head(
        jnp.concatenate([weight, jnp.full((2, DIM), 9.0)]),
        jnp.zeros(WAY + 2),
        jnp.ones(()),
        jnp.array([0, 1, 2, 3, -1, -1]),
        num_classes=WAY + 2,
        pool=pool,
    )
    traces = []

    @jax.jit
    def logits(head):
        traces.append(1)
        return heads.head_logits(head, z)

    np.testing.assert_allclose(
        logits(padded)[:, :WAY], np.asarray(z) @ np.asarray(weight).T, rtol=1e-4
    )
    assert np.isneginf(logits(padded)[:, WAY:]).all()
    added = dataclasses.replace(padded, owner=jnp.array([0, 1, 2, 3, 4, -1]))
    np.testing.assert_allclose(logits(added)[:, 4], 9 * z.sum(1), rtol=1e-4)
    assert len(traces) == 1


def test_one_scale_a_row(z, rng):
    weight = rng.normal(size=(WAY, DIM)).astype(np.float32)
    scale = np.array([1, 2, 3, 4], np.float32)
    head = Head(
        jnp.asarray(weight), jnp.zeros(WAY), jnp.asarray(scale), jnp.arange(WAY), WAY
    )
    expected = np.asarray(z) @ weight.T * scale
    np.testing.assert_allclose(heads.head_logits(head, z), expected, rtol=1e-4)


def test_scores_of_bfloat16_embeddings_are_float32(support, z):
    sums = heads.support_sums(support.astype(jnp.bfloat16))
    logits = heads.head_logits(heads.prototype_head(sums), z.astype(jnp.bfloat16))
    assert logits.dtype == jnp.float32
    assert sums.total.dtype == jnp.float32


def _moments(support):
    """The class sums of an episode with second moments."""
    way, shot, dim = support.shape
    labels = jnp.repeat(jnp.arange(way), shot)
    z = support.reshape(-1, dim)
    return heads.class_sums(z, labels, num_classes=way, gram=True)


EPISODES = {
    "bregman_divergence": lambda s, z: heads.bregman_divergence(
        lambda x: (x * x).sum(), z, s[:, 0]
    ),
    "mixture_log_density": lambda s, z: heads.mixture_log_density(
        heads.prototype_head(heads.support_sums(s)), z
    ),
    "with_priors": lambda s, z: heads.head_logits(
        heads.with_priors(
            heads.prototype_head(heads.support_sums(s)), np.full(WAY, 0.5, np.float32)
        ),
        z,
    ),
    "normalize": lambda s, z: heads.normalize(z),
    "squared_euclidean": lambda s, z: heads.squared_euclidean(z, s[:, 0]),
    "cosine_distance": lambda s, z: heads.cosine_distance(z, s[:, 0]),
    "class_sums": lambda s, z: heads.class_sums(
        s.reshape(-1, DIM), LABELS, num_classes=WAY
    ),
    "support_sums": lambda s, z: heads.support_sums(s),
    "sums_means": lambda s, z: heads.sums_means(
        ClassSums(s.sum(1), jnp.full((WAY,), 2.0))
    ),
    "class_means": lambda s, z: heads.class_means(
        s.reshape(-1, DIM), LABELS, num_classes=WAY
    ),
    "prototype_head": lambda s, z: heads.prototype_head(heads.support_sums(s)),
    "imprint_head": lambda s, z: heads.imprint_head(heads.support_sums(s)),
    "matching_head": lambda s, z: heads.head_logits(
        heads.matching_head(s.reshape(-1, DIM), LABELS, num_classes=WAY), z
    ),
    "nearest_head": lambda s, z: heads.head_logits(
        heads.nearest_head(s.reshape(-1, DIM), LABELS, num_classes=WAY), z
    ),
    "linear_head": lambda s, z: heads.head_logits(
        heads.linear_head(jax.random.key(1), DIM, WAY), z
    ),
    "support_sums of unit": lambda s, z: heads.support_sums(s, unit=True),
    "cosine_head": lambda s, z: heads.head_logits(
        heads.cosine_head(jax.random.key(1), DIM, WAY), z
    ),
    "append_rows": lambda s, z: heads.append_rows(
        heads.cosine_head(jax.random.key(1), DIM, WAY), z, np.arange(WAY, WAY + QUERIES)
    ),
    "imprint": lambda s, z: heads.imprint(
        heads.cosine_head(jax.random.key(1), DIM, WAY),
        heads.support_sums(s),
        z,
        jnp.array([0, 0, -1, 3, 2, 2]),
    ),
    "proxy_head": lambda s, z: heads.head_logits(
        heads.proxy_head(s.reshape(-1, DIM), LABELS, num_classes=WAY, proxies=2), z
    ),
    "lda_head": lambda s, z: heads.head_logits(heads.lda_head(_moments(s)), z),
    "ridge_head": lambda s, z: heads.head_logits(heads.ridge_head(_moments(s)), z),
    "as_linear": lambda s, z: heads.as_linear(
        heads.imprint_head(heads.support_sums(s))
    ),
    "as_prototypes": lambda s, z: heads.as_prototypes(
        heads.imprint_head(heads.support_sums(s))
    ),
    "as_cosine": lambda s, z: heads.as_cosine(
        heads.prototype_head(heads.support_sums(s))
    ),
    "head_logits": lambda s, z: heads.head_logits(
        heads.prototype_head(heads.support_sums(s), distance="cosine"), z
    ),
}


def test_every_public_function_is_in_the_vmap_test():
    def named(name):
        return callable(value := getattr(heads, name)) and value.__module__

    public = {
        name
        for name in heads.__all__
        if named(name)
        and named(name) not in ("jaxfer.heads.named", "jaxfer.heads.predictions")
    }
    public -= {"Distance", "check_embeddings"}
    assert public == {name.split()[0] for name in EPISODES}


@pytest.mark.parametrize("name", EPISODES)
def test_vmap_equals_a_loop_and_jit_equals_eager(rng, name):
    function = EPISODES[name]
    support = jnp.asarray(rng.normal(size=(3, WAY, SHOT, DIM)), jnp.float32)
    z = jnp.asarray(rng.normal(size=(3, QUERIES, DIM)), jnp.float32)
    batched = jax.vmap(function)(support, z)
    jitted = jax.jit(function)
    for i in range(3):
        eager = function(support[i], z[i])
        one = jax.tree.map(lambda x, i=i: x[i], batched)
        for other in (one, jitted(support[i], z[i])):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                eager,
                other,
            )


def test_bad_input_is_refused(unchecked, key, support, z):
    head = heads.prototype_head(heads.support_sums(support))
    flat, labels = support.reshape(-1, DIM), LABELS
    for call, message in [
        (
            lambda: heads.prototype_head(heads.support_sums(support), distance="l2"),
            "expected distance 'sqeuclidean' or 'cosine', got 'l2'",
        ),
        (
            lambda: heads.head_logits(head, z[:, :-1]),
            r"of dimension 5 as the rows of the head, got shape \(6, 4\)",
        ),
        (
            lambda: heads.head_logits(dataclasses.replace(head, unit=True), z),
            "got both",
        ),
        (lambda: heads.support_sums(z), r"\[way, shot, dim\], got \(6, 5\)"),
        (lambda: heads.squared_euclidean(z, z[:, :-1]), r"got shapes \(6, 5\) and"),
        (lambda: heads.cosine_distance(z, z[0]), r"got shapes \(6, 5\) and \(5,\)"),
        (
            lambda: heads.class_sums(z[0], labels, num_classes=4),
            r"\[n, dim\], got \(5,",
        ),
        (lambda: heads.class_sums(z, labels, num_classes=4), r"shape \(6,\), one per"),
        (lambda: heads.class_means(flat, labels + 0.0, num_classes=4), "type float32"),
        (lambda: heads.nearest_head(flat, labels, num_classes=0), "least 1, got 0"),
        (lambda: heads.linear_head(key, 0, 3), "at least 1, got 0 and 3"),
        (lambda: heads.cosine_head(key, 3, 0), "at least 1, got 3 and 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("make", [heads.class_sums, heads.nearest_head])
def test_a_label_that_does_not_fit_int32_is_refused(make):
    labels = np.array([0, 2**33])
    with pytest.raises(ValueError, match="below 2.*31, got 8589934592 for example 1"):
        make(jnp.ones((2, 3)), labels, num_classes=2)


def test_no_embeddings_give_no_logits_and_no_error(support):
    none = jnp.zeros((0, DIM))
    labels = jnp.zeros((0,), jnp.int32)
    head = heads.prototype_head(heads.support_sums(support))
    assert heads.head_logits(head, none).shape == (0, WAY)
    assert heads.squared_euclidean(none, none).shape == (0, 0)
    assert not heads.class_means(none, labels, num_classes=2).any()
    for make in (heads.nearest_head, heads.matching_head):
        empty = make(none, labels, num_classes=2)
        assert np.isneginf(heads.head_logits(empty, support[0])).all()


@pytest.mark.parametrize("pool", [None, "max", "logsumexp"])
def test_a_nan_embedding_has_nan_logits(support, z, pool):
    z = z.at[1].set(jnp.nan)
    head = heads.prototype_head(heads.support_sums(support))
    logits = np.asarray(heads.head_logits(dataclasses.replace(head, pool=pool), z))
    assert np.isnan(logits[1]).all() and np.isfinite(logits[[0, 2]]).all()
