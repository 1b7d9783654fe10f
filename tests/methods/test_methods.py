"""Episodic methods against slow, obvious computations in NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxfer import heads, methods
from jaxfer.losses import episode_nll
from jaxfer.methods import context
from jaxfer.types import Episode

WAY, SHOT, QUERIES, DIM = 4, 3, 5, 6
KINDS = {
    "prototypes": methods.prototypes(),
    "prototypes, cosine": methods.prototypes("cosine", temperature=0.5),
    "prototypes, unit": methods.prototypes("cosine", unit=True),
    "matching": methods.matching(),
    "matching, squared": methods.matching("sqeuclidean", learn_temperature=True),
    "matching_fce": methods.matching_fce(steps=2, learn_temperature=True),
    "nearest": methods.nearest(),
    "nearest, cosine": methods.nearest("cosine"),
    "ridge": methods.ridge(0.3),
    "logistic": methods.logistic(0.5),
    "anil": methods.anil(3, 0.5),
    "diagonal": methods.diagonal(temperature="sqrt_dim", learn_temperature=True),
    "gaussians": methods.gaussians(2.0),
    "bregman": methods.bregman(lambda z: jnp.logaddexp(z, 0).sum()),
}
EVERY = pytest.mark.parametrize("name", KINDS)


def episode_of(rng, way=WAY, shot=SHOT, queries=QUERIES, spread=1.0):
    centres = rng.normal(size=(way, 1, DIM))
    shapes = (way, shot, DIM), (way, queries, DIM)
    support, query = (
        jnp.asarray(centres + spread * rng.normal(size=x), jnp.float32) for x in shapes
    )
    return Episode(support, query, jnp.arange(way))


def params_of(name, rng):
    """Parameters that differ from the first ones."""
    params = KINDS[name].init(jax.random.key(0), DIM)
    return jax.tree.map(
        lambda x: x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), params
    )


@EVERY
def test_vmap_jit_and_the_order_of_queries_change_nothing(name, rng):
    method, params = KINDS[name], params_of(name, rng)
    episodes = [episode_of(rng) for _ in range(3)]
    alone = [method.logits(params, episode) for episode in episodes]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *episodes)
    together = jax.jit(jax.vmap(method.logits, in_axes=(None, 0)))(params, stacked)
    assert together.shape == (3, WAY, QUERIES, WAY)
    # L-BFGS ends near its solution, where its loss no longer changes in float32.
    near = {"rtol": 2e-4, "atol": 1e-2 if name == "logistic" else 2e-4}
    np.testing.assert_allclose(together, jnp.stack(alone), **near)
    turned = episodes[0]._replace(query=episodes[0].query[:, ::-1])
    np.testing.assert_allclose(method.logits(params, turned)[:, ::-1], alone[0], **near)
    order = rng.permutation(WAY)
    moved = jax.tree.map(lambda x: x[order], episodes[0])
    expected = np.asarray(alone[0])[order][:, :, order]
    found = np.asarray(method.logits(params, moved))
    np.testing.assert_allclose(
        scipy.special.softmax(found, -1), scipy.special.softmax(expected, -1), atol=2e-4
    )


@EVERY
def test_padding_equals_removed_examples(name, rng):
    """Whatever the padding holds, in the logits and in their gradient."""
    method, params = KINDS[name], params_of(name, rng)
    episode = episode_of(rng, shot=3)
    two = episode._replace(support=episode.support[:, :2])
    shots = jnp.full((WAY,), 2, jnp.int32)
    near = {"rtol": 2e-4, "atol": 1e-2 if name == "logistic" else 2e-4}
    found = method.logits(params, episode._replace(shots=shots))
    np.testing.assert_allclose(found, method.logits(params, two), **near)
    shots = jnp.asarray([3, 1, 2, 1], jnp.int32)
    far = episode.support.at[1, 1:].set(1e3).at[2, 2:].set(-1e3).at[3, 1:].set(7.0)

    def loss(support, query):
        one = Episode(support, query, episode.classes, shots)
        return method.logits(params, one).var(), method.logits(params, one)

    for run in (loss, jax.jit(loss)):
        (_, one), (_, other) = (
            run(support, episode.query) for support in (episode.support, far)
        )
        np.testing.assert_allclose(one, other, **near)
    if name == "logistic":
        return
    slope = jax.grad(lambda *x: loss(*x)[0], argnums=(0, 1))
    (own, query), (_, query_far) = (
        slope(far, episode.query),
        slope(episode.support, episode.query),
    )
    np.testing.assert_allclose(query, query_far, rtol=2e-3, atol=1e-4)
    padding = np.arange(3)[None] >= np.asarray(shots)[:, None]
    assert np.isfinite(own).all() and not np.asarray(own)[padding].any()


@pytest.mark.parametrize("distance", ["cosine", "sqeuclidean"])
def test_unbalanced_classes_against_a_loop(distance, rng):
    """The mean, and the attention, over as many examples as a class has."""
    episode = episode_of(rng)
    shots = [3, 1, 2, 3]
    support, query = (np.asarray(x, np.float64) for x in episode[:2])

    def far(a, b):
        if distance == "sqeuclidean":
            return ((a - b) ** 2).sum()
        return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    own = [support[k, :n] for k, n in enumerate(shots)]
    flat = query.reshape(-1, DIM)
    means = [[-far(q, s.mean(axis=0)) for s in own] for q in flat]
    every = [
        [np.exp(-np.array([far(q, x) for x in s])).sum() for s in own] for q in flat
    ]
    unbalanced = episode._replace(shots=jnp.asarray(shots))
    for method, expected in (
        (methods.prototypes(distance), scipy.special.softmax(means, axis=-1)),
        (methods.matching(distance), every / np.sum(every, axis=-1, keepdims=True)),
    ):
        found = jax.nn.softmax(method.logits({}, unbalanced)).reshape(-1, WAY)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "logistic"])
def test_gradients_are_finite_differences(name, rng):
    method, params = KINDS[name], params_of(name, rng)
    with jax.enable_x64(True):
        episode = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), episode_of(rng))
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in episode[:2]]

        def loss(support, query, params):
            known = Episode(support, query, episode.classes)
            return episode_nll(method.logits(params, known))

        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        given = (*wide, params)
        slopes = jax.grad(loss, argnums=(0, 1, 2))(*given)
        way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), given)
        step = 1e-5
        ends = [
            loss(*jax.tree.map(lambda x, d, s=s: x + s * step * d, given, way))
            for s in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        pairs = zip(jax.tree.leaves(slopes), jax.tree.leaves(way), strict=True)
        found = sum(jnp.vdot(a, b) for a, b in pairs)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("distance", ["cosine", "sqeuclidean"])
def test_matching_equals_prototypes_at_one_shot(rng, distance):
    episode = episode_of(rng, shot=1)
    how = {"temperature": 0.7}
    one = methods.matching(distance, **how).logits({}, episode)
    other = methods.prototypes(distance, **how).logits({}, episode)
    for f in (one, other):
        assert f.shape == (WAY, QUERIES, WAY)
    np.testing.assert_allclose(
        jax.nn.softmax(one), jax.nn.softmax(other), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("distance", ["cosine", "sqeuclidean"])
def test_matching_sums_the_attention_of_each_class(rng, distance):
    episode = episode_of(rng)
    found = jax.nn.softmax(
        methods.matching(distance, temperature=0.7).logits({}, episode)
    )
    support, query = (np.asarray(x, np.float64) for x in episode[:2])
    for i in range(WAY):
        for j in range(QUERIES):
            z, far = query[i, j], np.zeros((WAY, SHOT))
            for k in range(WAY):
                for n in range(SHOT):
                    s = support[k, n]
                    if distance == "cosine":
                        cos = z @ s / np.linalg.norm(z) / np.linalg.norm(s)
                        far[k, n] = 1 - cos
                    else:
                        far[k, n] = ((z - s) ** 2).sum()
            attention = np.exp(-far / 0.7) / np.exp(-far / 0.7).sum()
            np.testing.assert_allclose(found[i, j], attention.sum(1), atol=2e-6)


def test_full_context_embeddings_are_those_of_the_definition(rng):
    episode = episode_of(rng)._replace(classes=jnp.array([7, 1, 30, 2]))
    method = methods.matching_fce("sqeuclidean", steps=3, temperature=2.0)
    params = method.init(jax.random.key(3), DIM)
    found = jax.nn.softmax(method.logits(params, episode))
    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def lstm(own, x, h, c):
        gates = x @ own["input"] + h @ own["hidden"] + own["bias"]
        i, f, g, o = gates.reshape(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    n = WAY * SHOT
    z = np.asarray(episode.support, np.float64).reshape(n, DIM)
    order = np.asarray(context._order(episode.classes, SHOT))
    assert sorted(order) == [*range(n)] and (order != np.arange(n)).any()
    z, owner = z[order], np.repeat(np.arange(WAY), SHOT)[order]
    known = z.copy()
    for name, places in (("forward", range(n)), ("backward", reversed(range(n)))):
        h = c = np.zeros(DIM)
        for i in places:
            h, c = lstm(weights[name], z[i], h, c)
            known[i] += h
    for i in range(WAY):
        for j in range(QUERIES):
            x = np.asarray(episode.query[i, j], np.float64)
            h, c = np.zeros(DIM), np.zeros(DIM)
            for _ in range(3):
                read = scipy.special.softmax(known @ h) @ known
                h, c = lstm(weights["attention"], x, np.concatenate([h, read]), c)
                h = h + x
            attention = scipy.special.softmax(-((h - known) ** 2).sum(1) / 2.0)
            expected = [attention[owner == k].sum() for k in range(WAY)]
            np.testing.assert_allclose(found[i, j], expected, atol=3e-6)


def test_unit_prototypes_are_means_of_directions(rng):
    episode = episode_of(rng)
    found = methods.prototypes(unit=True).logits({}, episode)
    support, query = (np.asarray(x, np.float64) for x in episode[:2])
    support /= np.linalg.norm(support, axis=-1, keepdims=True)
    query /= np.linalg.norm(query, axis=-1, keepdims=True)
    far = ((query[:, :, None] - support.mean(1)) ** 2).sum(-1)
    np.testing.assert_allclose(
        jax.nn.softmax(found), scipy.special.softmax(-far, -1), atol=2e-6
    )


def test_the_nearest_example_decides(rng):
    episode = episode_of(rng)
    support, query = (np.asarray(x) for x in episode[:2])
    far = ((query[:, :, None, None] - support) ** 2).sum(-1).min(-1)
    found = methods.nearest().logits({}, episode).argmax(-1)
    np.testing.assert_array_equal(found, far.argmin(-1))


def test_ridge_is_the_head_in_its_dual_form(rng):
    episode = episode_of(rng)
    z, owner = methods.flat_support(episode)
    sums = heads.class_sums(z, owner, num_classes=WAY, gram=True)
    head = heads.ridge_head(sums, penalty=0.3)
    expected = heads.head_logits(head, episode.query)
    found = methods.ridge(0.3).logits({}, episode)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.1, 2.0])
def test_logistic_regression_is_that_of_scikit_learn(rng, penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    episode = episode_of(rng)
    z, owner = (np.asarray(x, np.float64) for x in methods.flat_support(episode))
    model = linear_model.LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
    model.fit(z, owner)
    query = np.asarray(episode.query, np.float64).reshape(-1, DIM)
    expected = model.predict_proba(query).reshape(WAY, QUERIES, WAY)
    found = methods.logistic(penalty, 100).logits({}, episode)
    np.testing.assert_allclose(jax.nn.softmax(found), expected, atol=1e-3)


def test_anil_is_gradient_descent_on_the_support_set(rng):
    episode = episode_of(rng)
    z, owner = methods.flat_support(episode)

    def loss(head):
        scores = z @ head[0] + jnp.broadcast_to(head[1], (len(z), WAY))
        return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(len(z)), owner])

    head = jnp.zeros((DIM, WAY)), jnp.zeros(WAY)
    for _ in range(4):
        head = jax.tree.map(lambda x, g: x - 0.7 * g, head, jax.grad(loss)(head))
    expected = episode.query @ head[0] + jnp.broadcast_to(head[1], (WAY, QUERIES, WAY))
    method = methods.anil(4, 0.7)
    found = method.logits(method.init(jax.random.key(0), DIM), episode)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_logistic_regression_takes_more_dimensions_than_examples(rng):
    support, query = (rng.normal(size=(2, n, 500)) for n in (1, 3))
    query += 3 * support
    arrays = (jnp.asarray(x, jnp.float32) for x in (support, query))
    found = methods.logistic().logits({}, Episode(*arrays, jnp.arange(2)))
    assert (found.argmax(-1) == np.arange(2)[:, None]).all()


def test_learned_scales_weigh_the_dimensions(rng):
    episode = episode_of(rng)
    scales = rng.normal(size=DIM)
    params = {"log_scales": jnp.asarray(scales, jnp.float32)}
    found = methods.diagonal(temperature=2.0).logits(params, episode)
    support, query = (np.asarray(x, np.float64) for x in episode[:2])
    far = (np.exp(scales) * (query[:, :, None] - support.mean(1)) ** 2).sum(-1) / 2
    np.testing.assert_allclose(
        jax.nn.softmax(found), scipy.special.softmax(-far, -1), atol=2e-6
    )


@pytest.mark.parametrize("shot", [1, 3])
def test_gaussians_are_those_of_scipy(rng, shot):
    from scipy.stats import norm

    episode = episode_of(rng, shot=shot)
    found = np.asarray(methods.gaussians(2.0).logits({}, episode))
    support, query = (np.asarray(x, np.float64) for x in episode[:2])
    own = support.var(axis=1)
    pooled = own.mean(0) * shot / (shot - 1) if shot > 1 else support.var(axis=(0, 1))
    pooled = pooled + 1e-3 * pooled.mean()
    spread = np.sqrt((shot * own + 2.0 * pooled) / (shot + 2.0))
    terms = norm.logpdf(query[:, :, None], support.mean(1), spread).sum(-1)
    expected = terms + DIM / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_bregman_prototypes_of_the_squared_length_are_prototypes(rng):
    episode = episode_of(rng)
    found = methods.bregman(lambda z: (z * z).sum()).logits({}, episode)
    expected = methods.prototypes().logits({}, episode)
    np.testing.assert_allclose(
        jax.nn.softmax(found), jax.nn.softmax(expected), atol=1e-5
    )


def test_bad_options_are_refused():
    for make in (
        lambda: methods.matching(temperature=0.0),
        lambda: methods.diagonal(temperature=float("nan")),
        lambda: methods.ridge(0.0),
        lambda: methods.logistic(-1.0),
        lambda: methods.logistic(steps=0),
        lambda: methods.gaussians(0.0),
        lambda: methods.matching_fce(steps=0),
        lambda: methods.anil(0),
        lambda: methods.anil(rate=-1.0),
    ):
        with pytest.raises(ValueError, match="above 0|at least 1"):
            make()
