"""The state that one model or a population trains from, placed on devices."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from jaxfer import sharding, steps
from jaxfer.models.model import Model
from jaxfer.models.programs import Program, head_params, make_optimizer
from jaxfer.transfer import freeze_rules
from jaxfer.trees import merge
from jaxfer.types import TrainState


def first_state(program: Program, models: Sequence[Model], mesh: Any) -> TrainState:
    """The state of a population before its first step, on the devices of a mesh.

    Args:
        program: the program of the population.
        models: the models at the start of training.
        mesh: the mesh; None for one device.
    """
    if mesh is None or mesh.shape["model"] == 1:
        return _place(stacked_state(program, models), mesh, len(models))

    def stacked(arrays: Sequence[Any]) -> TrainState:
        filled = [
            dataclasses.replace(model, params=params, state=state, head=head)
            for model, (params, state, head) in zip(models, arrays, strict=True)
        ]
        return stacked_state(program, filled)

    # The head, which may be in parts, and the state of its optimizer stay in parts.
    arrays = [
        (*jax.device_get((model.params, model.state)), model.head) for model in models
    ]
    at = state_shardings(jax.eval_shape(stacked, arrays), mesh)
    return jax.jit(stacked, out_shardings=at)(arrays)


def stacked_state(program: Program, models: Sequence[Model]) -> TrainState:
    """The state of a population before its first step, not yet placed on devices."""
    optimizer, recipe = make_optimizer(program), program.recipe
    rules = freeze_rules(program.net, models[0].params, program.frozen)
    return steps.stack_population(
        [
            steps.init_train_state(
                {"net": model.params, **head_params(model.head, recipe)},
                model.state,
                optimizer,
                rules=rules,
            )
            for model in models
        ]
    )


def repartitioned(program: Program, train_state: TrainState, mesh: Any) -> TrainState:
    """The state of a population whose next stage freezes other layers."""
    params = merge(train_state.trainable, train_state.frozen)
    rules = freeze_rules(program.net, params["net"], program.frozen)
    optimizer = make_optimizer(program)
    moved = jax.vmap(
        lambda one: steps.repartition(one, optimizer, rules),
        in_axes=(steps.POPULATION,),
        out_axes=steps.POPULATION,
    )(train_state)
    return _place(moved, mesh, program.members)


def _place(train_state: TrainState, mesh: Any, members: int) -> TrainState:
    """Put one model on the devices, or shard several models over them.

    The rows of one model's head are split over "model"; all else is whole. A single
    device needs this too: the state that a step returns is placed, and a first state
    that is not placed would compile the step twice.
    """
    mesh = sharding.make_mesh(1) if mesh is None else mesh
    if members == 1 or mesh.size == 1:
        return sharding.place_as(train_state, state_shardings(train_state, mesh))
    rest = sharding.place_batch(tuple(train_state[1:]), mesh)
    return TrainState(sharding.place(train_state.step, mesh), *rest)


def state_shardings(train_state: TrainState, mesh: Any) -> Any:
    """The sharding of each array of one model's state, with its optimizer's.

    Args:
        train_state: the stacked state, or its shapes.
        mesh: the mesh.
    """

    def one(path: Any, x: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(("head/weight", "head/bias")) and mesh.shape["model"] > 1:
            # The first axis counts models.
            return sharding.over_model(mesh, axis=1)
        return sharding.replicated(mesh)

    return jax.tree_util.tree_map_with_path(one, train_state)
