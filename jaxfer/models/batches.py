"""Train one model or many at once on batches of labelled images."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxfer import sharding
from jaxfer.data import Images
from jaxfer.data.feed import Source, place
from jaxfer.loop import Run
from jaxfer.models.batch_state import first_state, repartitioned
from jaxfer.models.inputs import cache_activations, step_data
from jaxfer.models.model import AnyImages, Model, Pixels, Trained, training_facts
from jaxfer.models.options import DEFAULTS, Options
from jaxfer.models.plan import check_members, plan, start_model
from jaxfer.models.programs import (
    Program,
    make_step,
    trained_head,
)
from jaxfer.models.recipe import Examples, Recipe
from jaxfer.models.running import evaluations, open_run
from jaxfer.nets import AnyNet, as_net
from jaxfer.optim import needs_length
from jaxfer.runlog import Logger
from jaxfer.stopping import Best
from jaxfer.transfer import Stage
from jaxfer.trees import merge
from jaxfer.types import Head, TrainState

Evaluate = Callable[[Model], Mapping[str, float]]


def train_batches(
    net: AnyNet,
    images: Images,
    recipe: Recipe,
    *,
    key: PRNGKeyArray,
    head: Head | None,
    start: Model | None = None,
    pixels: Pixels | None = None,
    stages: Sequence[Stage] = (Stage(),),
    mesh: Any = None,
    workdir: str | Path | Run | None = None,
    phase: str = "train",
    evaluate: Evaluate | None = None,
    eval_every: int = 0,
    select: Best | None = None,
    options: Options = DEFAULTS,
    logger: Logger | None = None,
) -> Trained:
    """Train one model on labelled images.

    On a mesh of several devices the batch is sharded over "data"; BatchNorm uses the
    statistics of the whole batch. The rows of the head are sharded over "model", for
    heads of many classes.

    Args:
        net: the backbone: a network of `jaxfer.nets`, a `Net` or a Linen module.
        images: labelled images; above `options.limit` gigabytes they are streamed.
        recipe: how to train.
        key: the random key of the whole training.
        head: the classifier to train, such as `linear_head(key, dim, classes)`; None
            for losses between the examples of a batch.
        start: the model whose parameters training starts from; default: fresh ones. Its
            head is used only if it is passed as `head`.
        pixels: preprocessing; default: that of `start`, else pixels from 0 to 1.
        stages: the stages of training, in order; each has its own frozen layers.
        mesh: the mesh, made by `sharding.make_mesh`; default: one device.
        workdir: a folder for checkpoints and logs, from which the same call resumes;
            with more epochs, steps or episodes it goes on from its end, unless the
            schedule depends on their number. Or an open run, to which this adds a
            phase. Default: nothing is kept.
        phase: the prefix of the metrics' names, unique within a run.
        evaluate: called every `eval_every` steps with the model so far; its numbers go
            to the log and to `Trained.history`.
        eval_every: steps between evaluations.
        select: which evaluation is best and when to stop; the model returned is then
            the best one.
        options: how to run; results do not depend on them.
        logger: called as `logger(step, metrics)` with every line of metrics.jsonl, for
            other tools that show metrics; default: none.

    Returns:
        The trained model and the facts of its training.

    Raises:
        ValueError: images, head and recipe that do not fit together.
        KeyboardInterrupt: stopped on request, with the state saved.

    Example:
        >>> from jaxfer import Options, linear_head
        >>> from jaxfer.data import from_arrays
        >>> from jaxfer.nets import Flatten
        >>> images = from_arrays(np.zeros((8, 4, 4)), np.arange(8) % 2)
        >>> key = jax.random.key(0)
        >>> trained = train_batches(
        ...     Flatten(),
        ...     images,
        ...     Recipe(steps=3, batch=4),
        ...     key=key,
        ...     head=linear_head(key, 16, 2),
        ...     options=Options(progress=False),
        ... )
        >>> trained.steps, trained.model.head.weight.shape
        (3, (2, 16))
    """
    examples = Examples(
        np.arange(len(images.labels), dtype=np.int32),
        images.labels,
        pixels or (start.pixels if start else Pixels()),
        key,
        images.class_names,
    )
    (trained,) = train_population(
        net,
        images,
        [examples],
        recipe,
        heads=[head],
        starts=[start],
        stages=stages,
        mesh=mesh,
        workdir=workdir,
        phase=phase,
        evaluate=None if evaluate is None else lambda i, model: evaluate(model),
        eval_every=eval_every,
        select=select,
        options=options,
        logger=logger,
    )
    return trained


def train_population(
    net: AnyNet,
    images: AnyImages | Source,
    members: Sequence[Examples],
    recipe: Recipe,
    *,
    heads: Sequence[Head | None],
    starts: Sequence[Model | None] | None = None,
    stages: Sequence[Stage] = (Stage(),),
    mesh: Any = None,
    workdir: str | Path | Run | None = None,
    phase: str = "train",
    evaluate: Callable[[int, Model], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    select: Best | None = None,
    cache: bool = False,
    options: Options = DEFAULTS,
    logger: Logger | None = None,
) -> list[Trained]:
    """Train several models on the same images at once, in one compiled program.

    Models of a population have equal numbers of examples, shapes and stages. On a mesh
    each device trains its share of them, without any communication.

    Args:
        net: the backbone of all models.
        images: the images that all models share.
        members: the examples of each model.
        recipe: how to train.
        heads: the classifier of each model.
        starts: the model that each one starts from; default: fresh parameters.
        stages: the stages of training, in order; each has its own frozen layers.
        mesh: a mesh whose "data" axis divides the number of models; or, for one model,
            its batch.
        workdir: see `train_batches`.
        phase: see `train_batches`.
        evaluate: called with the index of a model and the model so far.
        eval_every: steps between evaluations.
        select: for one model, see `train_batches`.
        cache: whether to compute the outputs of frozen layers once and train on them.
            If that is impossible or inexact, the reason is printed and images are used.
            Ignored with several stages.
        options: how to run.
        logger: see `train_batches`.

    Returns:
        One result of training per model.

    Raises:
        ValueError: members that cannot share a program, or see `train_batches`.

    Example:
        >>> from jaxfer import Options, linear_head
        >>> from jaxfer.nets import Flatten
        >>> keys = [jax.random.key(i) for i in range(2)]
        >>> rows, labels = np.arange(8), np.arange(8) % 2
        >>> trained = train_population(
        ...     Flatten(),
        ...     np.zeros((8, 4, 4, 1), np.uint8),
        ...     [Examples(rows, labels, Pixels(), key) for key in keys],
        ...     Recipe(steps=3, batch=4),
        ...     heads=[linear_head(key, 16, 2) for key in keys],
        ...     options=Options(progress=False),
        ... )
        >>> len(trained)
        2
    """
    starts = [None] * len(members) if starts is None else starts
    source = place(images, mesh, limit=options.limit)
    net = as_net(net, source.items.shape[1:])
    check_members(members, heads, starts, recipe, mesh, select)
    if select is not None and len(stages) > 1:
        raise ValueError(f"expected one stage with select, got {len(stages)}")
    program, tasks = plan(net, source, members, heads, recipe, mesh)
    models = [
        start_model(net, recipe, source, *member)
        for member in zip(members, heads, starts, strict=True)
    ]
    history: dict[int, Mapping[str, float]] = {}
    with open_run(
        workdir,
        fingerprint=_fingerprint(source, members),
        per_step=program.batch * len(members),
        unit="image",
        options=options,
        logger=logger,
    ) as run:
        program = dataclasses.replace(program, frozen=stages[0].frozen)
        stores: Sequence[Any] = ()
        if cache and len(stages) == 1 and program.frozen:
            folder = run.folder / "prefix"
            program, tasks, stores = cache_activations(
                program, source, models, tasks, folder, options
            )
        if source.streamed and program.first is None:
            program = dataclasses.replace(program, feed="batch")
        data = step_data(program, source, tasks, stores, options)
        train_state = first_state(program, models, mesh)

        def unstack(train_state: TrainState, i: int) -> Model:
            return _model(program, train_state, i, models[i], members[i], source)

        def measure(train_state: TrainState) -> Mapping[str, float]:
            assert evaluate is not None  # noqa: S101
            found = {}
            for i in range(len(members)):
                scores = evaluate(i, unstack(train_state, i))
                prefix = "" if len(members) == 1 else f"{i}/"
                found |= {prefix + name: value for name, value in scores.items()}
            history[int(train_state.step)] = found
            return found

        for number, stage in enumerate(stages):
            program = dataclasses.replace(program, frozen=stage.frozen)
            if number:
                train_state = repartitioned(program, train_state, mesh)
            step = make_step(program)
            ended = run.phase(
                phase if len(stages) == 1 else f"{phase}{number + 1}",
                step,
                train_state,
                data,
                num_steps=program.num_steps if stage.until is None else stage.until,
                schedule=program.num_steps if needs_length(recipe.optim) else None,
                evaluate=measure if evaluate else None,
                eval_every=eval_every,
                best=select,
            )
            train_state = ended.train_state or train_state
        if select is not None and ended.best_step:
            train_state = run.best(train_state)
        over = evaluations(run, phase) | history
        return [
            Trained(
                unstack(train_state, i) if ended.train_state is not None else None,
                steps=program.num_steps,
                best_step=ended.best_step,
                rate=run.rate,
                wall_s=run.wall_s / len(members),
                compile_s=run.compile_s / len(members),
                # All models share one program: it is counted once.
                compilations=0 if i else run.compilations,
                history=_history(over, i, len(members)),
            )
            for i in range(len(members))
        ]


def _model(
    program: Program,
    train_state: TrainState,
    i: int,
    start: Model,
    member: Examples,
    source: Source,
) -> Model:
    """One of the models of a population, at the step of the given state."""
    params = merge(train_state.trainable, train_state.frozen)
    params, state = sharding.local((params, train_state.state))
    params, state = jax.tree.map(lambda x: x[i], (params, state))
    # A model is not bound to a device: it runs where its images are.
    params, state = jax.tree.map(jnp.asarray, jax.device_get((params, state)))
    head = jax.tree.map(jnp.asarray, jax.device_get(sharding.local(start.head)))
    if head is not None:
        head = trained_head(
            {"scale": head.scale, "bias": head.bias, **params["head"]}, unit=head.unit
        )
    # Layers without parameters are empty groups.
    params = {name: params.get("net", {}).get(name, {}) for name in start.params}
    state = {name: state.get(name, {}) for name in start.state}
    about = {
        **training_facts(source.fingerprint, source.items.shape, train_state),
        "examples": program.n,
    }
    pixels = program.recipe.with_window(member.pixels)
    return Model(program.net, params, state, head, pixels, member.class_names, about)


def _fingerprint(source: Source, members: Sequence[Examples]) -> str:
    digest = hashlib.sha256(source.fingerprint.encode())
    for member in members:
        counted = _counted(member)
        digest.update(np.ascontiguousarray(member.rows[counted]))
        digest.update(np.ascontiguousarray(member.labels[counted]))
        digest.update(repr(member.class_names).encode())
    return digest.hexdigest()[:16]


def _counted(member: Examples) -> np.ndarray:
    """A mask of the examples that are used: the first `counts[k]` of each class k."""
    labels = np.asarray(member.labels)
    if member.counts is None:
        return np.ones(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels)
    place = np.empty(len(labels), int)
    place[order] = np.arange(len(labels))
    return place - first < np.asarray(member.counts)[labels]


def _history(
    over: Mapping[int, Mapping[str, float]], i: int, members: int
) -> tuple[Mapping[str, float | int], ...]:
    prefix = "" if members == 1 else f"{i}/"
    return tuple(
        {
            "step": step,
            **{
                name.removeprefix(prefix): value
                for name, value in found.items()
                if name.startswith(prefix)
            },
        }
        for step, found in sorted(over.items())
    )
