"""The training step of a config, lowered for devices that need not exist here.

Rules for learning rates and weight decay, which cost nothing, are left out.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.imprinting.config import Config as Imprinting
from experiments.layer_transfer.config import Config as LayerTransfer
from experiments.prototypes import train as episodes
from experiments.prototypes.classifiers import method
from experiments.prototypes.config import Config as Prototypes
from jaxfer import heads, models, nets, sharding
from jaxfer.data.flat import FlatItems, padding
from jaxfer.data.resident import Resident
from jaxfer.episodes import ClassTable
from jaxfer.keys import key_of
from jaxfer.models import Model, Pixels, Recipe
from jaxfer.models.batch_state import stacked_state, state_shardings
from jaxfer.models.episode_step import EpisodeProgram, make_episode_step
from jaxfer.models.episodic import first_model, first_state
from jaxfer.models.programs import Program, Task, make_step
from jaxfer.types import Episode


class Facts(NamedTuple):
    """The size of a data set: its training classes, images of each, and their shape."""

    classes: int
    per_class: int
    shape: tuple[int, int, int]

    @property
    def n(self) -> int:
        """The number of images."""
        return self.classes * self.per_class


# By data set and part; the parts of others have to be given.
FACTS: Mapping[tuple[str, str], Facts] = {
    ("omniglot", "train"): Facts(4112, 20, (28, 28, 1)),
    ("omniglot", "trainval"): Facts(4800, 20, (28, 28, 1)),
    ("miniimagenet", "train"): Facts(64, 600, (84, 84, 3)),
    ("cifar_fs", "train"): Facts(64, 600, (32, 32, 3)),
    ("fc100", "train"): Facts(60, 600, (32, 32, 3)),
    ("cifar100", "train"): Facts(100, 450, (32, 32, 3)),
    ("cifar100", "trainval"): Facts(100, 500, (32, 32, 3)),
}


class Lowered(NamedTuple):
    """A step that is ready to be compiled.

    Attributes:
        program: JAX's lowered program.
        arguments: the shapes of the state and of the data that it takes.
        unit: what it trains on: "episode" or "image".
        per_step: how many of them per step, over all chips.
        num_steps: the steps of the whole training.
    """

    program: Any
    arguments: tuple[Any, Any]
    unit: str
    per_step: int
    num_steps: int


def facts_of(config: Any) -> Facts:
    """Return the size of the training data of a config.

    Raises:
        ValueError: a data set whose size is not known here.
    """
    data = config.data
    found = FACTS.get((data.name, data.train))
    if found is None:
        raise ValueError(
            f"expected --classes, --per-class and --image for {data.name} "
            f"{data.train}: sizes are known of {sorted({name for name, _ in FACTS})}"
        )
    if data.side is not None:
        found = found._replace(shape=(data.side, data.side, found.shape[2]))
    return found


def lower(
    config: Any,
    facts: Facts,
    mesh: Any,
    *,
    platform: str,
    per_chip: int | None = None,
    streamed: bool = False,
    count: int = 1,
) -> Lowered:
    """Lower the training step of a config: episodes, or images for base networks.

    Args:
        config: the config of prototypes, layer_transfer or imprinting.
        facts: the size of the training data.
        mesh: the mesh of devices.
        platform: the platform of the devices.
        per_chip: episodes or images per step and device of "data"; default: the number
            of the config, which each device then has.
        streamed: whether images are passed to each step, in place of a whole data set
            on the devices.
        count: steps per call.

    Raises:
        ValueError: the config of another experiment.
    """
    kinds = {
        Prototypes: _episodes,
        LayerTransfer: _layer_transfer,
        Imprinting: _imprinting,
    }
    if type(config) not in kinds:
        raise ValueError(
            "expected a config of prototypes, layer_transfer or imprinting, got one of "
            f"{type(config).__module__}"
        )
    call = kinds[type(config)]
    return call(config, facts, mesh, platform, per_chip, streamed, count)


def _episodes(
    config: Prototypes,
    facts: Facts,
    mesh: Any,
    platform: str,
    per_chip: int | None,
    streamed: bool,
    count: int,
) -> Lowered:
    if mesh.shape["model"] > 1:
        raise ValueError(
            "expected no chips of 'model' for episodes, which have no head to split, "
            f"got {mesh.shape['model']}"
        )
    size = mesh.shape["data"]
    per_step = size * (per_chip or config.episodes_per_step)
    shape = (*config.crop.window(*facts.shape[:2]), facts.shape[2])
    net = nets.as_net(config.net.build(shape), shape)
    recipe = Recipe(
        config.optim,
        episodes=max(config.episodes, per_step),
        batch=per_step,
        augment=episodes.changes(config),
        batch_norm=config.net.batch_norm or "batch",
    )
    task = episodes.training_shape(config.task)
    program = EpisodeProgram(
        net,
        recipe,
        task,
        method(config),
        config.seed,
        "train",
        mesh=mesh if size > 1 else None,
        platform=platform,
    )
    state = jax.eval_shape(lambda: first_state(program, first_model(program, shape)))
    pixels = recipe.with_window(Pixels())
    whole, parted = sharding.replicated(mesh), sharding.over_data(mesh)
    if streamed:
        sizes = [
            (per_step, task.way, n, *facts.shape) for n in (task.shot, task.n_query)
        ]
        support, query = (_like(size, np.uint8, parted) for size in sizes)
        classes = _like((per_step, task.way), np.int32, parted)
        items: Any = Episode(support, query, classes)
    else:
        table = ClassTable(
            _like((facts.classes, facts.per_class), np.int32, whole),
            _like((facts.classes,), np.int32, whole),
        )
        items = Resident(_stored(facts.n, facts.shape, whole), table)
    arguments = _placed(state, whole), (items, _placed(pixels, whole))
    lowered = make_episode_step(program).lower(*arguments, count=count)
    return Lowered(lowered, arguments, "episode", per_step, program.num_steps)


def _layer_transfer(
    config: LayerTransfer, facts: Facts, mesh: Any, *how: Any
) -> Lowered:
    """Lower the step of a base network of all classes."""
    outputs = config.outputs or facts.classes
    make = lambda key, dim: heads.linear_head(key, dim, outputs)  # noqa: E731
    return _images(config, make, facts, mesh, *how)


def _imprinting(config: Imprinting, facts: Facts, mesh: Any, *how: Any) -> Lowered:
    """Lower the step of a base network with a cosine classifier of all classes."""
    make = lambda key, dim: heads.cosine_head(  # noqa: E731
        key, dim, facts.classes, scale=config.scale
    )
    return _images(config, make, facts, mesh, *how, dim=config.dim)


def _images(
    config: LayerTransfer | Imprinting,
    make_head: Any,
    facts: Facts,
    mesh: Any,
    platform: str,
    per_chip: int | None,
    streamed: bool,
    count: int,
    *,
    dim: int | None = None,
) -> Lowered:
    batch = mesh.shape["data"] * (per_chip or config.batch)
    recipe = Recipe(
        config.optim,
        epochs=config.epochs,
        batch=batch,
        accumulate=config.accumulate,
        augment=config.augment,
        batch_norm=config.net.batch_norm or "batch",
    )
    shape = recipe.input_shape(facts.shape)
    net = nets.as_net(config.net.build(shape, dim=dim), shape)
    n = max(facts.n, batch)
    num_steps, per_epoch = models.steps_of(recipe, n)
    pixels = recipe.with_window(Pixels(np.zeros(facts.shape, np.float32)))

    def head() -> Any:
        return make_head(key_of(0), models.embedding_dim(net, shape))

    def model() -> Model:
        params, state = net.init(key_of(0), shape)
        return Model(net, params, state, head(), pixels)

    program = Program(
        net,
        recipe,
        jax.eval_shape(head).unit,
        n,
        num_steps,
        per_epoch,
        feed="batch" if streamed else "shared",
        mesh=mesh if mesh.size > 1 else None,
        platform=platform,
    )
    state = jax.eval_shape(lambda: stacked_state(program, [model()]))
    shardings = state_shardings(state, mesh)
    state = jax.tree.map(lambda x, at: _like(x.shape, x.dtype, at), state, shardings)
    whole = sharding.replicated(mesh)
    task = jax.eval_shape(
        lambda: Task(
            jnp.zeros((1, n), jnp.int32),
            jnp.zeros((1, n), jnp.int32),
            None,
            jax.tree.map(lambda x: jnp.asarray(x)[None], pixels),
            key_of(0)[None],
        )
    )
    task, images = _placed(task, whole), None
    if streamed:
        rows = sharding.over_data(mesh, axis=1)
        task = task._replace(inputs=_like((1, batch, *facts.shape), np.uint8, rows))
    else:
        images = _stored(n, facts.shape, whole)
    arguments = state, (images, task)
    lowered = make_step(program).lower(*arguments, count=count)
    return Lowered(lowered, arguments, "image", batch, num_steps)


def _like(shape: tuple[int, ...], dtype: Any, at: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=at)


def _stored(n: int, shape: tuple[int, ...], at: Any) -> FlatItems:
    """The shapes of images as they are placed on devices."""
    size = math.prod(shape) + padding(shape)
    return FlatItems(_like((n, size), np.uint8, at), shape)


def _placed(tree: Any, at: Any) -> Any:
    """The shapes of a tree of arrays, on devices."""
    return jax.tree.map(lambda x: _like(jnp.shape(x), jnp.result_type(x), at), tree)
