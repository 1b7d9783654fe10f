"""Training on episodes through the public functions, and measuring models on them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxfer
from jaxfer import heads, sharding
from jaxfer.data import Crop
from jaxfer.data.resident import table_of
from jaxfer.methods import Method, prototypes
from jaxfer.models import (
    EpisodeShape,
    Options,
    Pixels,
    Recipe,
    embed,
    embed_classes,
    measure_episodes,
    train_episodes,
    with_prototypes,
)
from jaxfer.nets import Conv4, Flatten, num_params
from jaxfer.optim import Optim
from jaxfer.runlog import read_metrics
from jaxfer.stopping import Best
from jaxfer.transfer import Stage
from jaxfer.types import Episode
from tests.tiny import Tiny

SHAPE = EpisodeShape(way=4, shot=2, n_query=3)
QUIET = Options(progress=False, log_every=1)
SGD = Optim("sgd", 0.05, momentum=0.9)
RECIPE = Recipe(SGD, episodes=6)
NET = Tiny()


def _train(net, images, recipe=RECIPE, **options):
    options = {"seed": 0, "options": QUIET} | options
    return train_episodes(net, images, SHAPE, recipe, **options)


def _equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def _differ(one, other):
    return any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.fixture
def trained(blobs):
    return _train(NET, blobs)


class Linen(nn.Module):
    """A plain Linen module with BatchNorm and dropout, told by `train`."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(8, name="first")(x[:, ::4, ::4].reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        return nn.Dense(4, name="second")(x)


def test_a_linen_module_trains_on_episodes(blobs):
    module = Linen()
    ended = _train(module, blobs, Recipe(Optim("adam", 0.02), episodes=40))
    assert (ended.steps, ended.compilations, ended.best_step) == (40, 1, 0)
    model = ended.model
    assert model.head is None and model.net.layers == ("first", "norm", "second")
    facts = {
        "data": blobs.fingerprint,
        "image_shape": [16, 16, 1],
        "method": {"distance": "sqeuclidean", "temperature": 1.0},
        "steps": 40,
    }
    assert model.about == facts
    start = _train(module, blobs, num_steps=1).model
    assert _differ(model.params, start.params)
    assert np.abs(model.state["norm"]["mean"]).max() > 0
    found = [
        measure_episodes(m, blobs, SHAPE, seed=1, split="test", episodes=30)
        for m in (start, model)
    ]
    before, after = (x["loss"].mean() for x in found)
    assert after < 0.8 * before < 0.8 * 2 * np.log(4)


def test_dropout_depends_on_the_episode_alone(blobs):
    """A resumed or repeated training drops the same units; test passes drop none."""
    net = Tiny(dropout=0.5)
    one, other = (_train(net, blobs, num_steps=2).model for _ in range(2))
    _equal(one.params, other.params)
    without = dataclasses.replace(net, dropout=0.0)
    assert _differ(one.params, _train(without, blobs, num_steps=2).model.params)
    np.testing.assert_array_equal(embed(one, blobs), embed(one, blobs))


def test_training_goes_on_from_a_model(blobs, trained):
    frozen = _train(
        NET, blobs, start=trained.model, stages=(Stage(frozen=NET.build().layers[:2]),)
    )
    for name in ("conv1", "fc2"):
        _equal(frozen.model.params[name], trained.model.params[name])
        _equal(frozen.model.state[name], trained.model.state[name])
    for name in ("fc3",):
        assert _differ(frozen.model.params[name], trained.model.params[name])
        assert _differ(frozen.model.state[name], trained.model.state[name])
    # The model that training starts from is left as it is.
    copy = jax.tree.map(np.array, trained.model.params)
    _train(NET, blobs, start=trained.model, seed=9)
    _equal(copy, trained.model.params)
    # The seed draws no new parameters: it only numbers the episodes.
    fresh = _train(NET, blobs, seed=5)
    again = _train(NET, blobs, seed=5, start=trained.model)
    assert _differ(fresh.model.params, again.model.params)


def test_preprocessing_and_head_of_the_start(blobs, trained):
    pixels = Pixels(np.float32(10), np.float32(100))
    head = heads.linear_head(jax.random.key(0), 4, 3)
    start = dataclasses.replace(trained.model, pixels=pixels, head=head)
    kept = _train(NET, blobs, start=start, num_steps=1).model
    assert kept.pixels == pixels and kept.head is None
    given = _train(NET, blobs, start=start, pixels=Pixels(), num_steps=1).model
    assert given.pixels == Pixels()
    assert _differ(kept.params, given.params)


