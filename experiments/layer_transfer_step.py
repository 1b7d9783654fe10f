"""How the networks of a layer-transfer study train and are tested, compiled once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import PyTree

from experiments.backbone import Network, make_net, normalized, pieces
from experiments.layer_transfer_config import Optim
from jaxfer import losses, nets, sharding, steps
from jaxfer.data import Crop, random_crop, shuffled
from jaxfer.transfer import freeze_modes
from jaxfer.types import EVAL, Net, Params, State

# What the key of a network is folded with for each of its uses.
INIT, _ORDER, _DROPOUT, _CROP = range(4)


class Task(NamedTuple):
    """What a network has to itself while it trains.

    Attributes:
        rows: `[n]`, its examples among the images that all networks share; None where
            it has inputs of its own.
        labels: `[n]`, from 0.
        centre: `[height, width, channels]`, the mean image of the task that the first
            layers were trained on (the paper subtracts that of the base task).
        scale: `[]`, one over the standard deviation of its pixels.
        key: of the order of examples, of dropout and of augmentation.
        inputs: `[n, ...]`, activations of its frozen layers in place of images.
    """

    rows: Array | None
    labels: Array
    centre: Array
    scale: Array
    key: Array
    inputs: Array | None = None


@dataclass(frozen=True)
class Program:
    """What the compiled functions of a network hang on, and nothing else.

    Attributes:
        net: the network, as the config has it.
        optim: how it trains.
        augment: how images are moved.
        batch: examples a step.
        outputs: of the classifier.
        linear: whether the network is logistic regression.
        n: examples it trains on.
        num_steps: of the whole training, for the rate.
        frozen: names of the layers that do not train.
        frozen_dropout: whether those drop.
        first: the layer that training begins at, where what is before it is cached.
        streamed: whether batches of activations come from the host.
        devices: that a population is spread over.
    """

    net: Network
    optim: Optim
    augment: Crop
    batch: int
    outputs: int
    linear: bool
    n: int
    num_steps: int
    frozen: tuple[str, ...] = ()
    frozen_dropout: bool = True
    first: str | None = None
    streamed: bool = False
    devices: int = 1


@lru_cache
def make_member_net(net: Network, outputs: int, linear: bool) -> Net:
    """The network with so many outputs, or logistic regression."""
    return nets.linear(outputs) if linear else make_net(net, outputs)


@lru_cache
def make_init(
    net: Network, outputs: int, linear: bool, image_shape: tuple[int, ...]
) -> Callable[[Array], tuple[Params, State]]:
    """What draws a network, compiled."""
    made = make_member_net(net, outputs, linear)
    return jax.jit(lambda key: made.init(key, image_shape))


@lru_cache
def make_optimizer(program: Program) -> optax.GradientTransformation:
    """SGD with momentum and coupled decay, or AdamW, along a cosine to 0."""
    optim, per_epoch = program.optim, program.n // program.batch
    rate = optax.schedules.warmup_cosine_decay_schedule(
        0.0, optim.learning_rate, int(optim.warmup * per_epoch), program.num_steps
    )
    clip = [optax.clip_by_global_norm(optim.clip)] if optim.clip else []
    if optim.name == "adamw":
        adamw = optax.adamw(rate, weight_decay=optim.weight_decay, mask=_kernels)
        return optax.chain(*clip, adamw)
    decay = optax.add_decayed_weights(optim.weight_decay, mask=_kernels)
    return optax.chain(*clip, decay, optax.sgd(rate, optim.momentum))


def _kernels(params: Params) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def batch_of(program: Program, task: Task, step: Array) -> tuple[Array, Array]:
    """Which examples of a task a step takes, and the numbers they have in all epochs.

    Every epoch has an order of its own; what is left of it after whole batches is left
    out.
    """
    batch, per_epoch = program.batch, program.n // program.batch
    epoch, place = step // per_epoch, step % per_epoch
    places = place * batch + jnp.arange(batch, dtype=jnp.int32)
    order = jax.random.fold_in(task.key, _ORDER)
    at = shuffled(order, epoch, places, n=program.n)
    return at, epoch * program.n + at


def make_loss(program: Program) -> steps.Loss:
    """The cross-entropy of a batch, and its accuracy.

    Data are a pair: the images that all networks share, and a `Task`.
    """
    net = make_member_net(program.net, program.outputs, program.linear)

    def loss(params: Params, state: State, step: Array, data: tuple[Array, Task]):
        images, task = data
        draws = jax.random.fold_in(jax.random.fold_in(task.key, _DROPOUT), step)
        if program.streamed:
            x, labels = task.inputs, task.labels
        else:
            at, number = batch_of(program, task, step)
            labels = task.labels[at]
            if task.inputs is not None:
                x = task.inputs[at]
            else:
                x = normalized(images[task.rows[at]], task.centre, task.scale)
                if program.augment:
                    key = jax.random.fold_in(task.key, _CROP)
                    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(number)
                    x = random_crop(keys, x, program.augment)
        modes = freeze_modes(
            net, params, program.frozen, dropout=program.frozen_dropout
        )
        logits, state = net.apply(
            params, state, x, mode=modes, rng=draws, first=program.first
        )
        value = losses.softmax_cross_entropy(logits, labels)
        accuracy = (logits.argmax(axis=-1) == labels).astype(jnp.float32).mean()
        return value, (state, {"accuracy": accuracy})

    return loss


@lru_cache
def make_step(program: Program) -> steps.CompiledStep:
    """The compiled step of a population, on shared images and stacked tasks."""
    step = steps.make_train_step(make_loss(program), make_optimizer(program))
    mesh = sharding.make_mesh(program.devices) if program.devices > 1 else None
    return steps.compile_step(steps.make_population_step(step, mesh=mesh))


@lru_cache
def make_piece(
    net: Network, outputs: int, linear: bool, last: str | None
) -> Callable[..., Array]:
    """What runs a network on a block of pixels, up to a layer, compiled."""
    made = make_member_net(net, outputs, linear)

    @jax.jit
    def piece(params: Params, state: State, task: Task, pixels: Array, rows: Array):
        x = normalized(pixels, task.centre, task.scale)
        return made.apply(params, state, x, mode=EVAL, last=last)[0]

    return piece


def test_network(
    piece: Callable[..., Array],
    params: Params,
    state: State,
    task: Task,
    images: Array,
    rows: np.ndarray,
    labels: np.ndarray,
) -> float:
    """The accuracy on some rows, in percent, on running statistics."""
    outputs = pieces(piece, params, state, task, images, rows)
    predicted = [logits.argmax(axis=-1) for logits in outputs]
    hits = np.concatenate(jax.device_get(predicted)) == labels
    return 100 * float(hits.mean())
