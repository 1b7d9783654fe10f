"""The compiled training step on labelled images, compiled once per specification."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxfer import heads, losses, optim, sharding, steps
from jaxfer.data.sampling import Batch, draw_batch
from jaxfer.episodes import ClassTable
from jaxfer.keys import CROP, DROPOUT, ORDER, stable_draws
from jaxfer.memo import memoised
from jaxfer.models.model import Pixels, prepare, vary
from jaxfer.models.recipe import Recipe
from jaxfer.transfer import ALL_CACHED
from jaxfer.types import Head, Net, Params, State

_MEMOISED = 64


class Task(NamedTuple):
    """The training data of one model; a population has a stack of tasks.

    Attributes:
        rows: `[n]`, the positions of its examples among the images all models share.
        labels: `[n]`, classes from 0.
        table: the positions of each class among the examples.
        pixels: its preprocessing.
        key: the random key of the order of examples, dropout and augmentation.
        inputs: `[n, ...]`, activations of its frozen layers in place of images; or, if
            data are streamed, the items of the batch.
    """

    rows: Array
    labels: Array
    table: ClassTable | None
    pixels: Pixels
    key: Array
    inputs: Array | None = None


@dataclass(frozen=True)
class Program:
    """Everything that a compiled step depends on.

    Attributes:
        net: the backbone.
        recipe: how it trains.
        unit: whether the head normalises; None without a head.
        n: the number of examples per model.
        num_steps: the number of steps of the whole training, for the schedule.
        per_epoch: steps per epoch, for the schedule.
        frozen: names of the layers that do not train.
        first: the layer that training begins at if those before it are cached;
            `transfer.ALL_CACHED` if all of them are cached.
        feed: what a step reads: 'shared' for images that all models share, 'own' for
            the cached activations of each model, 'batch' for one streamed batch.
        members: the number of models that train at once.
        mesh: the devices: one model is data-parallel, several are sharded over them.
        platform: see `steps.compile_step`.
    """

    net: Net
    recipe: Recipe
    unit: bool | None
    n: int
    num_steps: int
    per_epoch: int
    frozen: tuple[str, ...] = ()
    first: str | None = None
    feed: Literal["shared", "own", "batch"] = "shared"
    members: int = 1
    mesh: Any = None
    platform: str | None = None

    @property
    def length(self) -> dict[str, Any]:
        """The arguments of `optim.make_schedule`, whose units are epochs."""
        return {"num_steps": self.num_steps, "units": (1, self.per_epoch)}

    @property
    def batch(self) -> int:
        """Examples per step."""
        return self.recipe.batch or 128


def head_params(head: Head | None, recipe: Recipe) -> Params:
    """The arrays of a head that train under a recipe, as a group of parameters."""
    if head is None:
        return {}
    if recipe.loss == "proxy_nca":
        return {"head": {"weight": head.weight}}
    if head.unit:
        return {"head": {"weight": head.weight, "scale": head.scale}}
    return {"head": {"weight": head.weight, "bias": head.bias}}


def trained_head(params: Params, *, unit: bool) -> Head:
    """The head with the given trained arrays and one row per class."""
    weight = params["weight"]
    classes = weight.shape[0]
    return Head(
        weight=weight,
        bias=params.get("bias", jnp.zeros((classes,), weight.dtype)),
        scale=params.get("scale", jnp.ones((), weight.dtype)),
        owner=jnp.arange(classes, dtype=jnp.int32),
        num_classes=classes,
        unit=unit,
    )


def drawn(
    program: Program, at: Array, step: Array, key: Array, table: ClassTable | None
) -> Batch:
    """Some examples of a step: positions in the task, and numbers for augmentation.

    Args:
        program: the program.
        at: positions in the batch.
        step: the number of the step.
        key: the key of the task.
        table: the class table of the task.
    """
    recipe, key = program.recipe, jax.random.fold_in(key, ORDER)
    sizes: Any = dict(batch=program.batch, n=program.n, table=table, at=at)
    return draw_batch(recipe.sampler, key, step, **sizes)


def objective(program: Program, params: Params, z: Array, labels: Array) -> Any:
    """The loss of a batch of embeddings, and the accuracy if there is a head."""
    recipe = program.recipe
    if recipe.loss in ("nca", "lifted"):
        unit = heads.normalize(z)
        distances = heads.squared_euclidean(unit, unit)
        if recipe.loss == "nca":
            return losses.nca_loss(distances, labels), {}
        margin = recipe.margin
        return losses.lifted_structured_loss(distances, labels, margin=margin), {}
    head = trained_head(params["head"], unit=bool(program.unit))
    logits = heads.head_logits(head, z)
    hits = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
    if recipe.loss == "proxy_nca":
        rows, unit = heads.normalize(head.weight), heads.normalize(z)
        value = losses.proxy_nca_loss(heads.squared_euclidean(unit, rows), labels)
    else:
        value = losses.softmax_cross_entropy(logits, labels)
    return value, {"accuracy": hits.mean()}


def make_loss(program: Program) -> steps.Loss:
    """The loss of a (micro-)batch, on a pair: shared images, and a `Task`."""
    net, recipe, pieces = program.net, program.recipe, program.recipe.accumulate
    size = program.batch // pieces
    modes = recipe.modes(net, program.frozen)
    # One model on several devices: each device draws its share of a micro-batch.
    mesh = program.mesh if program.members == 1 else None

    def loss(params: Params, state: State, number: Array, data: tuple[Any, Task]):
        images, task = data
        step, piece = number // pieces, number % pieces
        places, numbers = sharding.rows_by_device(
            lambda at, piece, *given: drawn(program, at + piece * size, *given),
            *(size, mesh, piece, step, task.key, task.table),
        )
        labels = task.labels[places]
        if program.feed == "shared":
            x = images[task.rows[places]]
        elif program.feed == "own":
            assert task.inputs is not None  # noqa: S101
            x = task.inputs[places]
        else:
            x = _part(task.inputs, piece, size)
        if program.first is None:
            x = _varied(recipe, task, prepare(task.pixels, x), numbers)
        rng = jax.random.fold_in(jax.random.fold_in(task.key, DROPOUT), number)
        z = x
        if program.first != ALL_CACHED:
            # Dropout does not depend on the user's setting of the threefry flag.
            with stable_draws():
                z, state = net.apply(
                    params.get("net", {}),
                    state,
                    x,
                    mode=modes,
                    rng=rng,
                    first=program.first,
                )
        z = z.reshape(z.shape[0], -1)
        value, metrics = objective(program, params, z, labels)
        return value, (state, metrics)

    return loss


def _part(x: Any, piece: Array, size: int) -> Any:
    if x.shape[0] == size:
        return x
    return jax.lax.dynamic_slice_in_dim(x, piece * size, size)


def _varied(recipe: Recipe, task: Task, x: Array, numbers: Array) -> Array:
    """The images with random augmentation, each with a key made from its number."""
    if not recipe.changes:
        return x
    key = jax.random.fold_in(task.key, CROP)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
    return vary(task.pixels, keys, x, recipe.changes)


@memoised(_MEMOISED)
def make_optimizer(program: Program) -> optax.GradientTransformation:
    """The optimizer of a program's trainable parameters."""
    recipe = program.recipe
    return optim.make_optimizer(
        recipe.optim, **program.length, decay=recipe.decay, rates=recipe.rates
    )


@memoised(_MEMOISED)
def make_step(program: Program) -> steps.CompiledStep:
    """The compiled step of a stack of models, on shared images and stacked tasks."""
    step = steps.make_train_step(
        make_loss(program),
        make_optimizer(program),
        accumulate=program.recipe.accumulate,
        schedule=optim.schedule_of(program.recipe.optim, **program.length),
    )
    alone = program.members == 1
    together = steps.make_population_step(
        step, mesh=None if alone else program.mesh, unrolled=True if alone else None
    )
    return steps.compile_step(together, platform=program.platform)
