"""Other classifiers in a run: what is trained, and what is tested beside it."""

import dataclasses
import shutil
from typing import get_args

import jax
import numpy as np
import pytest

import jaxfer
from experiments.inputs import Network
from experiments.prototypes import measure, report, train
from experiments.prototypes import run as prototypes
from experiments.prototypes.classifiers import centred, method, others, trains
from experiments.prototypes.config import (
    Base,
    Config,
    Evaluation,
    Kind,
    Other,
    Task,
    check,
)
from experiments.prototypes.report import tables
from jaxfer import models
from jaxfer.data import Jitter
from jaxfer.models import embed, embed_classes
from jaxfer.sharding import make_mesh
from tests.experiments.tiny import EPISODIC

pytestmark = pytest.mark.usefixtures("small_glyphs")

TINY = dataclasses.replace(
    EPISODIC,
    test=dataclasses.replace(EPISODIC.test, ways=(5,)),
    run=dataclasses.replace(EPISODIC.run, save_every=0),
    figures=False,
)
BASED = dataclasses.replace(
    TINY,
    base=Base(epochs=1, batch=100, head="cosine"),
    test=dataclasses.replace(TINY.test, methods=("simpleshot",)),
)


@pytest.fixture(scope="module")
def based(tmp_path_factory, small_glyphs):
    """The folder and the result of a run with a base classifier."""
    workdir = tmp_path_factory.mktemp("based")
    return workdir, prototypes.run(BASED, workdir)


def test_the_classifiers_of_a_run_see_the_same_episodes(tmp_path):
    slow = ("fine_tuning",)
    every = tuple(x for x in get_args(Other) if x not in ("matching", *slow))
    test = dataclasses.replace(TINY.test, methods=every)
    config = dataclasses.replace(
        TINY,
        test=test,
        method="matching",
        distance="cosine",
        jitter=Jitter(brightness=0.2),
        figures=False,
    )
    result = prototypes.run(config, tmp_path)
    with np.load(tmp_path / "episodes.npz") as file:
        found = {name.split("/")[2]: file[name] for name in file.files}
    assert {*found} == {"pixel_nearest_neighbour", *get_args(Other)} - {*slow}
    # At one shot these are the same classifiers.
    for one, other in (
        ("matching", "prototypes_cosine"),
        ("nearest", "prototypes"),
        ("nearest_cosine", "prototypes_cosine"),
    ):
        np.testing.assert_array_equal(found[one], found[other])
    assert "SimpleShot" in next(iter(tables(result).values()))
    model = jaxfer.load_model(tmp_path)
    assert model.about["method"]["distance"] == "cosine"


@pytest.mark.slow
def test_support_examples_may_have_an_encoder_of_their_own(tmp_path):
    config = dataclasses.replace(TINY, method="matching", separate=True)
    result = prototypes.run(config, tmp_path)
    model = jaxfer.load_model(tmp_path)
    assert {*model.params} == {*model.net.layers, "support"}
    found = result["metrics"]["val/5way_1shot/matching/accuracy"]["mean"]
    images = train.load_splits(config)["val"]
    again = models.measure_episodes(
        model,
        images,
        measure.test_shape(test, 5, 1),
        seed=0,
        split="val",
        episodes=test.episodes,
        method=method(config),
    )["accuracy"]
    assert found == pytest.approx(100 * again.mean(), abs=1e-3)
    with np.load(tmp_path / "example.npz") as file:
        right = (file["predicted"] == np.arange(5)[:, None]).mean()
    assert right == pytest.approx(again[0])


