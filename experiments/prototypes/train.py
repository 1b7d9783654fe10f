"""Training and test of prototypical networks."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.inputs import load_images
from experiments.prototypes.classifiers import (
    method,
    trains,
)
from experiments.prototypes.config import Config, Task
from experiments.prototypes.measure import test_shape
from jaxfer import distributed, heads, models, nets, sharding
from jaxfer.data import Images, read_images
from jaxfer.data.augment import Change
from jaxfer.data.resident import table_of
from jaxfer.episodes import check_episode
from jaxfer.keys import HEAD, key_of
from jaxfer.models import EpisodeShape, Model, Pixels, Recipe, Trained, steps_of
from jaxfer.stopping import Best
from jaxfer.types import Net


class Run(NamedTuple):
    """The outcome of training.

    Attributes:
        model: the trained embedding.
        phases: steps of each phase.
        trained: the last phase, for its rate and time.
        compilations: number of compilations in all phases.
    """

    model: Model
    phases: dict[str, dict[str, int]]
    trained: Trained
    compilations: int


def load_splits(config: Config) -> dict[str, Images]:
    """Load the parts of a data set, and check that they can give the episodes.

    Raises:
        ValueError: missing data, too few classes or images for the episodes, or
            images that are smaller than the window cut from them.
    """
    data, task, test = config.data, config.task, config.test
    # Each split with the shape of its episodes and the options that determine it.
    training = training_shape(task), "--task.way"
    asked = [
        (data.train, *training),
        (data.val, validation_shape(config), "--val.way"),
        (data.retrain, *training),
        *(
            (data.test, test_shape(test, way, shot), "--test.ways")
            for way, shot in itertools.product(test.ways, test.shots)
        ),
    ]
    asked = [one for one in asked if one[0]]
    splits = list(dict.fromkeys(split for split, *_ in asked))
    loaded = {
        split: dataclasses.replace(
            images,
            grouped=test.grouped if split == data.test else task.grouped,
        )
        for split, images in load_images(data, splits, "class", data.rule()).items()
    }
    tables = {split: table_of(images) for split, images in loaded.items()}
    for split, shape, option in asked:
        names, where = loaded[split].class_names, loaded[split].name
        try:
            check_episode(tables[split], names, where=where, **shape.sizes())
        except ValueError as e:
            counts = (f"{one} has {x.num_classes}" for one, x in loaded.items())
            raise ValueError(
                f"{e} (of the classes, {', '.join(counts)}): change {option} and the "
                "options beside it, or --data.class-shares"
            ) from e
    config.crop.window(*loaded[data.train].images.shape[1:3])
    run = config.run
    return read_images(loaded, limit=run.limit * 1e9, workers=run.workers)


def train(
    config: Config, workdir: Path, mesh: Any, loaded: Mapping[str, Images]
) -> Run:
    """Train from the newest checkpoint or from the start, then retrain if requested."""
    data, task, per_step = config.data, config.task, config.episodes_per_step
    images = loaded[data.train]
    shape = input_shape(config, images)
    net = nets.as_net(config.net.build(shape), shape)
    based = train_base(config, workdir, mesh, net, images)
    if based is not None and not config.episodes:
        model = based.model
        assert model is not None  # noqa: S101
        phases = {"base": {"steps": based.steps}}
        # Its rate is one of images.
        return Run(model, phases, based._replace(rate=None), based.compilations)
    places = ("net", "net/support") if config.separate else ("net",)
    recipe = Recipe(
        config.optim,
        episodes=config.episodes,
        batch=per_step,
        augment=changes(config),
        rates=config.net.rates(net.layers, places) if trains(config) else (),
        batch_norm=config.net.batch_norm or "batch",
    )
    one = partial(
        models.train_episodes,
        net,
        shape=training_shape(task),
        recipe=recipe,
        seed=config.seed,
        method=method(config),
        start=config.net.start(shape) if based is None else based.model,
        mesh=mesh,
    )
    with models.open_run(
        workdir,
        fingerprint=" ".join(loaded[split].fingerprint for split in sorted(loaded)),
        per_step=per_step,
        unit="episode",
        options=config.run,
    ) as run:
        one = partial(one, workdir=run, options=config.run)
        best = None
        if data.val is not None:
            best = Best(config.val.every // per_step, config.val.patience)
            validate = make_validate(config, loaded[data.val])
            first = one(images, evaluate=validate, select=best)
        else:
            first = one(images)
        phases = {"train": {"steps": first.steps, "best_step": first.best_step}}
        last = first
        if best is not None and data.retrain is not None:
            # As in the released code, which counts validations from 0: train for the
            # number of the best validation plus the patience, times best.every.
            best_number = first.best_step // best.every - 1
            last = one(
                loaded[data.retrain],
                phase="retrain",
                num_steps=(best_number + config.val.patience) * best.every,
            )
            phases["retrain"] = {"steps": last.steps}
        model, compilations = last.model, run.compilations
        assert model is not None  # noqa: S101
        if based is not None:
            phases = {"base": {"steps": based.steps}, **phases}
            compilations += based.compilations
            last = last._replace(wall_s=last.wall_s + based.wall_s)
        return Run(model, phases, last, compilations)


def train_base(
    config: Config, workdir: Path, mesh: Any, net: Net, images: Images
) -> Trained | None:
    """Train the classifier of the training classes, or load it if it is finished.

    It lies in the folder `base` of the run, with checkpoints and logs of its own.
    """
    base, place = config.base, workdir / "base"
    if not base.epochs:
        return None
    shape = input_shape(config, images)
    recipe = Recipe(
        base.optim,
        epochs=base.epochs,
        batch=base.batch,
        augment=changes(config),
        rates=config.net.rates(net.layers),
        batch_norm=config.net.batch_norm or "batch",
    )
    if distributed.on_first((place / models.FILE).is_file):
        model = models.load_model(place, net)
        if model.about["data"] != images.fingerprint:
            raise ValueError(
                f"{place} was trained on other data: choose another --workdir"
            )
        done = steps_of(recipe, len(images.labels))[0]
        return Trained(model, done, wall_s=model.about["wall_s"])
    key, several = key_of(config.seed), distributed.count() > 1
    make = {"linear": heads.linear_head, "cosine": heads.cosine_head}[base.head]
    dim = models.embedding_dim(net, shape)
    head_key, classes = jax.random.fold_in(key, HEAD), images.num_classes
    # Its batch may not divide evenly over the devices of one process.
    mesh = mesh if several or not base.batch % mesh.size else None
    trained = models.train_batches(
        net,
        images,
        recipe,
        key=key,
        head=sharding.init_rows(partial(make, head_key, dim, classes), classes, mesh),
        start=config.net.start(shape),
        pixels=None if images.images.dtype == np.uint8 else Pixels(std=np.float32(1)),
        mesh=mesh,
        workdir=place,
        phase="base",
        options=config.run,
    )
    assert trained.model is not None  # noqa: S101
    # Episodes begin without its head, as they do after a resume.
    about = {**trained.model.about, "wall_s": trained.wall_s}
    model = dataclasses.replace(trained.model, head=None, about=about)
    distributed.on_first(lambda: models.save_model(place / models.FILE, model) and None)
    return trained._replace(model=model)


def changes(config: Config) -> tuple[Change, ...]:
    """Return the random changes of training images, in order."""
    return config.augment, config.crop, config.jitter


def input_shape(config: Config, images: Images) -> tuple[int, int, int]:
    """Return the shape of the network's input, `(height, width, channels)`."""
    height, width, channels = images.images.shape[1:]
    return *config.crop.window(height, width), channels


def training_shape(task: Task) -> EpisodeShape:
    """Return the shape of training episodes."""
    least = task.least_shot
    return EpisodeShape(task.way, task.shot, task.query, task.cyclic, least)


def validation_shape(config: Config) -> EpisodeShape:
    """Return the shape of validation episodes: shots as in training."""
    task, val = config.task, config.val
    return EpisodeShape(val.way, task.shot, val.query, least_shot=task.least_shot)


def make_validate(
    config: Config, images: Images
) -> Callable[[Model], dict[str, float]]:
    """Return a function that computes the validation loss and accuracy of a model.

    Each call embeds the classes once, with running statistics, and samples new episodes
    of the embeddings.
    """
    val = config.val
    shape = validation_shape(config)

    def validate(model: Model) -> dict[str, float]:
        number = model.about["steps"] * config.episodes_per_step // val.every - 1
        measured = models.measure_episodes(
            model,
            images,
            shape,
            seed=config.seed,
            split="val",
            episodes=val.episodes,
            first=number * val.episodes,
            method=method(config),
        )
        return {f"val/{name}": float(x.mean()) for name, x in measured.items()}

    return validate
