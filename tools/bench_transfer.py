"""The layer-transfer part of tools/bench.py: steps with the first n layers frozen.

The steps are those of configs/cifar100_layer_transfer.py, on random pixels of the same
shape. The time does not depend on the pixel values.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.layer_transfer.config import Config
from jaxfer import config as configs
from jaxfer import heads, models, steps
from jaxfer.models.programs import (
    Program,
    Task,
    head_params,
    make_loss,
    make_optimizer,
    make_step,
)
from jaxfer.transfer import cached_prefix, freeze_rules
from jaxfer.types import Params, State, TrainState
from tools.bench_contenders import Contender

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "cifar100_layer_transfer.py"
N, OUTPUTS, TOGETHER = 25_000, 50, 4


def preset() -> Config:
    """Return the config of the study."""
    argv = ["--config", str(CONFIG), "--workdir", "unused"]
    return configs.parse("experiments.layer_transfer", Config, argv).config


class _Work(NamedTuple):
    """A program, the parameters of net and head, and the data they train on."""

    program: Program
    params: Params
    state: State
    images: Array
    task: Task


def _work(config: Config) -> _Work:
    side, rng = config.data.side or 32, np.random.default_rng(0)
    shape = (side, side, 3)
    model = models.init_model(config.net.build(), shape, jax.random.key(1))
    dim = models.embedding_dim(model.net, shape)
    head = heads.linear_head(jax.random.key(2), dim, OUTPUTS)
    recipe = models.Recipe(
        config.optim,
        steps=10**6,
        batch=config.batch,
        accumulate=config.accumulate,
        augment=config.augment,
        frozen_dropout=config.frozen_dropout,
    )
    program = Program(model.net, recipe, False, N, *models.steps_of(recipe, N))
    mean = np.full(shape, 127, np.float32)
    task = Task(
        jnp.arange(N, dtype=jnp.int32),
        jnp.asarray(rng.integers(0, OUTPUTS, N), jnp.int32),
        None,
        jax.tree.map(jnp.asarray, models.Pixels(mean, np.float32(64))),
        jax.random.key(0),
    )
    images = jnp.asarray(rng.integers(0, 256, (N, *shape), dtype=np.uint8))
    params = {"net": model.params, **head_params(head, recipe)}
    return _Work(program, params, model.state, images, task)


def contenders(
    config: Config, layers: Sequence[int] = range(1, 8)
) -> dict[str, Contender]:
    """Return steps of the whole network, and at every n: frozen, cached, masked."""
    work = _work(config)
    net, shape = work.program.net, work.images.shape[1:]
    found = {"full": _contender(work)}
    for n in layers:
        frozen = net.layers[:n]
        program = dataclasses.replace(work.program, frozen=frozen)
        prefix = cached_prefix(net, frozen, dropout=config.frozen_dropout)
        one, _ = net.apply(
            work.params["net"], work.state, jnp.zeros((1, *shape)), last=prefix.last
        )
        inputs = jax.random.uniform(jax.random.key(3), (N, *one.shape[1:]))
        cached = work._replace(
            program=dataclasses.replace(program, first=prefix.first, feed="own"),
            task=work.task._replace(inputs=inputs),
        )
        found[f"frozen n={n}"] = _contender(work._replace(program=program))
        found[f"cached n={n}"] = _contender(cached)
        found[f"masked n={n}"] = _masked(work, frozen)
    return found


def populations(config: Config) -> dict[str, Contender]:
    """Return steps of several networks, in turn or vmapped, timed per network."""
    work = _work(config)
    program = work.program
    plain = steps.make_train_step(make_loss(program), make_optimizer(program))
    found = {}
    for name, size, unrolled in (
        ("one", 1, True),
        (f"{TOGETHER} in turn", TOGETHER, True),
        (f"{TOGETHER} vmapped", TOGETHER, False),
    ):
        step = steps.make_population_step(plain, unrolled=unrolled)
        own = jax.tree.map(lambda x, size=size: jnp.stack([x] * size), work.task)
        begun, data = _stacked(work, size), (work.images, own)
        found[name] = _timed(steps.compile_step(step), begun, data, size)
    return found


def _contender(work: _Work) -> Contender:
    images = work.images if work.program.feed == "shared" else None
    own = jax.tree.map(lambda x: x[None], work.task)
    return _timed(make_step(work.program), _stacked(work, 1), (images, own))


def _masked(work: _Work, frozen: Sequence[str]) -> Contender:
    """The usual way: every gradient is computed, and frozen updates are set to zero."""
    net = {name: "still" if name in frozen else "moves" for name in work.params["net"]}
    optimizer = optax.multi_transform(
        {"moves": make_optimizer(work.program), "still": optax.set_to_zero()},
        {"net": net, "head": "moves"},
    )
    step = steps.make_train_step(make_loss(work.program), optimizer)
    begun = steps.init_train_state(work.params, work.state, optimizer)
    return _timed(steps.compile_step(step), begun, (work.images, work.task))


def _stacked(work: _Work, size: int) -> TrainState:
    program = work.program
    rules = freeze_rules(program.net, work.params["net"], program.frozen)
    begun = steps.init_train_state(
        work.params, work.state, make_optimizer(program), rules=rules
    )
    return steps.stack_population([begun] * size)


def _timed(
    step: Callable[..., Any], begun: TrainState, data: Any, networks: int = 1
) -> Contender:
    """Return a contender that measures the seconds of steps, per network."""
    # A copy, since the state is donated and all contenders start from the same arrays.
    holder = [jax.tree.map(jnp.copy, begun)]

    def run(count: int) -> float:
        train_state = holder[0]
        began = time.perf_counter()
        for _ in range(count):
            train_state, _ = step(train_state, data)
        jax.block_until_ready(train_state)
        holder[0] = train_state
        return (time.perf_counter() - began) / networks

    return Contender(run)