def test_support_sets_may_be_unbalanced(tmp_path):
    test = dataclasses.replace(
        TINY.test,
        shots=(4,),
        query=2,
        least_shot=1,
        methods=("nearest",),
    )
    task = dataclasses.replace(TINY.task, shot=3, least_shot=2)
    config = dataclasses.replace(TINY, task=task, test=test)
    prototypes.run(config, tmp_path)
    with np.load(tmp_path / "episodes.npz") as file:
        found = {name.split("/")[2]: file[name] for name in file.files}
    assert {*found} == {"prototypes", "nearest", "pixel_nearest_neighbour"}
    images = train.load_splits(config)["val"]
    embedded = embed_classes(jaxfer.load_model(tmp_path), images)
    z, shape = np.asarray(embedded.items, np.float64), measure.test_shape(test, 5, 4)
    for k in range(test.episodes):
        rows = jaxfer.numbered_episode(embedded.table, 0, "val", k, **shape.sizes())
        pairs = zip(rows.support, rows.shots, strict=True)
        means = [z[own[:n]].mean(0) for own, n in pairs]
        far = ((z[rows.query][:, :, None] - np.stack(means)) ** 2).sum(-1)
        right = (far.argmin(-1) == np.arange(5)[:, None]).mean()
        assert found["prototypes"][k] == pytest.approx(100 * right, abs=1e-4)
    assert {*np.asarray(rows.shots).tolist()} <= {1, 2, 3, 4}


@pytest.mark.slow
def test_learned_scales_train_with_the_network(tmp_path):
    config = dataclasses.replace(TINY, method="diagonal", figures=True)
    assert trains(config) and not trains(TINY)
    result = prototypes.run(config, tmp_path)
    scales = jaxfer.load_model(tmp_path).params["method"]["log_scales"]
    assert scales.shape == (8,) and np.asarray(scales).any()
    assert "val/5way_1shot/diagonal/accuracy" in result["metrics"]


@pytest.mark.slow
def test_a_network_is_adapted_to_each_episode(tmp_path):
    test = dataclasses.replace(TINY.test, methods=("fine_tuning",))
    net = Network("tests.tiny:Tiny")
    config = dataclasses.replace(TINY, method="maml", test=test, net=net)
    result = prototypes.run(config, tmp_path)
    with np.load(tmp_path / "episodes.npz") as file:
        found = file["val/5way_1shot/maml/accuracy"]
        assert len(file["val/5way_1shot/fine_tuning/accuracy"]) == 6
    assert len(found) == 6 and result["config"]["method"] == "maml"
    model, images = jaxfer.load_model(tmp_path, net.build()), train.load_splits(config)
    again = models.measure_episodes(
        model,
        images["val"],
        models.EpisodeShape(5, 1, 3),
        seed=0,
        split="val",
        episodes=6,
        method=method(config),
    )
    np.testing.assert_allclose(100 * again["accuracy"], found, atol=1e-4)
    # The episode of the figures is the first test episode.
    with np.load(tmp_path / "example.npz") as file:
        right = (file["predicted"] == np.arange(5)[:, None]).mean()
    assert right == pytest.approx(again["accuracy"][0])


def test_simpleshot_embeddings_are_centred_and_of_length_one(blobs):
    net = jaxfer.nets.Conv4(width=4)
    model = jaxfer.init_model(net, (16, 16, 1), jax.random.key(0))
    first = blobs.class_names[:20]
    train = blobs.take_classes(first, name="train")
    test = blobs.take_classes(blobs.class_names[20:], name="test")
    found = centred(embed_classes(model, test), model, train)
    z = np.asarray(embed(model, test)) - np.asarray(embed(model, train)).mean(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(found.items, z, atol=1e-5)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_method_has_a_name_of_its_own(kind):
    config = dataclasses.replace(Config(), method=kind)
    assert method(config).name == kind
    assert kind in report._METHODS and {*get_args(Other)} <= {*report._METHODS}
    assert {*others(_tested(Config(), get_args(Other)))} == {*get_args(Other)}


def _tested(config, names):
    test = dataclasses.replace(config.test, methods=names)
    return dataclasses.replace(config, test=test)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "anil", "distance": "cosine"}, "no distance for method 'anil'"),
        ({"method": "gaussians", "learn_temperature": True}, "no learn_temperature"),
        ({"method": "diagonal", "unit": True}, "no unit for method 'diagonal'"),
        ({"method": "maml", "task": Task(cyclic=True)}, "no task.cyclic for method"),
        ({"separate": True, "task": Task(cyclic=True)}, "no separate with task.cyclic"),
        ({"separate": True, "method": "maml"}, "no separate for method 'maml'"),
        ({"task": Task(least_shot=2)}, "expected task.least_shot from 1 to 1, got 2"),
        ({"task": Task(cyclic=True, least_shot=1)}, "need a balanced support set"),
        (
            {"method": "maml", "task": Task(shot=2, least_shot=1)},
            "need a balanced support set",
        ),
        (
            {"method": "maml", "test": Evaluation(least_shot=1)},
            "need a balanced support set",
        ),
        (
            {"method": "diagonal", "episodes": 0, "base": Base(epochs=1)},
            "whose parameters are trained, got 0",
        ),
    ],
)
def test_options_that_a_method_lacks_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(dataclasses.replace(Config(), **changes))
    with pytest.raises(ValueError, match="without the method that is trained"):
        check(_tested(dataclasses.replace(Config(), method="matching"), ("matching",)))


