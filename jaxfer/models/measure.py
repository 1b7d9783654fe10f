"""Measure models on numbered episodes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxfer import distributed, losses, steps
from jaxfer.compilation import jit
from jaxfer.data import Images, Resident, resident
from jaxfer.data.feed import take_episode
from jaxfer.data.flat import FlatItems
from jaxfer.data.resident import table_of
from jaxfer.episodes import check_episode, gather, numbered_episode
from jaxfer.memo import memoised
from jaxfer.methods import Method, prototypes
from jaxfer.models.episode_step import EpisodeShape, centred_window
from jaxfer.models.inference import block_of, embed
from jaxfer.models.model import (
    Model,
    Pixels,
    check_images,
    items_of,
    support_encoder,
)
from jaxfer.models.passes import adapted_logits
from jaxfer.types import AnyArray, Net, Params, State

# Most episodes per call of a method that adapts the network.
_ADAPTED = 8


def measure_episodes(
    model: Model,
    images: Images | Resident,
    shape: EpisodeShape,
    *,
    seed: int,
    split: str,
    episodes: int,
    first: int = 0,
    method: Method | None = None,
    block: int = 100,
) -> dict[str, np.ndarray]:
    """Loss and accuracy of a model on numbered episodes.

    The images are embedded once, with running statistics, and episodes are sampled from
    the embeddings: the same episodes for every model and method. A method that adapts
    the network, such as MAML, embeds the images of each episode. With an encoder for
    support examples, all images are embedded by both encoders. The processes of a run
    call it together, and share the images and the episodes.

    Args:
        model: the model that embeds.
        images: the labelled images, or their embeddings, made by `embed_classes`.
        shape: the shape of the episodes.
        seed: the seed of the episodes.
        split: the name of the split.
        episodes: the number of episodes.
        first: the number of the first episode.
        method: the classifier; default: prototypes.
        block: episodes per call.

    Returns:
        The "loss" in nats and the "accuracy" from 0 to 1 of each episode.

    Example:
        >>> from jaxfer.data import from_arrays
        >>> from jaxfer.nets import Flatten
        >>> pixels = np.repeat(np.arange(3) / 2, 16 * 4).reshape(12, 4, 4)
        >>> images = from_arrays(pixels, np.repeat(np.arange(3), 4))
        >>> shape = EpisodeShape(way=3, shot=1, n_query=2)
        >>> model = Model(Flatten().build(), {}, {})
        >>> measure_episodes(
        ...     model, images, shape, seed=0, split="test", episodes=2
        ... )["accuracy"].tolist()
        [1.0, 1.0]

    Raises:
        ValueError: images that cannot give such episodes.
    """
    method = method or prototypes()
    if method.needs_images:
        _check_own(model, method)
        embedded = resident(images) if isinstance(images, Images) else images
        if embedded.items.ndim != 4:
            raise ValueError(
                f"expected images [n, height, width, channels] for the method "
                f"{method.name!r}, got embeddings of shape {embedded.items.shape}"
            )
        check_images(model, embedded.items)
        block = min(block, _ADAPTED) if method.adaptation else block
        if method.separate:
            embedded = embedded._replace(items=_by_both(model, embedded.items))
    elif isinstance(images, Resident):
        embedded = images
    else:
        embedded = embed_classes(model, images)
    if isinstance(images, Images):
        names = images.class_names
    else:
        names = [str(number) for number in range(len(embedded.table.counts))]
    shape.check(method, len(names))
    check_episode(jax.device_get(embedded.table), names, **shape.sizes())
    shape = shape._replace(cyclic=False)
    if method.adaptation is not None:
        measure_block = _measure_adapted(model.net, method, shape, seed, split)
        arguments: Any = model.params, model.state, model.pixels
        embedded = jax.tree.map(jnp.asarray, embedded)
    else:
        measure_block = _measure(method, shape, seed, split)
        arguments = (model.params.get("method", {}),)
    return steps.evaluate_episodes(
        lambda data, numbers: measure_block(*arguments, data, numbers),
        embedded,
        episodes=episodes,
        first=first,
        block=block,
    )


def embed_classes(model: Model, images: Images) -> Resident:
    """The embeddings of labelled images, to sample episodes from.

    Several processes call it together. Each embeds its share of the images.

    Args:
        model: the model that embeds.
        images: labelled images, in memory or as a view.
    """
    if (processes := distributed.count()) == 1:
        z = embed(model, images)
    else:
        # The same blocks as in one process, so that the results are the same bits.
        n, items = len(images.labels), items_of(images)
        block = block_of(n, items)
        each = -(-n // (block * processes)) * block
        rows = np.resize(np.arange(n), each * processes)
        mine = rows[distributed.index() * each :][:each]
        z = embed(model, images, rows=mine, block=block)
        z = jnp.asarray(distributed.gather_rows(np.asarray(z))[:n])
    return Resident(z.reshape(len(z), -1), jax.tree.map(jnp.asarray, table_of(images)))


def _check_own(model: Model, method: Method) -> None:
    """Refuse a model without the parameters that a method needs beside the network's.

    Raises:
        ValueError: a model that was trained with another method.
    """
    learned = method.adaptation is not None and method.adaptation.rate is None
    for needed, name, what in (
        (method.separate, "support", "an encoder for support examples"),
        (learned, "method", "a learned rate of adaptation"),
    ):
        if needed and name not in model.params:
            raise ValueError(
                f"expected a model that was trained with {what} for the method "
                f"{method.name!r}, got one without"
            )


def _by_both(model: Model, images: AnyArray | FlatItems) -> Array:
    """Embeddings as queries and as support examples, `[n, 2 dim]`."""
    encoders = model, support_encoder(model)
    both = [embed(one, images).reshape(len(images), -1) for one in encoders]
    return jnp.concatenate(both, axis=1)


@memoised(64)
def _measure_adapted(
    net: Net, method: Method, shape: EpisodeShape, seed: int, split: str
) -> Any:
    def one(
        params: Params, state: State, pixels: Pixels, data: Resident, number: Array
    ) -> dict[str, Array]:
        rows = numbered_episode(data.table, seed, split, number, **shape.sizes())
        episode = centred_window(pixels, gather(data.items, rows))
        logits, _ = adapted_logits(net, params, state, episode, method)
        return _measured(logits)

    return jit(jax.vmap(one, in_axes=(None, None, None, None, 0)))


def _measured(logits: Array) -> dict[str, Array]:
    return {
        "loss": losses.episode_nll(logits),
        "accuracy": losses.episode_accuracy(logits),
    }


@memoised(64)
def _measure(method: Method, shape: EpisodeShape, seed: int, split: str) -> Any:
    def one(params: Params, data: Resident, number: Array) -> dict[str, Array]:
        episode = take_episode(data, seed, split, number, **shape.sizes())
        if method.separate:
            dim = episode.query.shape[-1] // 2
            support, query = episode.support[..., dim:], episode.query[..., :dim]
            episode = episode._replace(support=support, query=query)
        return _measured(method.logits(params, episode))

    return jit(jax.vmap(one, in_axes=(None, None, 0)))
