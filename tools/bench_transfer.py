"""The layer-transfer half of tools/bench.py: a step with its first n layers frozen.

Steps are those of configs/cifar100_layer_transfer.py, on made-up pixels of the same
shape, which take as long as others.
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

from experiments.backbone import make_net
from experiments.layer_transfer_config import Config
from experiments.layer_transfer_step import (
    Program,
    Task,
    make_loss,
    make_optimizer,
    make_step,
)
from jaxfer import config as configs
from jaxfer import steps
from jaxfer.transfer import cached_prefix, freeze_modes, freeze_rules
from jaxfer.types import Net, Params, State, TrainState
from tools.bench_contenders import Contender

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "cifar100_layer_transfer.py"
N, OUTPUTS, TOGETHER = 25_000, 50, 4


def preset() -> Config:
    """The study's own config."""
    argv = ["--config", str(CONFIG), "--workdir", "unused"]
    return configs.parse("experiments.layer_transfer", Config, argv).config


class _Work(NamedTuple):
    """A network, and what it trains on."""

    net: Net
    program: Program
    params: Params
    state: State
    images: Array
    task: Task


def _work(config: Config) -> _Work:
    side = config.data.side or 32
    shape = (side, side, 3)
    rng = np.random.default_rng(0)
    net = make_net(config.net, OUTPUTS)
    program = Program(
        config.net,
        config.optim,
        config.augment,
        config.batch,
        OUTPUTS,
        linear=False,
        n=N,
        num_steps=10**6,
    )
    task = Task(
        jnp.arange(N, dtype=jnp.int32),
        jnp.asarray(rng.integers(0, OUTPUTS, N), jnp.int32),
        jnp.zeros(shape) + 127,
        jnp.asarray(1 / 64),
        jax.random.key(0),
    )
    images = jnp.asarray(rng.integers(0, 256, (N, *shape), dtype=np.uint8))
    return _Work(net, program, *net.init(jax.random.key(1), shape), images, task)


def contenders(
    config: Config, layers: Sequence[int] = range(1, 8)
) -> dict[str, Contender]:
    """A step of the whole network, and of every n: frozen, cached, masked."""
    work = _work(config)
    net, program, params, state, images, task = work
    found = {"full": _contender(work)}
    for n in layers:
        frozen = net.layers[:n]
        stopped = work._replace(program=dataclasses.replace(program, frozen=frozen))
        modes = freeze_modes(net, params, frozen, dropout=config.frozen_dropout)
        shape = images.shape[1:]
        last, first = cached_prefix(net, params, state, shape, modes, frozen)
        one, _ = net.apply(params, state, jnp.zeros((1, *shape)), last=last)
        inputs = jax.random.uniform(jax.random.key(2), (N, *one.shape[1:]))
        cached = stopped._replace(
            program=dataclasses.replace(stopped.program, first=first),
            task=task._replace(rows=None, inputs=inputs),
        )
        found[f"frozen n={n}"] = _contender(stopped)
        found[f"cached n={n}"] = _contender(cached)
        found[f"masked n={n}"] = _masked(work, frozen)
    return found


def populations(config: Config) -> dict[str, Contender]:
    """Some networks at once: in turn within a step, or vmapped; by step and network."""
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
    images = work.images if work.task.inputs is None else None
    own = jax.tree.map(lambda x: x[None], work.task)
    return _timed(make_step(work.program), _stacked(work, 1), (images, own))


def _masked(work: _Work, frozen: Sequence[str]) -> Contender:
    """What is usual: every gradient is taken, and frozen updates are set to zero."""
    labels = {name: "still" if name in frozen else "moves" for name in work.params}
    optimizer = optax.multi_transform(
        {"moves": make_optimizer(work.program), "still": optax.set_to_zero()}, labels
    )
    step = steps.make_train_step(make_loss(work.program), optimizer)
    begun = steps.init_train_state(work.params, work.state, optimizer)
    return _timed(steps.compile_step(step), begun, (work.images, work.task))


def _stacked(work: _Work, size: int) -> TrainState:
    optimizer = make_optimizer(work.program)
    rules = freeze_rules(work.params, work.program.frozen)
    begun = steps.init_train_state(work.params, work.state, optimizer, rules=rules)
    return steps.stack_population([begun] * size)


def _timed(
    step: Callable[..., Any], begun: TrainState, data: Any, networks: int = 1
) -> Contender:
    """Seconds for so many steps, a network."""
    # The state is donated, and contenders begin with the same arrays.
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
