"""The program, tasks and starts of a population, checked before any compilation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer.data.feed import Source
from jaxfer.episodes import class_table
from jaxfer.keys import INIT
from jaxfer.models.model import Model, embedding_dim, init_params
from jaxfer.models.programs import Program, Task
from jaxfer.models.recipe import Examples, Recipe, steps_of
from jaxfer.stopping import Best
from jaxfer.types import Head, Net


def check_members(
    members: Sequence[Examples],
    heads: Sequence[Head | None],
    starts: Sequence[Model | None],
    recipe: Recipe,
    mesh: Any,
    select: Best | None,
) -> None:
    """Refuse members, heads and recipes that do not fit together.

    Raises:
        ValueError: a mismatch; the message says what was expected.
    """
    count, batch = len(members), recipe.batch or 128
    if not count or not len(heads) == len(starts) == count:
        raise ValueError(
            f"expected one head and one start per member, got {count} members, "
            f"{len(heads)} heads and {len(starts)} starts"
        )
    sizes = {len(member.rows) for member in members}
    if len(sizes) > 1:
        raise ValueError(
            f"expected members with the same number of examples, got {sorted(sizes)}"
        )
    devices = 1 if mesh is None else mesh.shape["data"]
    # The examples of a micro-batch, or the members, are divided among the devices.
    divided = batch // recipe.accumulate if count == 1 else count
    if divided % devices:
        what = "batch size" if count == 1 else "number of members"
        what += " per micro-batch" if count == 1 and recipe.accumulate > 1 else ""
        raise ValueError(
            f"expected a {what} that is a multiple of the {devices} devices, got "
            f"{divided}"
        )
    parts = 1 if mesh is None else mesh.shape["model"]
    for head in heads:
        if head is not None and head.num_classes % parts:
            raise ValueError(
                f"expected a number of classes that is a multiple of the {parts} "
                f"devices of 'model', got {head.num_classes}"
            )
    if parts > 1 and count > 1:
        raise ValueError(f"expected one member on a mesh with 'model', got {count}")
    if batch % recipe.accumulate:
        raise ValueError(
            f"expected accumulate to divide a batch of {batch}, got {recipe.accumulate}"
        )
    pairs = recipe.loss in ("nca", "lifted")
    if pairs and recipe.accumulate > 1:
        raise ValueError(
            f"expected accumulate = 1 for {recipe.loss}, a loss over pairs, got "
            f"{recipe.accumulate}"
        )
    if any((head is None) != pairs for head in heads):
        raise ValueError(
            f"expected {'no head' if pairs else 'a head'} for the loss {recipe.loss!r}"
        )
    if select is not None and count > 1:
        raise ValueError(f"expected one member with select, got {count}")


def plan(
    net: Net,
    source: Source,
    members: Sequence[Examples],
    heads: Sequence[Head | None],
    recipe: Recipe,
    mesh: Any,
) -> tuple[Program, list[Task]]:
    """The program that members share, and the task of each.

    Raises:
        ValueError: labels beyond the classes of a head, or too few examples.
    """
    n = len(members[0].rows)
    num_steps, per_epoch = steps_of(recipe, n)
    devices = 1 if mesh is None else mesh.size
    program = Program(
        net,
        recipe,
        None if heads[0] is None else heads[0].unit,
        n,
        num_steps,
        per_epoch,
        members=len(members),
        mesh=mesh if devices > 1 else None,
    )
    tasks = []
    for member, head in zip(members, heads, strict=True):
        labels = np.asarray(member.labels, np.int32)
        table = None
        if recipe.sampler.kind != "epoch":
            classes = int(labels.max()) + 1 if head is None else head.num_classes
            table = class_table(labels, num_classes=classes)
            if member.counts is not None:
                table = table._replace(counts=np.asarray(member.counts, np.int32))
        elif head is not None and labels.max() >= head.num_classes:
            raise ValueError(
                f"expected labels below the {head.num_classes} classes of the head, "
                f"got {labels.max()}"
            )
        rows = jnp.asarray(member.rows, jnp.int32)
        table = jax.tree.map(jnp.asarray, table)
        pixels = jax.tree.map(jnp.asarray, member.pixels)
        tasks.append(Task(rows, jnp.asarray(labels), table, pixels, member.key))
    return program, tasks


def start_model(
    net: Net,
    recipe: Recipe,
    source: Source,
    member: Examples,
    head: Head | None,
    start: Model | None,
) -> Model:
    """The model that a member starts from, with the head to train."""
    shape = recipe.input_shape(tuple(source.items.shape[1:]))
    if head is not None:
        dim = embedding_dim(net, shape)
        if head.weight.shape[-1] != dim:
            raise ValueError(
                f"expected a head for the net's embeddings of dimension {dim}, got one "
                f"for dimension {head.weight.shape[-1]}"
            )
        if head.pool is not None:
            raise ValueError(
                "expected a head with one row per class (pool = None), got pool = "
                f"{head.pool!r}"
            )
    if start is None:
        params, state = init_params(net, shape)(jax.random.fold_in(member.key, INIT))
    else:
        params, state = jax.tree.map(jnp.asarray, (start.params, start.state))
    return Model(net, params, state, head, member.pixels, member.class_names)
