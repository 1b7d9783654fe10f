"""What the frozen layers of networks give, computed once and trained on."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.backbone import pieces
from experiments.layer_transfer_config import Config
from experiments.layer_transfer_step import (
    Program,
    Task,
    batch_of,
    make_member_net,
    make_piece,
)
from jaxfer.data.shards import Shards, write_shards
from jaxfer.transfer import Prefix, cached_prefix, freeze_modes
from jaxfer.types import Params, State

# Parameters and statistics a network begins with, and the paths that were copied.
Begun = tuple[Params, State, tuple[str, ...]]
# Data of `loop.fit`: (shared images, stacked tasks), or batches from a step on.
Feed = Any


def stack(tasks: Sequence[Task]) -> Task:
    """The tasks of a population as one."""
    return jax.tree.map(lambda *x: jnp.stack(x), *tasks)


def feed(
    config: Config,
    program: Program,
    name: str,
    begun: Sequence[Begun],
    tasks: Sequence[Task],
    images: Array,
    folder: Path,
    *,
    still: bool,
) -> tuple[Program, Feed]:
    """What a population trains on: images, or activations in their place.

    Args:
        config: of the study.
        program: of the networks.
        name: of the first of them, for messages.
        begun: their parameters and statistics.
        tasks: of each.
        images: that they share.
        folder: for activations that are too many for the device.
        still: whether what is frozen stays so for the whole of the training.

    Returns:
        The program, which begins after the layers that are cached, and its data.
    """
    prefix = None
    if config.cache and still and program.frozen:
        prefix = _prefix(program, name, begun[0], images)
    if prefix is None:
        return program, (images, stack(tasks))
    last = prefix.last
    program = dataclasses.replace(program, first=prefix.first)
    piece = make_piece(program.net, program.outputs, program.linear, last)

    def blocks(i: int) -> Iterator[Array]:
        params, state, _ = begun[i]
        rows = np.asarray(tasks[i].rows)
        return pieces(piece, params, state, tasks[i], images, rows)

    size = len(tasks) * program.n * next(blocks(0))[0].nbytes / 1e9
    if size <= config.cache_limit:
        filled = [
            task._replace(rows=None, inputs=jnp.concatenate([*blocks(i)]))
            for i, task in enumerate(tasks)
        ]
        return program, (None, stack(filled))
    print(
        f"{name}: {size:.3g} GB of activations after {last}, above cache_limit = "
        f"{config.cache_limit:g}: they are kept in {folder}"
    )
    # Files know no bfloat16.
    stores = [
        write_shards(folder / str(i), (np.asarray(x, np.float32) for x in blocks(i)))
        for i in range(len(tasks))
    ]
    program = dataclasses.replace(program, streamed=True)
    return program, _stream(program, tasks, stores)


def _prefix(program: Program, name: str, begun: Begun, images: Array) -> Prefix | None:
    """The layers to cache; None where there are none, and then it is said why."""
    net = make_member_net(program.net, program.outputs, program.linear)
    params, state, _ = begun
    dropout = program.frozen_dropout
    try:
        return cached_prefix(
            net,
            params,
            state,
            images.shape[1:],
            freeze_modes(net, params, program.frozen, dropout=dropout),
            program.frozen,
            augmented=bool(program.augment),
        )
    except ValueError as e:
        print(f"{name}: {e}")
        return None


def _stream(
    program: Program, tasks: Sequence[Task], stores: Sequence[Shards]
) -> Callable[[int], Iterator[tuple[None, Task]]]:
    """Batches of activations from the disk, each read while the one before trains."""
    # Row numbers are little things, and the device has other work.
    cpu = jax.local_devices(backend="cpu")[0]
    choose = jax.jit(lambda task, step: batch_of(program, task, step)[0])
    keys = [jax.device_put(task, cpu) for task in tasks]

    def read(step: int) -> tuple[None, Task]:
        batch = []
        for task, key, store in zip(tasks, keys, stores, strict=True):
            rows = np.asarray(choose(key, jnp.asarray(step, jnp.int32, device=cpu)))
            batch.append(
                task._replace(
                    rows=None,
                    labels=task.labels[rows],
                    inputs=jnp.asarray(store[rows]),
                )
            )
        return None, stack(batch)

    def batches(step: int) -> Iterator[tuple[None, Task]]:
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(read, step)
            while True:
                ready, step = coming.result(), step + 1
                coming = ahead.submit(read, step)
                yield ready

    return batches
