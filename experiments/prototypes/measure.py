"""Test of prototypical networks, and the episode that figures show."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm.auto import tqdm

from experiments.prototypes.classifiers import (
    centred,
    method,
    others,
    transductive_name,
)
from experiments.prototypes.config import Config, Evaluation
from jaxfer import distributed, methods, models, steps
from jaxfer.data import Images, Resident
from jaxfer.data.feed import episode_feed, one_episode, take_episode
from jaxfer.models import EpisodeShape, Model
from jaxfer.types import EVAL, Episode, Mode

# The file of the episode that figures show.
EXAMPLE = "example.npz"


def evaluate(
    config: Config,
    model: Model,
    embedded: Resident,
    images: Resident | Images,
    train: Images,
) -> dict[str, np.ndarray]:
    """Return per-episode accuracies in percent, for every way, shot and method.

    Args:
        config: the config of the run.
        model: the trained model.
        embedded: the embeddings of the test images.
        images: the test images.
        train: the training images, for methods that need their mean embedding.
    """
    split, test, accuracies = config.data.test, config.test, {}
    classify = method(config)

    def transductive(episode: Episode) -> Array:
        seen, mode = seen_by(model, episode, images), Mode("batch", dropout=False)
        together, _ = models.embed_together(
            model.net, model.params, model.state, seen, mode
        )
        return classify.logits(model.params.get("method", {}), together)

    baselines = {"pixel_nearest_neighbour": pixel_logits}
    if test.transductive:
        baselines[transductive_name(config)] = transductive
    rivals = others(config)
    known: dict[str, Resident | Images] = {
        name: images if other.needs_images else embedded
        for name, other in rivals.items()
    }
    if "simpleshot" in known:
        known["simpleshot"] = centred(embedded, model, train)
    settings = [*itertools.product(test.ways, test.shots)]
    for way, shot in tqdm(
        settings, "testing", unit="setting", disable=distributed.index() > 0
    ):
        shape = test_shape(test, way, shot)
        measure = partial(
            models.measure_episodes,
            model,
            shape=shape,
            seed=config.seed,
            split=split,
            episodes=test.episodes,
        )
        items = images if classify.needs_images else embedded
        measured = {config.method: measure(items, method=classify)}
        for name, other in rivals.items():
            measured[name] = measure(known[name], method=other)
        for name, logits in baselines.items():
            measured[name] = _on_images(config, images, shape, logits)
        for name, found in measured.items():
            place = f"{split}/{way}way_{shot}shot/{name}/accuracy"
            accuracies[place] = 100 * found["accuracy"]
    return accuracies


def _on_images(
    config: Config,
    images: Resident | Images,
    shape: EpisodeShape,
    logits: Callable[[Episode], Array],
) -> dict[str, np.ndarray]:
    """Measure a classifier of images, not of embeddings, on the test episodes."""
    seed, split, sizes = config.seed, config.data.test, shape.sizes()
    # A small block: whole episodes of pixels or activations take much memory.
    block = 10
    feed = episode_feed(
        images, seed, split, **sizes, per_step=block, workers=config.run.workers
    )
    return steps.evaluate_episodes(
        steps.make_episode_eval(
            lambda data, number: take_episode(data, seed, split, number, **sizes),
            logits,
        ),
        feed,
        episodes=config.test.episodes,
        block=block,
    )


def test_shape(test: Evaluation, way: int, shot: int) -> EpisodeShape:
    """Return the shape of test episodes of a way and a shot."""
    return EpisodeShape(way, shot, test.query, least_shot=test.least_shot)


def example(
    config: Config, model: Model, embedded: Resident, images: Resident | Images
) -> dict[str, np.ndarray]:
    """Return the first test episode of the fewest ways and shots, for figures.

    Returns:
        The "classes"; images of "support" and "query" as uint8; their embeddings
        "support_z" and "query_z"; and "predicted" `[way, n_query]`, from 0 to way - 1.
    """
    test, split = config.test, config.data.test
    shape = test_shape(test, min(test.ways), min(test.shots)).sizes()
    seen, known = (
        one_episode(data, config.seed, split, 0, **shape) for data in (images, embedded)
    )
    classify, params = method(config), model.params.get("method", {})
    state, given = model.state, seen_by(model, seen, images)
    if classify.adaptation is not None:
        logits, _ = models.adapted_logits(
            model.net, model.params, state, given, classify
        )
    else:
        if classify.separate:
            known, _ = models.embed_together(
                model.net, model.params, state, given, EVAL
            )
        logits = classify.logits(params, known)
    arrays: dict[str, Any] = {
        "classes": known.classes,
        "predicted": logits.argmax(-1),
    }
    for name in ("support", "query"):
        arrays[name] = np.rint(255 * np.asarray(getattr(seen, name))).astype(np.uint8)
        arrays[f"{name}_z"] = np.asarray(getattr(known, name), np.float32)
    return {name: np.asarray(array) for name, array in arrays.items()}


def seen_by(model: Model, episode: Episode, images: Resident | Images) -> Episode:
    """Return an episode of stored images as the input of a model in tests.

    Args:
        model: the model, with its preprocessing and its window.
        episode: the episode; pixels are floats from 0 to 1.
        images: the data it was sampled from.
    """
    stored = images.items if isinstance(images, Resident) else images.images
    scale = 255 if stored.dtype == np.uint8 else 1
    support, query = (scale * jnp.asarray(x) for x in episode[:2])
    episode = episode._replace(support=support, query=query)
    return models.centred_window(model.pixels, episode)


def pixel_logits(episode: Episode) -> Array:
    """Return logits by the nearest support image in pixels, the simplest baseline."""
    support, query = (
        jnp.asarray(x).reshape(*x.shape[:2], -1)
        for x in (episode.support, episode.query)
    )
    return methods.nearest().logits({}, episode._replace(support=support, query=query))
