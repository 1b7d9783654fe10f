"""Zero-shot classification against formulas, and trained on features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxfer.data import Crop, Images
from jaxfer.methods import prototypes, zero_shot
from jaxfer.models import (
    EpisodeShape,
    Options,
    Recipe,
    measure_episodes,
    train_episodes,
)
from jaxfer.nets import Flatten
from jaxfer.optim import Optim
from jaxfer.types import Episode

QUIET = Options(progress=False)
KNOWN = np.random.default_rng(1).normal(size=(6, 7)).astype(np.float32)
METHODS = {
    "paper": {},
    "any length": {"unit": False},
    "no bias": {"bias": False},
    "warm": {"temperature": 3.0},
}


def episode(dim=5, classes=(4, 0, 2), seed=0):
    query = np.random.default_rng(seed).normal(size=(len(classes), 4, dim))
    query = query.astype(np.float32)
    return Episode(query[:, :0], query, np.array(classes, np.int32))


def params_of(method, dim=5):
    params = method.init(jax.random.key(0), dim)
    if "bias" in params["attributes"]:
        params["attributes"]["bias"] = jnp.arange(float(dim)) / dim
    return params


def slow_probabilities(params, asked, *, unit=True, bias=True, temperature=1.0):
    own, found = jax.tree.map(np.asarray, params["attributes"]), []
    made = []
    for k in asked.classes:
        c = KNOWN[k] @ own["kernel"] + (own["bias"] if bias else 0)
        made.append(c / np.sqrt((c * c).sum()) if unit else c)
    for x in asked.query.reshape(-1, asked.query.shape[-1]):
        e = np.exp([-((x - c) ** 2).sum() / temperature for c in made])
        found.append(e / e.sum())
    return np.reshape(found, (*asked.query.shape[:2], -1))


@pytest.mark.parametrize("how", METHODS.values(), ids=METHODS)
def test_probabilities_are_those_of_mapped_attributes(how):
    method, asked = zero_shot(KNOWN, **how), episode()
    params = params_of(method)
    assert ("bias" in params["attributes"]) == how.get("bias", True)
    expected = slow_probabilities(params, asked, **how)
    for logits in (method.logits(params, asked), jax.jit(method.logits)(params, asked)):
        np.testing.assert_allclose(jax.nn.softmax(logits), expected, rtol=2e-5)


def test_episodes_may_be_batched():
    method = zero_shot(KNOWN)
    params = params_of(method)
    several = [episode(seed=s, classes=c) for s, c in enumerate([(0, 1, 2), (5, 3, 4)])]
    stacked = jax.tree.map(lambda *x: np.stack(x), *several)
    together = jax.vmap(method.logits, in_axes=(None, 0))(params, stacked)
    alone = np.stack([method.logits(params, one) for one in several])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_gradients_agree_with_finite_differences():
    method, asked = zero_shot(KNOWN), episode()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params_of(method))

        def loss(params):
            return -jax.nn.log_softmax(method.logits(params, asked))[..., 0].mean()

        check_grads(loss, (wide,), order=1, modes=["rev"])


def test_bad_attributes_and_episodes_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"attributes \[classes, dim_a\], got shape"):
        zero_shot(np.zeros(3))
    with pytest.raises(ValueError, match="expected temperature"):
        zero_shot(KNOWN, temperature=0.0)
    with pytest.raises(ValueError, match="shot of at least 1 .* 'prototypes', got 0"):
        EpisodeShape(5, 0, 1).check(prototypes())


def described(classes, per_class, seed):
    """Features that are linear in the attributes of their class, and the attributes."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 8))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(classes, 4)).astype(np.float32)
    labels = np.repeat(np.arange(classes), per_class).astype(np.int32)
    z = values[labels] @ mix + 0.1 * rng.normal(size=(len(labels), 8))
    z = z[:, None, None].astype(np.float32)
    return Images("features", z, labels, tuple(map(str, range(classes)))), values


def test_classes_without_images_are_recognised_after_training():
    train, known = described(20, 6, seed=1)
    test, new = described(5, 10, seed=2)
    recipe = Recipe(Optim("adam", 1e-2, weight_decay=1e-5), episodes=300)
    trained = train_episodes(
        Flatten(dim=8),
        train,
        EpisodeShape(way=10, shot=0, n_query=3),
        recipe,
        seed=0,
        method=zero_shot(known),
        options=QUIET,
    )
    model, shape = trained.model, EpisodeShape(way=5, shot=0, n_query=10)
    how = {"seed": 0, "split": "test", "episodes": 2}
    found = measure_episodes(model, test, shape, method=zero_shot(new), **how)
    assert found["accuracy"].mean() > 0.9
    assert model.about["method"]["unit"] is True
    # Attributes that belong to other classes are of no use.
    wrong = measure_episodes(model, test, shape, method=zero_shot(new[::-1]), **how)
    assert wrong["accuracy"].mean() < 0.5
    with pytest.raises(ValueError, match="shot of at least 1 for the method"):
        measure_episodes(model, test, shape, **how)
    with pytest.raises(ValueError, match="expected data of 20 classes, .* got 5"):
        measure_episodes(model, test, shape, method=zero_shot(known), **how)


def test_a_network_of_images_learns_from_attributes(blobs):
    """Also with augmentation, where there are no support examples to augment."""
    attributes = np.eye(30, dtype=np.float32)
    trained = train_episodes(
        Flatten(dim=4),
        blobs,
        EpisodeShape(way=5, shot=0, n_query=2),
        Recipe(episodes=2, augment=Crop(shift=1, side=12)),
        seed=0,
        method=zero_shot(attributes),
        options=QUIET,
    )
    assert trained.steps == 2
    with pytest.raises(ValueError, match="no cyclic shifts for the method 'zero_shot'"):
        EpisodeShape(5, 0, 2, cyclic=True).check(zero_shot(attributes))
