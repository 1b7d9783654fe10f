"""The inputs of training steps: shared images, cached activations, or a stream."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer import sharding
from jaxfer.data.feed import Source, stream_rows
from jaxfer.data.shards import Shards, write_shards
from jaxfer.models.inference import embed_blocks
from jaxfer.models.model import Model
from jaxfer.models.options import Options
from jaxfer.models.programs import Program, Task, drawn
from jaxfer.transfer import cached_prefix


def step_data(
    program: Program,
    source: Source,
    tasks: Sequence[Task],
    stores: Sequence[Shards],
    options: Options,
) -> Any:
    """The data argument of each step: all data, or a function that streams them.

    Args:
        program: the program, which says what a step takes.
        source: the images.
        tasks: one task per model.
        stores: activations on disk, one store per model; empty if they fit in memory.
        options: the number of threads that read.
    """
    stacked = own = jax.tree.map(lambda *x: jnp.stack(x), *tasks)
    mesh, alone = program.mesh, program.members == 1
    if mesh is not None:
        put = sharding.place if alone else sharding.place_batch
        stacked = put(stacked, mesh)
    if program.feed != "batch":
        return (source.items if program.feed == "shared" else None, stacked)

    # Each process reads its own part of the batch.
    index, count = (0, 1) if mesh is None else sharding.share_of(mesh)
    first, last = (program.batch * i // count for i in (index, index + 1))

    def rows(given: Task, step: Any) -> Any:
        mine = jnp.arange(first, last, dtype=jnp.int32)
        number = step.astype(jnp.int32)

        def of_task(task: Task) -> Any:
            places = drawn(program, mine, number, task.key, task.table).places
            return places if stores else task.rows[places]

        return jax.vmap(of_task)(given)

    def read(found: np.ndarray) -> np.ndarray:
        if stores:
            return np.stack([s[at] for s, at in zip(stores, found, strict=True)])
        items = np.asarray(source.items[found.reshape(-1)])
        return items.reshape(*found.shape, *items.shape[1:])

    def put_batch(batch: np.ndarray) -> Any:
        if mesh is None:
            return jax.device_put(batch)
        return sharding.from_host(batch, mesh, axis=1 if alone else 0)

    at = stream_rows(
        rows,
        own,
        read,
        num_steps=program.num_steps,
        workers=options.workers,
        put=put_batch,
    )

    def batches(step: int) -> Iterator[tuple[None, Task]]:
        for batch in at(step):
            yield None, stacked._replace(inputs=batch)

    return batches


def cache_activations(
    program: Program,
    source: Source,
    models: Sequence[Model],
    tasks: Sequence[Task],
    folder: Path,
    options: Options,
) -> tuple[Program, Sequence[Task], Sequence[Shards]]:
    """Compute the outputs of frozen layers once, to train on them in place of images.

    Args:
        program: the program of the population.
        source: the images.
        models: the models at the start of training.
        tasks: one task per model.
        folder: the folder for activations that exceed `options.cache_limit`.
        options: how to run.

    Returns:
        The program, which begins after the cached layers; the tasks, with their inputs;
        and the stores of inputs on disk. If nothing can be cached, program and tasks
        are unchanged and a printed line gives the reason.
    """
    recipe = program.recipe
    try:
        prefix = cached_prefix(
            program.net,
            program.frozen,
            dropout=recipe.frozen_dropout,
            augmented=bool(recipe.changes),
        )
        # This also refuses a network that cannot run some of its layers only.
        each = _bytes(models[0], source, prefix.last)
    except ValueError as e:
        print(e)
        return program, tasks, ()
    program = dataclasses.replace(program, first=prefix.first)

    def blocks(i: int) -> Iterator[Any]:
        rows = np.asarray(tasks[i].rows)
        return embed_blocks(models[i], source.items, rows=rows, last=prefix.last)

    size = len(tasks) * program.n * each / 1e9
    if size <= options.cache_limit:
        filled = [
            task._replace(inputs=jnp.concatenate([*blocks(i)]))
            for i, task in enumerate(tasks)
        ]
        return dataclasses.replace(program, feed="own"), filled, ()
    print(
        f"{size:.3g} GB of activations after {prefix.last} exceed the limit of "
        f"{options.cache_limit:g} GB: they are kept in {folder}"
    )
    # NumPy files cannot hold bfloat16.
    stores = [
        write_shards(folder / str(i), (np.asarray(x, np.float32) for x in blocks(i)))
        for i in range(len(tasks))
    ]
    return dataclasses.replace(program, feed="batch"), tasks, stores


def _bytes(model: Model, source: Source, last: str) -> int:
    """The number of bytes of the activations of one image."""
    like: Any = jax.ShapeDtypeStruct((1, *source.items.shape[1:]), jnp.float32)
    run: Callable[..., Any] = model.net.apply
    y = jax.eval_shape(lambda x: run(model.params, model.state, x, last=last)[0], like)
    return int(np.prod(y.shape)) * y.dtype.itemsize
