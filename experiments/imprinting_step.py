"""How the networks of an imprinting study train, and what heads make of embeddings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.backbone import Network, make_net, normalized
from experiments.imprinting_config import Optim
from jaxfer import heads, losses, steps
from jaxfer.data import (
    Crop,
    Drawn,
    View,
    centre_crop,
    draw_crop,
    random_crop,
    read_ahead,
    shuffled,
)
from jaxfer.episodes import ClassTable, sample_episode
from jaxfer.types import EVAL, TRAIN, Head, Params, State

# What the key of a network is folded with for each of its uses.
INIT, HEAD, _ORDER, _DROPOUT, _CROP = range(5)
# Losses with a head of trained rows.
HEADED = ("softmax", "linear", "proxy_nca")


class Task(NamedTuple):
    """What a network trains on.

    Attributes:
        rows: `[n]`, its examples among the images.
        labels: `[n]`, from 0.
        table: the places of each class among these.
        centre: what is taken from pixels, such as `[height, width, channels]`, the mean
            image of the base classes.
        scale: `[]`, what they are multiplied with then.
        key: of the order of examples, of dropout and of augmentation.
    """

    rows: Array
    labels: Array
    table: ClassTable
    centre: Array
    scale: Array
    key: Array


@dataclass(frozen=True)
class Program:
    """What the compiled functions of a network hang on, and nothing else.

    Attributes:
        net: the network, as the config has it.
        dim: of the embedding.
        loss: of the embedding.
        num_classes: that it trains on.
        margin: of the lifted structured loss.
        optim: how it trains.
        augment: how images are moved.
        batch: examples a step.
        drawn: by 'epoch', each example once in it; by 'class', each class as likely as
            another, whatever it has; in 'groups' of some examples a class.
        group: how many these are.
        n: examples it trains on.
        per_epoch: steps.
        num_steps: of the whole training.
        streamed: whether batches are read, and data are they.
    """

    net: Network
    dim: int
    loss: str
    num_classes: int
    margin: float
    optim: Optim
    augment: Crop
    batch: int
    drawn: Literal["epoch", "class", "groups"]
    group: int
    n: int
    per_epoch: int
    num_steps: int
    streamed: bool = False


def make_head(params: Params, loss: str) -> Head:
    """The head whose trained arrays these are, a row a class."""
    weight = params["weight"]
    classes = weight.shape[0]
    return Head(
        weight=weight,
        bias=params.get("bias", jnp.zeros((classes,), weight.dtype)),
        scale=params.get("scale", jnp.ones((), weight.dtype)),
        owner=jnp.arange(classes, dtype=jnp.int32),
        num_classes=classes,
        unit=loss != "linear",
    )


def head_params(head: Head, loss: str) -> Params:
    """Of a head, what trains under a loss."""
    if loss == "linear":
        return {"weight": head.weight, "bias": head.bias}
    if loss == "proxy_nca":
        return {"weight": head.weight}
    return {"weight": head.weight, "scale": head.scale}


@lru_cache
def make_init(
    net: Network, dim: int, image_shape: tuple[int, ...]
) -> Callable[[Array], tuple[Params, State]]:
    """What draws a network, compiled."""
    made = make_net(net, dim)
    return jax.jit(lambda key: made.init(key, image_shape))


@lru_cache
def make_optimizer(program: Program) -> optax.GradientTransformation:
    """SGD or RMSProp with momentum, the head at a rate of its own."""
    optim = program.optim
    warm = int(optim.warmup * program.num_steps)
    if optim.schedule == "cosine":
        rate = optax.schedules.warmup_cosine_decay_schedule(
            0.0, optim.learning_rate, warm, program.num_steps
        )
    else:
        stairs = optax.schedules.exponential_decay(
            optim.learning_rate, 4 * program.per_epoch, 0.94, staircase=True
        )
        rise = optax.schedules.linear_schedule(0.0, optim.learning_rate, max(warm, 1))
        rate = optax.schedules.join_schedules([rise, stairs], [warm])
    if optim.name == "rmsprop":
        base = optax.rmsprop(
            rate,
            decay=optim.rms_decay,
            eps=optim.rms_eps,
            initial_scale=1.0,
            momentum=optim.momentum,
        )
    else:
        base = optax.sgd(rate, optim.momentum)
    rules = [("head", optim.head_rate)] if program.loss in HEADED else []
    return optax.chain(
        optax.add_decayed_weights(optim.weight_decay, mask=_kernels),
        base,
        steps.scale_by_rules([*rules, ("**", 1.0)]),
    )


def _kernels(params: Params) -> Any:
    """Of the network only: rows of a head are as long as they like."""
    return {
        name: jax.tree.map(lambda leaf, own=name != "head": own and leaf.ndim > 1, tree)
        for name, tree in params.items()
    }


def batch_of(program: Program, task: Task, step: Array) -> tuple[Array, Array]:
    """Places of a step's examples in the task, and a number for each of its own.

    By epochs the number is that of example and epoch, else that of step and place.
    """
    batch = program.batch
    places = jnp.arange(batch, dtype=jnp.int32)
    numbers = step * batch + places
    order = jax.random.fold_in(task.key, _ORDER)
    if program.drawn == "epoch":
        per_epoch = program.n // batch
        at = step % per_epoch * batch + places
        drawn = shuffled(order, step // per_epoch, at, n=program.n)
        return drawn, step // per_epoch * program.n + drawn
    key = jax.random.fold_in(order, step)
    if program.drawn == "groups":
        way = batch // program.group
        drawn = sample_episode(
            key, task.table, way=way, shot=program.group, n_query=0
        ).support
        return drawn.reshape(-1), numbers
    which, where = jax.random.split(key)
    classes = jax.random.randint(
        which, (batch,), 0, program.num_classes, dtype=jnp.int32
    )
    counts = jnp.asarray(task.table.counts)[classes]
    place = jax.random.randint(where, (batch,), 0, counts, dtype=jnp.int32)
    return jnp.asarray(task.table.rows)[classes, place].astype(jnp.int32), numbers


def objective(program: Program, params: Params, z: Array, labels: Array) -> Any:
    """The loss of a batch of embeddings, and the accuracy where there is a head."""
    unit = heads.normalize(z)
    if program.loss in ("nca", "lifted"):
        distances = heads.squared_euclidean(unit, unit)
        if program.loss == "nca":
            return losses.nca_loss(distances, labels), {}
        margin = program.margin
        return losses.lifted_structured_loss(distances, labels, margin=margin), {}
    head = make_head(params["head"], program.loss)
    logits = heads.head_logits(head, z)
    accuracy = (logits.argmax(axis=-1) == labels).astype(jnp.float32).mean()
    if program.loss == "proxy_nca":
        distances = heads.squared_euclidean(unit, heads.normalize(head.weight))
        value = losses.proxy_nca_loss(distances, labels)
    else:
        value = losses.softmax_cross_entropy(logits, labels)
    return value, {"accuracy": accuracy}


def make_loss(program: Program) -> steps.Loss:
    """The loss of a batch.

    Data are a `Task` and all images; where they are streamed, a `Task` and what is read
    for the step: windows of images, and labels.
    """
    net = make_net(program.net, program.dim)

    def loss(params: Params, state: State, step: Array, data: tuple[Task, Any]):
        task, found = data
        if program.streamed:
            pixels, labels = found
            x = normalized(pixels, task.centre, task.scale)
        else:
            at, number = batch_of(program, task, step)
            labels = task.labels[at]
            x = normalized(found[task.rows[at]], task.centre, task.scale)
            if program.augment:
                x = random_crop(_crop_keys(task, number), x, program.augment)
        rng = jax.random.fold_in(jax.random.fold_in(task.key, _DROPOUT), step)
        z, state = net.apply(params["net"], state, x, mode=TRAIN, rng=rng)
        value, metrics = objective(program, params, z, labels)
        return value, (state, metrics)

    return loss


def make_batches(
    program: Program, task: Task, images: View, workers: int
) -> Callable[[int], Iterator[tuple[Task, Any]]]:
    """What gives the data of each step, from one on, read ahead of it.

    Each image is moved as where all of them are on the device: by the same draws.
    """
    _, height, width, _ = images.shape
    limits = program.augment
    h, w = limits.window(height, width)

    def draw(task: Task, step: Array) -> Any:
        at, number = batch_of(program, task, step.astype(jnp.int32))
        keys = _crop_keys(task, number)
        crops = jax.vmap(lambda key: draw_crop(key, limits, height, width))(keys)
        return task.rows[at], task.labels[at], *crops

    def read(drawn: Any) -> Any:
        rows, labels, corners, flips = drawn
        cut = [
            x[top : top + h, left : left + w][:, :: -1 if flip else 1]
            for x, (top, left), flip in zip(images[rows], corners, flips, strict=True)
        ]
        return np.stack(cut), labels

    drawn = Drawn(draw, task, program.num_steps)

    def at(step: int) -> Iterator[tuple[Task, Any]]:
        for found in read_ahead(drawn, read, first=step, workers=workers):
            yield task, found

    return at


def _crop_keys(task: Task, number: Array) -> Array:
    key = jax.random.fold_in(task.key, _CROP)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(number)


@lru_cache
def make_step(program: Program) -> steps.CompiledStep:
    """The compiled step."""
    step = steps.make_train_step(make_loss(program), make_optimizer(program))
    return steps.compile_step(step)


@lru_cache
def make_piece(
    net: Network, dim: int, crop: Crop, *, moved: bool
) -> Callable[..., Array]:
    """What embeds a block of images, moved or from their middle, compiled."""
    made = make_net(net, dim)

    @jax.jit
    def piece(params: Params, state: State, task: Task, pixels: Array, rows: Array):
        x = normalized(pixels, task.centre, task.scale)
        if moved:
            keys = jax.vmap(lambda i: jax.random.fold_in(task.key, i))(rows)
            x = random_crop(keys, x, crop)
        else:
            x = centre_crop(x, crop)
        return made.apply(params, state, x, mode=EVAL)[0]

    return piece
