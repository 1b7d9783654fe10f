"""The compiled training step of an episodic method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxfer import losses, optim, sharding, steps
from jaxfer.data import Crop, Resident, centre_crop
from jaxfer.data.augment import Change
from jaxfer.episodes import episode_key, gather, numbered_episode
from jaxfer.keys import stable_draws
from jaxfer.memo import memoised
from jaxfer.methods import Method
from jaxfer.models.model import Pixels, prepare, vary
from jaxfer.models.passes import adapted_logits, embed_together, flat
from jaxfer.models.recipe import Recipe
from jaxfer.types import AnyArray, Episode, Net, Params, State


class EpisodeShape(NamedTuple):
    """The shape of an episode.

    Attributes:
        way: classes per episode.
        shot: support examples per class.
        n_query: queries per class.
        cyclic: whether to average the training loss over all `shot + n_query` cyclic
            shifts of the examples of each class. The images are embedded once, and
            each is a support example in `shot` of the shifts. The paper uses no shifts.
        least_shot: for unbalanced support sets, the fewest support examples of a class;
            see `sample_episode`. None: all classes have `shot` of them.
    """

    way: int
    shot: int
    n_query: int
    cyclic: bool = False
    least_shot: int | None = None

    def sizes(self) -> dict[str, Any]:
        """The arguments of `sample_episode`."""
        return {name: x for name, x in self._asdict().items() if name != "cyclic"}

    def check(self, method: Method, num_classes: int | None = None) -> None:
        """Refuse episodes that a method cannot classify.

        Args:
            method: the method.
            num_classes: the number of classes of the data, if it is known.

        Raises:
            ValueError: too few support examples per class, cyclic shifts or an
                unbalanced support set where they are not defined, or a method for
                another number of classes.
        """
        if num_classes is not None and method.num_classes not in (None, num_classes):
            raise ValueError(
                f"expected data of {method.num_classes} classes, as the attributes of "
                f"the method {method.name!r} describe, got {num_classes}"
            )
        if self.shot < method.least_shot:
            raise ValueError(
                f"expected shot of at least {method.least_shot} for the method "
                f"{method.name!r}, got {self.shot}"
            )
        if self.cyclic and (method.needs_images or not self.shot):
            raise ValueError(
                f"expected no cyclic shifts for the method {method.name!r} with shot = "
                f"{self.shot}, got cyclic = True"
            )
        if self.least_shot is not None and (self.cyclic or method.adaptation):
            other = "cyclic shifts" if self.cyclic else f"the method {method.name!r}"
            raise ValueError(
                f"expected no least_shot for {other}, got {self.least_shot}"
            )


@dataclass(frozen=True)
class EpisodeProgram:
    """Everything that a compiled step on episodes depends on."""

    net: Net
    recipe: Recipe
    shape: EpisodeShape
    method: Method
    seed: int
    split: str
    frozen: tuple[str, ...] = ()
    mesh: Any = None
    platform: str | None = None

    @property
    def per_step(self) -> int:
        """Episodes per step."""
        return self.recipe.batch or 1

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.steps or self.recipe.episodes // self.per_step

    @property
    def length(self) -> dict[str, Any]:
        """The arguments of `optim.make_schedule`, whose units are episodes."""
        return {"num_steps": self.num_steps, "units": (self.per_step, 1)}


@memoised(64)
def make_episode_optimizer(program: EpisodeProgram) -> Any:
    """The optimizer of a program's trainable parameters."""
    return optim.make_optimizer(
        program.recipe.optim,
        **program.length,
        decay=program.recipe.decay,
        rates=program.recipe.rates,
    )


@memoised(64)
def make_episode_step(program: EpisodeProgram) -> steps.CompiledStep:
    """The compiled training step on episodes."""
    return steps.compile_step(
        steps.make_train_step(
            make_episode_loss(program),
            make_episode_optimizer(program),
            schedule=optim.schedule_of(program.recipe.optim, **program.length),
        ),
        platform=program.platform,
    )