def test_layers_are_unfrozen_stage_by_stage(blobs, trained, tmp_path):
    stages = (Stage(("conv1", "fc2"), until=2), Stage(("conv1",), until=4), Stage())
    options = {"start": trained.model, "stages": stages}
    ends = [
        _train(NET, blobs, start=trained.model, stages=stages[:i], **how).model
        for i, how in ((1, {}), (2, {}), (3, {"workdir": tmp_path}))
    ]
    counts = [model.about["steps"] for model in ends]
    assert counts == [2, 4, 6]
    start = trained.model
    for name, since in (("conv1", 2), ("fc2", 1), ("fc3", 0)):
        for i, model in enumerate(ends):
            assert _differ(model.params[name], start.params[name]) == (i >= since)
    # A run that ended goes on from its last stage and gives the same model.
    again = _train(NET, blobs, workdir=tmp_path, **options)
    _equal(again.model.params, ends[-1].params)
    _equal(again.model.state, ends[-1].state)


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_a_training_in_stages_that_died_ends_bit_identical(
    blobs, trained, tmp_path, monkeypatch, killed_at
):
    stages = (Stage(("conv1", "fc2"), until=2), Stage(("conv1",), until=4), Stage())
    options = {
        "start": trained.model,
        "stages": stages,
        "options": dataclasses.replace(QUIET, save_every=1),
    }
    whole = _train(NET, blobs, **options)
    real = jaxfer.runlog.RunLog.train

    def dying(self, step, metrics):
        if step == killed_at:
            raise MemoryError("killed")
        return real(self, step, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(jaxfer.runlog.RunLog, "train", dying)
        with pytest.raises(MemoryError):
            _train(NET, blobs, workdir=tmp_path, **options)
    again = _train(NET, blobs, workdir=tmp_path, **options)
    _equal(again.model.params, whole.model.params)
    _equal(again.model.state, whole.model.state)


def test_what_cannot_be_trained_is_refused(blobs, trained):
    with pytest.raises(ValueError, match=r"layers among \['conv1', .*got \['conv9'\]"):
        _train(NET, blobs, stages=(Stage(("conv9",)),))
    with pytest.raises(ValueError, match="multiple of the 2 devices, got 3"):
        recipe = dataclasses.replace(RECIPE, batch=3)
        _train(NET, blobs, recipe, mesh=sharding.make_mesh(2))
    with pytest.raises(ValueError, match="one stage with select, got 2"):
        stages = (Stage(("conv1",), until=2), Stage())
        _train(NET, blobs, stages=stages, select=Best(every=1, patience=1))
    with pytest.raises(ValueError, match="shot . n_query = 14 images, got 12 in class"):
        train_episodes(NET, blobs, EpisodeShape(4, 2, 12), RECIPE, seed=0)
    with pytest.raises(ValueError, match="way = 31 classes, got 30"):
        train_episodes(NET, blobs, EpisodeShape(31, 2, 3), RECIPE, seed=0)
    # A class with few images is padded in the table: it must not lend them twice.
    few = blobs.take(np.arange(5, len(blobs.labels)), name="few")
    shape = EpisodeShape(4, 2, 6)
    for images in (few, embed_classes(trained.model, few)):
        with pytest.raises(ValueError, match="8 images, got 7 in class '(blob00|0)'"):
            measure_episodes(
                trained.model, images, shape, seed=0, split="test", episodes=1
            )


def test_the_best_model_is_returned(blobs):
    """Each evaluation sees the model so far; the lowest loss wins."""
    losses, seen = [3.0, 1.0, 2.0, 2.0], []

    def evaluate(model):
        seen.append(jax.device_get(model.params))
        return {"val/loss": losses[len(seen) - 1]}

    ended = _train(NET, blobs, evaluate=evaluate, select=Best(every=1, patience=1))
    assert (ended.steps, ended.best_step, len(seen)) == (4, 2, 4)
    assert ended.model.about["steps"] == 2
    _equal(ended.model.params, seen[1])


def _squashed(temperature):
    """Prototypes after a trained projection, with a trained temperature."""

    def init(key, dim):
        projection = jax.random.normal(key, (dim, 3)) / dim**0.5
        return {"project": projection, "temperature": jnp.float32(temperature)}

    def logits(params, episode):
        support, query = (z @ params["project"] for z in episode[:2])
        sums = heads.support_sums(support)
        return params["temperature"] * heads.head_logits(
            heads.prototype_head(sums), query
        )

    return Method("squashed", logits, init)


def test_a_method_trains_its_own_parameters(blobs, trained, tmp_path):
    method = _squashed(0.5)
    ended = _train(NET, blobs, method=method)
    found = ended.model.params["method"]
    drawn = _train(
        NET, blobs, method=method, recipe=Recipe(Optim("sgd", 1e-12), episodes=1)
    ).model.params
    assert found["project"].shape == (8, 3)
    assert float(drawn["method"]["temperature"]) == pytest.approx(0.5)
    assert _differ(found["project"], drawn["method"]["project"])
    assert float(found["temperature"]) != 0.5
    # They go to the disk with the model, and are used in measurements.
    path = jaxfer.save_model(tmp_path, ended.model)
    loaded = jaxfer.load_model(path, NET)
    _equal(loaded.params["method"], found)
    measured = {"seed": 1, "split": "test", "episodes": 5, "method": method}
    one, other = (
        measure_episodes(model, blobs, SHAPE, **measured)
        for model in (ended.model, loaded)
    )
    _equal(one, other)
    silent = {**found, "temperature": jnp.float32(0)}
    model = dataclasses.replace(
        ended.model, params={**ended.model.params, "method": silent}
    )
    blind = measure_episodes(model, blobs, SHAPE, **measured)
    np.testing.assert_allclose(blind["loss"], np.log(4), rtol=1e-6)
    # A later training starts from them; frozen layers stay, the method trains on.
    stages = (Stage(NET.build().layers),)
    later = _train(NET, blobs, method=method, start=loaded, stages=stages).model
    _equal(
        {k: later.params[k] for k in NET.build().layers},
        {k: found_ for k, found_ in loaded.params.items() if k != "method"},
    )
    assert _differ(later.params["method"], found)
    # A method without parameters leaves none in the model.
    assert "method" not in _train(NET, blobs, start=loaded, num_steps=1).model.params


@pytest.mark.parametrize("distance", ["sqeuclidean", "cosine"])
def test_a_temperature_divides_the_distances(blobs, trained, rng, distance):
    """Fixed, by dimension, or learned from there; 1 is the default, bit for bit."""
    z = rng.normal(size=(3, 7, 5)).astype(np.float32)
    episode = Episode(z[:, :2], z[:, 2:], np.arange(3))
    plain = prototypes(distance).logits({}, episode)
    prototype = z[:, :2].mean(axis=1)
    for way, query in np.ndindex(3, 5):
        x = z[way, 2 + query]
        d = ((x - prototype) ** 2).sum(axis=1)
        if distance == "cosine":
            d = -(prototype @ x) / np.linalg.norm(prototype, axis=1) / np.linalg.norm(x)
        found = np.asarray(plain[way, query])
        np.testing.assert_allclose(found[0] - found, d - d[0], atol=1e-5)
    one = prototypes(distance, temperature=1.0)
    np.testing.assert_array_equal(one.logits({}, episode), plain)
    for temperature, divisor in ((4.0, 4), (0.1, 0.1), ("sqrt_dim", 5**0.5)):
        method = prototypes(distance, temperature=temperature)
        assert method.init(jax.random.key(0), 5) == {}
        logits = method.logits({}, episode)
        np.testing.assert_allclose(logits, plain / divisor, rtol=1e-5, atol=1e-6)
        method = prototypes(distance, temperature=temperature, learn_temperature=True)
        params = method.init(jax.random.key(0), 5)
        learned = method.logits(params, episode)
        np.testing.assert_allclose(learned, logits, rtol=1e-5, atol=1e-6)
        twice = method.logits(
            {"log_temperature": params["log_temperature"] * 2}, episode
        )
        np.testing.assert_allclose(twice, plain / divisor**2, rtol=1e-5, atol=1e-5)
        # A model that never learned one is measured with the first.
        np.testing.assert_array_equal(method.logits({}, episode), logits)
    for bad in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(
            ValueError, match="'sqrt_dim' or a finite number above 0, got"
        ):
            prototypes(distance, temperature=bad)
        with pytest.raises(
            ValueError, match="'sqrt_dim' or a finite number above 0, got"
        ):
            with_prototypes(trained.model, blobs, temperature=bad)


def test_a_learned_temperature_stays_with_the_model(blobs, tmp_path):
    """It trains, is measured with, and divides the distances of later prototypes."""
    method = prototypes(temperature="sqrt_dim", learn_temperature=True)
    model = _train(NET, blobs, method=method).model
    learned = float(np.exp(model.params["method"]["log_temperature"]))
    assert learned != pytest.approx(8**0.5, rel=1e-4) and 1 < learned < 4
    loaded = jaxfer.load_model(jaxfer.save_model(tmp_path, model), NET)
    few = blobs.take(np.arange(36), name="few").take_classes(
        blobs.class_names[:3], name="few"
    )
    heads_ = [
        with_prototypes(loaded, few, temperature=temperature).head
        for temperature in (None, learned, "sqrt_dim", 1.0)
    ]
    scales = [float(head.scale) for head in heads_]
    assert scales == pytest.approx(
        [1 / learned, 1 / learned, 1 / 8**0.5, 1.0], rel=1e-5
    )
    # A model without a learned one is divided by 1.
    plain = _train(NET, blobs, num_steps=1).model
    assert float(with_prototypes(plain, few).head.scale) == 1.0
    params = {"method": {"log_temperature": np.float32(np.log(9.0))}}
    pixels = jaxfer.Model(Flatten().build(), params, {})
    measured = {"seed": 1, "split": "test", "episodes": 3}
    one, other, third = (
        measure_episodes(pixels, blobs, SHAPE, method=m, **measured)["loss"]
        for m in (method, prototypes(temperature=9.0), prototypes(temperature=3.0))
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert np.abs(one - third).min() > 1e-3


def test_cropped_images_train_and_test_alike_resident_or_streamed(blobs):
    """Training takes random windows, tests the centre; both feeds give equal bits."""
    pytest.importorskip("grain")
    recipe = Recipe(SGD, episodes=3, augment=Crop(shift=1, mirror=True, side=12))
    resident, streamed = (
        _train(Linen(), blobs, recipe, options=dataclasses.replace(QUIET, limit=limit))
        for limit in (4.0, 0.0)
    )
    _equal(resident.model.params, streamed.model.params)
    model = resident.model
    assert model.pixels.window == 12
    assert model.params["first"]["kernel"].shape == (9, 8)
    centre = blobs.images[:5, 2:14, 2:14]
    np.testing.assert_allclose(
        embed(model, blobs.images[:5]),
        embed(dataclasses.replace(model, pixels=Pixels(), about={}), centre),
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="side from 1 to 16 for images of 16x16, got"):
        _train(Tiny(), blobs, Recipe(SGD, episodes=3, augment=Crop(side=17)))


@pytest.mark.parametrize("schedule", ["constant", "staircase"])
def test_a_longer_training_goes_on_from_a_finished_one(blobs, tmp_path, schedule):
    """The same call with more episodes: the same bits as without the break."""
    optim = dataclasses.replace(SGD, schedule=schedule, decay_every=4)
    short, long = (Recipe(optim, episodes=n) for n in (3, 6))
    _train(NET, blobs, short, workdir=tmp_path)
    ended = _train(NET, blobs, long, workdir=tmp_path)
    whole = _train(NET, blobs, long, workdir=tmp_path / "whole")
    assert (ended.steps, ended.model.about["steps"]) == (6, 6)
    _equal(ended.model.params, whole.model.params)
    _equal(ended.model.state, whole.model.state)
    lines = [
        [{**line, "wall_s": 0} for line in read_metrics(folder)]
        for folder in (tmp_path, tmp_path / "whole")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 6
    with pytest.raises(ValueError, match="at least 6 steps, which are done, got 3"):
        _train(NET, blobs, short, workdir=tmp_path)


@pytest.mark.parametrize("change", [{"schedule": "cosine"}, {"warmup": 0.5}])
def test_a_schedule_by_length_does_not_go_on(blobs, tmp_path, change):
    optim = dataclasses.replace(SGD, **change)
    _train(NET, blobs, Recipe(optim, episodes=3), workdir=tmp_path)
    with pytest.raises(ValueError, match="expected 3 steps of train as before, since"):
        _train(NET, blobs, Recipe(optim, episodes=6), workdir=tmp_path)
    # The folder still resumes the training it was made by.
    assert _train(NET, blobs, Recipe(optim, episodes=3), workdir=tmp_path).steps == 3


def test_any_optax_transformation_trains(blobs):
    ends = [
        _train(NET, blobs, Recipe(optimizer, episodes=3)).model.params
        for optimizer in (Optim("sgd", 0.1, momentum=0.0), optax.sgd(0.1))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *ends)


def test_measuring_equals_a_slow_loop(blobs, trained):
    """Loss and accuracy of each episode, by NumPy and one episode at a time."""
    found = measure_episodes(
        trained.model, blobs, SHAPE, seed=3, split="test", episodes=7, block=3
    )
    assert set(found) == {"loss", "accuracy"}
    z = np.asarray(embed(trained.model, blobs), np.float64)
    for number in range(7):
        rows = jaxfer.numbered_episode(
            table_of(blobs), 3, "test", number, way=4, shot=2, n_query=3
        )
        support, query = (z[np.asarray(x)] for x in rows[:2])
        prototypes = support.mean(axis=1)
        total, right = 0.0, 0
        for k in range(4):
            for q in range(3):
                d = ((prototypes - query[k, q]) ** 2).sum(axis=1)
                total += d[k] + np.log(np.exp(-d).sum())
                right += int(d.argmin() == k)
        assert found["loss"][number] == pytest.approx(total / 12, rel=1e-4, abs=1e-6)
        assert found["accuracy"][number] == pytest.approx(right / 12)


def test_many_episodes_at_once_equal_one_at_a_time(blobs, trained):
    options = {"seed": 3, "split": "test"}
    whole = measure_episodes(trained.model, blobs, SHAPE, episodes=9, **options)
    for block in (1, 4):
        found = measure_episodes(
            trained.model, blobs, SHAPE, episodes=9, block=block, **options
        )
        for name, values in whole.items():
            assert found[name].shape == (9,)
            np.testing.assert_allclose(found[name], values, rtol=1e-6)
    later = measure_episodes(
        trained.model, blobs, SHAPE, episodes=4, first=5, **options
    )
    np.testing.assert_allclose(later["loss"], whole["loss"][5:], rtol=1e-6)
    other = measure_episodes(
        trained.model, blobs, SHAPE, episodes=9, seed=3, split="val"
    )
    assert _differ(other, whole)


def test_measuring_uses_running_statistics(blobs, trained):
    """An episode's loss does not depend on the other images of the data set."""
    found = measure_episodes(
        trained.model, blobs, SHAPE, seed=3, split="test", episodes=1
    )
    rows = jaxfer.numbered_episode(
        table_of(blobs), 3, "test", 0, way=4, shot=2, n_query=3
    )
    used = np.concatenate([np.asarray(x).ravel() for x in rows[:2]])
    images = blobs.images.copy()
    images[np.setdiff1d(np.arange(len(images)), used)] = 255
    changed = measure_episodes(
        trained.model,
        dataclasses.replace(blobs, images=images),
        SHAPE,
        seed=3,
        split="test",
        episodes=1,
    )
    _equal(found, changed)


def test_prototypes_keep_the_distance_and_temperature_of_the_training(blobs):
    net, recipe = Flatten(dim=4), Recipe(Optim("adam", 0.02), episodes=2)
    kinds = [prototypes("cosine", temperature=0.5), prototypes(temperature="sqrt_dim")]
    models = [_train(net, blobs, recipe, method=kind).model for kind in kinds]
    heads = [with_prototypes(model, blobs).head for model in models]
    assert [head.unit for head in heads] == [True, False]
    np.testing.assert_allclose([head.scale for head in heads], [2.0, 0.5])
    # What is asked for is used.
    plain = with_prototypes(models[0], blobs, distance="sqeuclidean", temperature=1.0)
    assert not plain.head.unit and plain.head.scale == 1


def test_images_of_another_size_are_refused_by_models_of_episodes(blobs):
    model = _train(Conv4(width=4), blobs, Recipe(Optim("adam", 0.02), episodes=1)).model
    message = "16x16 pixels as the model was trained on, .* load them with side = 16"
    with pytest.raises(ValueError, match=message):
        embed(model, np.zeros((2, 17, 17, 1), np.uint8))
    size = num_params(Conv4(width=4), (16, 16, 1))
    assert repr(model) == f"Model(Conv4: {size:,} parameters, no head)"
