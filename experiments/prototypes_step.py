"""The training step of prototypical networks: net, rate and loss, from a config."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from experiments.prototypes_config import Config
from jaxfer import heads, losses, nets, sharding, steps
from jaxfer.data import Resident, fetch, floats, random_affine
from jaxfer.episodes import episode_key, numbered_episode
from jaxfer.types import TRAIN, Episode, Net, Params, State


def make_net(config: Config) -> Net:
    """The embedding."""
    return nets.conv4(
        width=config.net.width,
        bn_scale_init=config.net.bn_scale_init,
        dtype=jnp.dtype(config.net.precision),
    )


def learning_rate(config: Config, step: Array) -> Array:
    """The rate of a step, counted from 0: halved at intervals, or along a cosine."""
    optim, per_step = config.optim, config.episodes_per_step
    if optim.schedule == "cosine":
        steps = config.episodes // per_step
        schedule = optax.schedules.warmup_cosine_decay_schedule(
            0.0, optim.learning_rate, optim.warmup, steps
        )
        return jnp.asarray(schedule(step + 1))
    # In whole numbers: a rounded quotient would halve a step early or late.
    every = optim.halve_every
    halvings = step * per_step // every if every else 0 * step
    return optim.learning_rate * 0.5 ** halvings.astype(jnp.float32)


def make_loss(config: Config, net: Net, mesh: Any) -> steps.Loss:
    """The mean loss of a step's episodes, BatchNorm statistics those of each episode.

    Support and query share one pass and so their statistics, as in the released code;
    running statistics are averaged over the episodes.
    """
    per_step, shape = config.episodes_per_step, config.task.shape()

    def of_episode(params: Params, state: State, episode: Episode, number: Array):
        if config.augment:
            episode = moved(config, episode, number)
        embedded, state = embed_together(net, params, state, episode)
        if not config.task.cyclic:
            value, accuracy = measure(embedded)
            return value, (state, accuracy)
        values, accuracies = jax.vmap(measure)(shifted(embedded))
        return values.mean(), (state, accuracies.mean())

    def measure(embedded: Episode) -> tuple[Array, Array]:
        logits = prototype_logits(embedded, config.distance)
        return losses.episode_nll(logits), losses.episode_accuracy(logits)

    def loss(params: Params, state: State, step: Array, data: Resident | Episode):
        def rows(number: Array) -> Episode:
            return numbered_episode(data.table, config.seed, "train", number, **shape)

        numbers = step * per_step + jnp.arange(per_step)
        if isinstance(data, Resident):
            drawn = jax.vmap(rows)(numbers)
            drawn, read = sharding.spread(drawn, mesh), partial(fetch, data)
        else:
            drawn, read = data, floats
        value, (states, accuracy) = jax.vmap(
            lambda one, number: of_episode(params, state, read(one), number)
        )(drawn, numbers)
        state = jax.tree.map(lambda x: x.mean(axis=0), states)
        return value.mean(), (state, {"accuracy": accuracy.mean()})

    return loss


def moved(config: Config, episode: Episode, number: Array) -> Episode:
    """An episode's images, each moved at random: a function of its number alone."""
    keys = jax.random.split(episode_key(config.seed, "augment", number))
    support, query = (
        random_affine(key, images, config.augment)
        for key, images in zip(keys, episode[:2], strict=True)
    )
    return Episode(support, query, episode.classes)


def embed_together(
    net: Net, params: Params, state: State, episode: Episode
) -> tuple[Episode, State]:
    """Support and query in one pass, normalised by the statistics of both."""
    support, query, classes = episode
    both = [x.reshape(-1, *x.shape[2:]) for x in (support, query)]
    z, state = net.apply(params, state, jnp.concatenate(both), mode=TRAIN)
    z_support, z_query = jnp.split(z, [len(both[0])])
    embedded = Episode(
        z_support.reshape(*support.shape[:2], -1),
        z_query.reshape(*query.shape[:2], -1),
        classes,
    )
    return embedded, state


def shifted(episode: Episode) -> Episode:
    """An episode's `shot + n_query` shifts: every example is support in turn.

    Args:
        episode: of embeddings; the examples of each class are shifted in a circle.

    Returns:
        The episodes, with a leading axis.
    """
    shot = episode.support.shape[1]
    examples = jnp.concatenate([episode.support, episode.query], axis=1)
    n = examples.shape[1]
    turns = (jnp.arange(n)[:, None] + jnp.arange(n)[None, :]) % n
    shifts = jnp.moveaxis(examples[:, turns], 1, 0)
    classes = jnp.broadcast_to(episode.classes, (n, *episode.classes.shape))
    return Episode(shifts[:, :, :shot], shifts[:, :, shot:], classes)


def prototype_logits(episode: Episode, distance: heads.Distance) -> Array:
    """Logits `[way, n_query, way]` of embedded queries against prototypes."""
    memory = heads.support_memory(episode.support)
    return heads.head_logits(
        heads.prototype_head(memory, distance=distance), episode.query
    )