def test_a_base_of_other_data_is_refused(based):
    images = train.load_splits(BASED)["train"]
    net = jaxfer.nets.as_net(BASED.net.build(), (28, 28, 1))
    other = images.take(np.arange(len(images.labels) - 1), name="other")
    with pytest.raises(ValueError, match="base was trained on other data"):
        train.train_base(BASED, based[0], make_mesh(1), net, other)


def test_episodes_start_from_a_classifier_of_the_training_classes(based, tmp_path):
    workdir, result = based
    steps = result["phases"]["base"]["steps"]
    loaded = train.load_splits(BASED)
    assert steps == len(loaded["train"].labels) // 100
    assert result["phases"]["train"]["steps"] == 6
    base = jaxfer.load_model(workdir / "base")
    assert base.head is None and base.about["steps"] == steps
    shutil.copytree(workdir / "base", tmp_path / "base")
    alone = prototypes.run(
        dataclasses.replace(BASED, episodes=0, figures=True), tmp_path
    )
    assert alone["phases"] == {"base": {"steps": steps}}
    model = jaxfer.load_model(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.params, base.params)


def test_a_run_stopped_in_its_first_episodes_keeps_its_base(
    based, tmp_path, monkeypatch
):
    real, stopped = models.train_episodes, []

    def stop(*args, **how):
        stopped.append(how["start"])
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "train_episodes", stop)
    with pytest.raises(KeyboardInterrupt):
        prototypes.run(BASED, tmp_path / "run")
    monkeypatch.setattr(models, "train_episodes", real)
    monkeypatch.setattr(models, "train_batches", None)
    found = prototypes.run(BASED, tmp_path / "run")
    assert found["metrics"] == based[1]["metrics"]
    base = jaxfer.load_model(tmp_path / "run" / "base")
    (started,) = stopped
    jax.tree.map(np.testing.assert_array_equal, dict(started.params), base.params)


def test_episodes_within_one_alphabet_are_trained_and_tested(tmp_path):
    config = dataclasses.replace(
        TINY,
        task=dataclasses.replace(TINY.task, grouped=True),
        test=dataclasses.replace(TINY.test, grouped=True),
        figures=True,
    )
    loaded = train.load_splits(config)
    assert all(images.grouped for images in loaded.values())
    harder = prototypes.run(config, tmp_path)
    with np.load(tmp_path / measure.EXAMPLE) as file:
        names = [loaded["val"].class_names[i] for i in file["classes"]]
    assert len({name.split("/")[0] for name in names}) == 1
    assert harder["config"]["test.grouped"]
    with pytest.raises(ValueError, match="a group of at least way = 11 .* at most 10"):
        train.load_splits(
            dataclasses.replace(config, task=dataclasses.replace(config.task, way=11))
        )


def test_no_training_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected episodes of at least 1, got 0"):
        prototypes.run(dataclasses.replace(TINY, episodes=0), tmp_path)
