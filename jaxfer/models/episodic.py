"""Train and measure models on numbered episodes (Snell et al. 2017)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer import sharding, steps
from jaxfer.data import Images, Resident
from jaxfer.data.feed import episode_feed, place_episodes
from jaxfer.data.resident import table_of
from jaxfer.episodes import check_episode
from jaxfer.keys import HEAD, INIT, key_of
from jaxfer.loop import Run
from jaxfer.methods import Method, prototypes
from jaxfer.models.episode_step import (
    EpisodeProgram,
    EpisodeShape,
    make_episode_optimizer,
    make_episode_step,
)
from jaxfer.models.model import (
    Model,
    Pixels,
    Trained,
    embedding_dim,
    init_params,
    training_facts,
)
from jaxfer.models.options import DEFAULTS, Options
from jaxfer.models.recipe import Recipe
from jaxfer.models.running import open_run
from jaxfer.nets import AnyNet, as_net
from jaxfer.optim import needs_length
from jaxfer.runlog import Logger
from jaxfer.stopping import Best
from jaxfer.transfer import Stage, freeze_rules
from jaxfer.trees import merge
from jaxfer.types import Params, TrainState


def train_episodes(
    net: AnyNet,
    images: Images,
    shape: EpisodeShape,
    recipe: Recipe,
    *,
    seed: int,
    split: str = "train",
    method: Method | None = None,
    start: Model | None = None,
    pixels: Pixels | None = None,
    stages: Sequence[Stage] = (Stage(),),
    mesh: Any = None,
    workdir: str | Path | Run | None = None,
    phase: str = "train",
    num_steps: int | None = None,
    evaluate: Callable[[Model], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    select: Best | None = None,
    options: Options = DEFAULTS,
    logger: Logger | None = None,
) -> Trained:
    """Train a model on numbered episodes (Snell et al. 2017, Algorithm 1).

    Support and query share one pass, so BatchNorm uses the statistics of the episode;
    running statistics are averaged over the episodes of a step.

    Args:
        net: the backbone: a network of `jaxfer.nets`, a `Net`, or a Linen module.
        images: the training classes; above `options.limit` gigabytes they are streamed.
        shape: the shape of the training episodes.
        recipe: how to train: `episodes` is their number, `batch` the episodes per step,
            and `augment` changes each image by the number of its episode.
        seed: the seed of the parameters and of the episodes.
        split: the name of the split; another name gives other episodes.
        method: the classifier; default: prototypes.
        start: the model whose parameters training starts from; default: fresh ones.
        pixels: preprocessing; default: that of `start`, else pixels from 0 to 1, and
            features unchanged.
        stages: the stages of training, in order; each has its own frozen layers.
        mesh: the mesh, made by `sharding.make_mesh`, over which the episodes of a step
            are sharded; default: one device.
        workdir: see `train_batches`.
        phase: see `train_batches`.
        num_steps: the step to stop at; default: the end of the schedule.
        evaluate: called every `eval_every` steps with the model so far.
        eval_every: steps between evaluations.
        select: which evaluation is best and when to stop; see `train_batches`.
        options: how to run; results do not depend on them.
        logger: see `train_batches`.

    Returns:
        The trained model, without a head, which is made from a support set.

    Raises:
        ValueError: images that cannot give such episodes, or options that do not fit.
        KeyboardInterrupt: stopped on request, with the state saved.

    Example:
        >>> from jaxfer.data import from_arrays
        >>> from jaxfer.nets import Flatten
        >>> images = from_arrays(np.zeros((12, 4, 4)), np.arange(12) % 3)
        >>> trained = train_episodes(
        ...     Flatten(dim=2),
        ...     images,
        ...     EpisodeShape(way=3, shot=1, n_query=2),
        ...     Recipe(episodes=3),
        ...     seed=0,
        ...     options=Options(progress=False),
        ... )
        >>> trained.steps
        3
    """
    check_episode(
        table_of(images), images.class_names, **shape.sizes(), where=images.name
    )
    image_shape = recipe.input_shape(tuple(images.images.shape[1:]))
    net, method = as_net(net, image_shape), method or prototypes()
    shape.check(method, images.num_classes)
    if select is not None and len(stages) > 1:
        raise ValueError(f"expected one stage with select, got {len(stages)}")
    frozen = [name for stage in stages for name in stage.frozen]
    if method.needs_images and frozen:
        raise ValueError(
            f"expected no frozen layers for the method {method.name!r} with an encoder "
            f"for support examples or an adapted network, got {frozen}"
        )
    devices = 1 if mesh is None else mesh.shape["data"]
    program = EpisodeProgram(
        net,
        recipe,
        shape,
        method,
        seed,
        split,
        stages[0].frozen,
        mesh if devices > 1 else None,
    )
    if program.per_step % devices:
        raise ValueError(
            f"expected episodes per step that are a multiple of the {devices} devices, "
            f"got {program.per_step}"
        )
    if start is None and pixels is None and images.images.dtype != np.uint8:
        pixels = Pixels(std=np.float32(1))
    model = first_model(program, image_shape, start, pixels)
    mesh = sharding.make_mesh(1) if mesh is None else mesh
    placed = place_episodes(images, mesh, limit=options.limit)
    feed = episode_feed(
        placed,
        seed,
        split,
        **shape.sizes(),
        workers=options.workers,
        per_step=program.per_step,
        share=sharding.share_of(mesh),
        put=lambda batch: sharding.from_host(batch, mesh),
    )
    pixels = sharding.place(model.pixels, mesh)
    if isinstance(feed, Resident):
        data: Any = (feed, pixels)
    else:
        data = lambda step: ((batch, pixels) for batch in feed(step))  # noqa: E731
    with open_run(
        workdir,
        fingerprint=images.fingerprint,
        per_step=program.per_step,
        unit="episode",
        options=options,
        logger=logger,
    ) as run:
        train_state = sharding.place(first_state(program, model), mesh)

        def measured(train_state: TrainState) -> Mapping[str, float]:
            assert evaluate is not None  # noqa: S101
            return evaluate(_model(train_state, model, images))

        for number, stage in enumerate(stages):
            program = dataclasses.replace(program, frozen=stage.frozen)
            if number:
                params = merge(train_state.trainable, train_state.frozen)
                rules = freeze_rules(net, params["net"], stage.frozen)
                train_state = steps.repartition(
                    train_state, make_episode_optimizer(program), rules
                )
            end = stage.until or num_steps or program.num_steps
            ended = run.phase(
                phase if len(stages) == 1 else f"{phase}{number + 1}",
                make_episode_step(program),
                train_state,
                data,
                num_steps=end,
                schedule=program.num_steps if needs_length(recipe.optim) else None,
                evaluate=measured if evaluate else None,
                eval_every=eval_every,
                best=select,
            )
            train_state = ended.train_state or train_state
        trained = None
        if ended.train_state is not None:
            if select is not None and ended.best_step:
                train_state = run.best(train_state)
            trained = _model(train_state, model, images)
        return Trained(
            trained,
            steps=ended.steps,
            best_step=ended.best_step,
            rate=run.rate,
            wall_s=run.wall_s,
            compile_s=run.compile_s,
            compilations=run.compilations,
        )


def first_model(
    program: EpisodeProgram,
    image_shape: tuple[int, ...],
    start: Model | None = None,
    pixels: Pixels | None = None,
) -> Model:
    """The model before the first step of a program, with the method's parameters.

    Args:
        program: the program.
        image_shape: `(height, width, channels)` of the network's input.
        start: see `train_episodes`.
        pixels: see `train_episodes`.
    """
    net, key = program.net, key_of(program.seed)
    if start is None:
        draw = init_params(net, image_shape)
        params, state = draw(jax.random.fold_in(key, INIT))
        start = Model(net, params, state)
    params = {name: start.params.get(name, {}) for name in net.layers}
    state = {k: v for k, v in start.state.items() if k != "support"}
    if program.method.separate:
        params["support"] = start.params.get("support", dict(params))
        state["support"] = start.state.get("support", dict(state))
    dim = embedding_dim(net, image_shape)
    method = program.method.init(jax.random.fold_in(key, HEAD), dim)
    if method:
        own = start.params.get("method", {})
        params["method"] = own if own.keys() == method.keys() else method
    # Copy the arrays, since the first step donates its input.
    params, state = jax.tree.map(jnp.array, (params, state))
    pixels = program.recipe.with_window(pixels or start.pixels)
    about = {"method": dict(program.method.about)} if program.method.about else {}
    return Model(net, params, state, pixels=pixels, about=about)


def first_state(program: EpisodeProgram, model: Model) -> TrainState:
    """The state of a program before its first step, not yet placed on devices."""
    net = {k: v for k, v in model.params.items() if k != "method"}
    params: Params = {"net": net}
    if "method" in model.params:
        params["method"] = model.params["method"]
    rules = freeze_rules(program.net, net, program.frozen)
    return steps.init_train_state(
        params, model.state, make_episode_optimizer(program), rules=rules
    )


def _model(train_state: TrainState, start: Model, images: Images) -> Model:
    train_state = sharding.local(train_state)
    params = merge(train_state.trainable, train_state.frozen)
    net = {name: params["net"].get(name, {}) for name in start.net.layers}
    if "support" in params["net"]:
        own = params["net"]["support"]
        net["support"] = {name: own.get(name, {}) for name in start.net.layers}
    if "method" in params:
        net["method"] = params["method"]
    facts = training_facts(images.fingerprint, images.images.shape, train_state)
    about = {**start.about, **facts}
    return Model(start.net, net, train_state.state, None, start.pixels, (), about)
