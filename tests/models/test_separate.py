"""An encoder of their own for support examples, beside that of the queries."""

import jax
import numpy as np
import pytest

import jaxfer
from jaxfer import methods
from jaxfer.data import resident
from jaxfer.episodes import numbered_episode
from jaxfer.models import (
    EpisodeShape,
    Options,
    Recipe,
    embed,
    embed_classes,
    embed_together,
    measure_episodes,
    train_episodes,
)
from jaxfer.models.model import support_encoder
from jaxfer.transfer import Stage
from jaxfer.types import EVAL, Episode
from tests.tiny import Tiny

QUIET = Options(progress=False)
SHAPE = EpisodeShape(3, 2, 2)
BOTH = methods.with_support_encoder(methods.matching())


def train(images, method, episodes=3, **how):
    return train_episodes(
        Tiny(),
        images,
        SHAPE,
        Recipe(episodes=episodes),
        seed=0,
        method=method,
        options=QUIET,
        **how,
    ).model


@pytest.fixture
def model(blobs):
    return train(blobs, BOTH)


def test_both_encoders_train_from_the_same_start(blobs, model):
    own, other = (
        {name: params[name] for name in model.net.layers}
        for params in (model.params, model.params["support"])
    )
    differ = jax.tree.map(lambda a, b: bool((a != b).any()), own, other)
    assert any(jax.tree.leaves(differ))
    first = train(blobs, BOTH, episodes=1, start=model)
    assert {*first.params} == {*model.params}, "a second training goes on from both"
    # With equal parameters and running statistics, both are one encoder.
    same = {**own, "support": own}
    state = {k: v for k, v in model.state.items() if k != "support"}
    rng = np.random.default_rng(0)
    support, query = (
        rng.normal(size=(3, n, 16, 16, 1)).astype(np.float32) for n in (2, 4)
    )
    episode = Episode(support, query, np.arange(3))
    one, _ = embed_together(model.net, own, state, episode, EVAL)
    two, new = embed_together(
        model.net, same, {**state, "support": state}, episode, EVAL
    )
    np.testing.assert_allclose(one.support, two.support, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.query, two.query, rtol=1e-5, atol=1e-6)
    assert {*new} == {*state, "support"}


def test_it_is_measured_with_both(blobs, model, tmp_path):
    """Against a loop over episodes, also after the model was saved and loaded."""
    asked = {"seed": 0, "split": "test", "episodes": 5, "method": BOTH}
    found = measure_episodes(model, blobs, SHAPE, **asked)["accuracy"]
    z = np.asarray(embed(model, blobs))
    inner = {name: model.params["support"][name] for name in model.net.layers}
    other = jaxfer.Model(model.net, inner, model.state["support"], pixels=model.pixels)
    g = np.asarray(embed(other, blobs))
    table = resident(blobs).table
    for k in range(5):
        rows = numbered_episode(table, 0, "test", k, way=3, shot=2, n_query=2)
        episode = Episode(g[rows.support], z[rows.query], rows.classes)
        chosen = np.asarray(methods.matching().logits({}, episode).argmax(-1))
        right = chosen == np.arange(3)[:, None]
        assert found[k] == pytest.approx(right.mean())
    jaxfer.save_model(tmp_path, model)
    again = measure_episodes(
        jaxfer.load_model(tmp_path, model.net), blobs, SHAPE, **asked
    )
    np.testing.assert_array_equal(again["accuracy"], found)
    with pytest.raises(ValueError, match="for the method 'matching', got embeddings"):
        measure_episodes(model, embed_classes(model, blobs), SHAPE, **asked)


def test_prototypes_are_embedded_by_the_support_encoder(blobs, model):
    few = blobs.take_classes(blobs.class_names[:3], name="few")
    made = jaxfer.with_prototypes(model, few)
    g = np.asarray(embed(support_encoder(model), few))
    means = np.stack([g[few.labels == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(made.head.weight, means, rtol=1e-5, atol=1e-6)
    one = {name: model.params[name] for name in model.net.layers}
    plain = jaxfer.Model(model.net, one, model.state)
    with pytest.raises(ValueError, match="with an encoder for support examples"):
        measure_episodes(
            plain, few, SHAPE, seed=0, split="test", episodes=1, method=BOTH
        )


def test_what_has_no_support_encoder(blobs):
    for method in (methods.maml(), methods.zero_shot(np.eye(3, dtype=np.float32))):
        with pytest.raises(ValueError, match="that classifies embeddings of support"):
            methods.with_support_encoder(method)
    with pytest.raises(ValueError, match="no frozen layers .* with an encoder"):
        train(blobs, BOTH, stages=[Stage(frozen=("conv1",))])