def make_episode_loss(program: EpisodeProgram) -> steps.Loss:
    """The mean loss over a step's episodes, on (episodes or resident data, pixels)."""
    net, recipe, shape = program.net, program.recipe, program.shape
    modes = recipe.modes(net, program.frozen)
    per_step = program.per_step

    def one(params: Params, state: State, episode: Episode, pixels: Pixels, k: Array):
        episode = prepared(pixels, episode)
        if recipe.changes:
            episode = varied(pixels, recipe.changes, program.seed, episode, k)
        rng = episode_key(program.seed, "dropout", k) if net.stochastic else None
        method = params.get("method", {})
        if program.method.adaptation is not None:
            both = {**params["net"], "method": method}
            logits, state = adapted_logits(
                net, both, state, episode, program.method, modes, rng=rng
            )
            return losses.episode_nll(logits), (state, losses.episode_accuracy(logits))
        embedded, state = embed_together(
            net, params["net"], state, episode, modes, rng=rng
        )
        if not shape.cyclic:
            value, accuracy = measure(method, embedded)
            return value, (state, accuracy)
        values, accuracies = jax.vmap(lambda e: measure(method, e))(shifted(embedded))
        return values.mean(), (state, accuracies.mean())

    def drawn(places: Array, step: Array, table: Any) -> tuple[Array, Any]:
        """The numbers of some episodes of a step, and the rows of resident data."""
        numbers = step * per_step + places
        if table is None:
            return numbers, ()
        names = program.seed, program.split
        draw = lambda k: numbered_episode(table, *names, k, **shape.sizes())  # noqa: E731
        return numbers, jax.vmap(draw)(numbers)

    def measure(method: Params, embedded: Episode) -> tuple[Array, Array]:
        logits = program.method.logits(method, embedded)
        return losses.episode_nll(logits), losses.episode_accuracy(logits)

    def loss(params: Params, state: State, step: Array, data: tuple[Any, Pixels]):
        items, pixels = data
        table = items.table if isinstance(items, Resident) else None
        numbers, rows = sharding.rows_by_device(
            drawn, per_step, program.mesh, step, table
        )
        read = lambda rows: gather(items.items, rows)  # noqa: E731
        if table is None:
            rows, read = items, lambda episode: episode
        value, (states, accuracy) = jax.vmap(
            lambda rows, k: one(params, state, read(rows), pixels, k)
        )(rows, numbers)
        state = jax.tree.map(lambda x: x.mean(axis=0), states)
        return value.mean(), (state, {"accuracy": accuracy.mean()})

    return loss


def prepared(pixels: Pixels, episode: Episode) -> Episode:
    """An episode with its images preprocessed for the net.

    Args:
        pixels: the preprocessing.
        episode: an episode of images as stored.
    """

    def one(x: AnyArray) -> Array:
        return prepare(pixels, flat(x)).reshape(x.shape)

    return episode._replace(support=one(episode.support), query=one(episode.query))


def centred_window(pixels: Pixels, episode: Episode) -> Episode:
    """An episode as a model sees it in tests: preprocessed, the centre window.

    Args:
        pixels: the preprocessing, with the window.
        episode: an episode of images as stored.
    """
    ready, window = prepared(pixels, episode), Crop(side=pixels.window)
    support, query = (centre_crop(x, window) for x in ready[:2])
    return ready._replace(support=support, query=query)


def varied(
    pixels: Pixels,
    changes: Sequence[Change],
    seed: int,
    episode: Episode,
    number: Array,
) -> Episode:
    """An episode with each image changed at random.

    The changes depend on the seed and the number of the episode only.

    Args:
        pixels: the preprocessing of the images.
        changes: limits of the changes, in order.
        seed: the seed of the episodes.
        episode: the preprocessed images.
        number: the number of the episode.
    """
    key = episode_key(seed, "augment", number)

    def one(part: int, images: AnyArray) -> Array:
        every = flat(images)
        if not len(every):
            return every.reshape(images.shape)
        with stable_draws():
            keys = jax.random.split(jax.random.fold_in(key, part), len(every))
        every = vary(pixels, keys, every, changes)
        return every.reshape(*images.shape[:2], *every.shape[1:])

    support, query = one(0, episode.support), one(1, episode.query)
    return episode._replace(support=support, query=query)


def shifted(episode: Episode) -> Episode:
    """The `shot + n_query` cyclic shifts of an episode.

    Every example is a support example in turn.

    Args:
        episode: an episode of embeddings; the examples of each class are shifted.

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
