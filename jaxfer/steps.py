"""Functions that make compiled steps, for training and for evaluation."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Integer, PyTree

from jaxfer import compilation, distributed, sharding
from jaxfer.losses import episode_accuracy, episode_nll
from jaxfer.trees import Rules, merge, partition
from jaxfer.types import Episode, Params, State, TrainState

Metrics = dict[str, Any]
# loss(params, state, step, data) -> (value, (new state, metrics)): it samples its batch
# from the data by the number of the step.
Loss = Callable[[Params, State, Array, PyTree], tuple[Array, tuple[State, Metrics]]]
Step = Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]
# What `compile_step` returns: its keyword `count` says how many steps a call makes.
CompiledStep = Callable[..., tuple[TrainState, Metrics]]

ALL_TRAIN: Rules = (("**", True),)


def init_train_state(
    params: Params,
    state: State,
    optimizer: optax.GradientTransformation,
    *,
    rules: Rules = ALL_TRAIN,
) -> TrainState:
    """The state before the first step, with parameters partitioned by rules.

    Args:
        params: all parameters.
        state: running statistics.
        optimizer: the optimizer; it has a state for the trainable part only.
        rules: (pattern, trains) pairs, see `trees.partition`.
    """
    trainable, frozen = partition(params, rules)
    return TrainState(
        jnp.zeros((), jnp.int32), trainable, frozen, state, optimizer.init(trainable)
    )


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    schedule: Callable[[Array], Array] | None = None,
) -> Step:
    """The uncompiled step that differentiates and updates the trainable parameters.

    Args:
        loss: `loss(params, state, number, data)`, the mean over a micro-batch. With
            `accumulate` = k, step s averages the gradients of the numbers s * k to
            s * k + k - 1; each starts from the statistics after the one before it.
        optimizer: updates the trainable parameters.
        accumulate: micro-batches per step.
        schedule: the learning rate of a step, to report it among the metrics.

    Returns:
        `step(train_state, data) -> (train_state, metrics)`. The metrics include the
        loss and the norm of the gradient, which shows a gradient that is not finite.
    """

    def step(train_state: TrainState, data: PyTree) -> tuple[TrainState, Metrics]:
        number, trainable, frozen, state, opt_state = train_state

        def differentiate(state: State, piece: Any) -> tuple[Any, State]:
            def of_trainable(trainable: Params) -> tuple[Array, tuple[State, Metrics]]:
                place = number if accumulate == 1 else number * accumulate + piece
                return loss(merge(trainable, frozen), state, place, data)

            (value, (state, metrics)), grads = jax.value_and_grad(
                of_trainable, has_aux=True
            )(trainable)
            return (value, metrics, grads), state

        if accumulate == 1:
            (value, metrics, grads), state = differentiate(state, 0)
        else:
            pieces = []
            for piece in range(accumulate):
                each, state = differentiate(state, piece)
                pieces.append(each)
            value, metrics, grads = jax.tree.map(lambda *x: sum(x) / len(x), *pieces)
        updates, opt_state = optimizer.update(grads, opt_state, trainable)
        moved: Any = optax.apply_updates(trainable, updates)
        advanced = TrainState(number + 1, moved, frozen, state, opt_state)
        found = {"loss": value, "grad_norm": optax.tree.norm(grads), **metrics}
        if schedule is not None:
            found["learning_rate"] = schedule(number)
        return advanced, found

    return step


def repartition(
    train_state: TrainState, optimizer: optax.GradientTransformation, rules: Rules
) -> TrainState:
    """Change which parameters of a training are trainable.

    Parameters that continue to train keep their optimizer state, and the optimizer
    keeps its count of steps; parameters that begin to train get a fresh state. (Adam
    corrects its moments by that count, so the first updates of new ones are too large.)

    Args:
        train_state: the state so far.
        optimizer: the optimizer, for both partitions.
        rules: (pattern, trains) pairs, see `trees.partition`.
    """
    number, trainable, frozen, state, opt_state = train_state
    params = merge(trainable, frozen)
    fresh = init_train_state(params, state, optimizer, rules=rules)
    before = dict(jax.tree_util.tree_flatten_with_path(opt_state)[0])
    kept = jax.tree_util.tree_map_with_path(
        lambda path, leaf: before.get(path, leaf), fresh.opt_state
    )
    return fresh._replace(step=number, opt_state=kept)


# The axes of a stacked population: all fields are stacked except the step.
POPULATION: Any = TrainState(*(None, 0, 0, 0, 0))  # type: ignore[arg-type]


def stack_population(states: Sequence[TrainState]) -> TrainState:
    """Stack the states of networks that are at the same step.

    Example:
        >>> import optax
        >>> states = [
        ...     init_train_state({"w": jnp.ones(2)}, {}, optax.sgd(0.1))
        ...     for _ in range(3)
        ... ]
        >>> stack_population(states).trainable["w"].shape
        (3, 2)
    """
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[tuple(s[1:]) for s in states])
    return TrainState(states[0].step, *stacked)


def make_population_step(
    step: Step, *, mesh: Any = None, unrolled: bool | None = None
) -> Step:
    """The uncompiled step of many networks at once, each on its own data.

    Networks that share a partition share a program: their states are stacked and share
    the number of the step. On a mesh each device trains its share of them without any
    communication.

    Args:
        step: the step, made by `make_train_step`, on a pair: the data that all networks
            share, and the data of one network.
        mesh: a mesh, made by `sharding.make_mesh`, whose "data" axis divides the
            population.
        unrolled: whether a device runs its networks one after another in place of
            `jax.vmap`; default: on CPUs only, since a convolution vmapped over kernels
            is a grouped one, whose gradient is slow on XLA:CPU.

    Returns:
        The step of stacked states on (shared data, stacked data per network), with
        metrics `[networks]`.
    """

    def one(train_state: TrainState, shared: PyTree, own: PyTree) -> Any:
        return step(train_state, (shared, own))

    def in_turn(train_state: TrainState, shared: PyTree, own: PyTree) -> Any:
        number, stacked = train_state[0], tuple(train_state[1:])
        done = []
        for i in range(jax.tree.leaves(own)[0].shape[0]):
            mine, data = jax.tree.map(lambda x, i=i: x[i], (stacked, own))
            done.append(one(TrainState(number, *mine), shared, data))
        after = [(tuple(state[1:]), metrics) for state, metrics in done]
        stacked, metrics = jax.tree.map(lambda *x: jnp.stack(x), *after)
        return TrainState(done[0][0].step, *stacked), metrics

    ins, outs = (POPULATION, None, 0), (POPULATION, 0)
    at_once = jax.vmap(one, in_axes=ins, out_axes=outs)

    def together(train_state: TrainState, data: tuple[PyTree, PyTree]) -> Any:
        alone = compilation.target() == "cpu" if unrolled is None else unrolled
        call = in_turn if alone else at_once
        if mesh is not None:
            call = sharding.spread_members(call, mesh, ins, outs)
        return call(train_state, *data)

    return together


def compile_step(step: Step, *, platform: str | None = None) -> compilation.Jitted:
    """Compile a step so that one call can make several steps; it donates its state.

    Args:
        step: the step, made by `make_train_step`.
        platform: the platform to compile for, such as "tpu"; default: that of
            `jax.default_backend()`.

    Returns:
        `call(train_state, data, count=1)`, which makes `count` steps and stacks their
        metrics. It compiles once for each count, shape and sharding, and its attribute
        `compilations` counts the compilations. On CPU the steps are unrolled: XLA's
        kernel gradient of a convolution is about 25 times slower inside a loop there.
    """

    def call(
        train_state: TrainState, data: PyTree, count: int = 1
    ) -> tuple[TrainState, Metrics]:
        if compilation.target() != "cpu":
            return jax.lax.scan(
                lambda carry, _: step(carry, data), train_state, length=count
            )
        # Unroll in Python: even a fully unrolled scan of one step may keep its loop.
        stacked = []
        for _ in range(count):
            train_state, metrics = step(train_state, data)
            stacked.append(metrics)
        return train_state, jax.tree.map(lambda *x: jnp.stack(x), *stacked)

    return compilation.jit(
        call,
        platform=platform,
        outermost=True,
        static_argnames="count",
        donate_argnums=0,
    )


def make_episode_eval(
    draw: Callable[[PyTree, Integer[Array, ""]], Episode],
    classify: Callable[[Episode], Float[Array, "way n_query way"]],
) -> Callable[..., dict[str, Float[Array, " episodes"]]]:
    """The compiled function that measures numbered episodes.

    Args:
        draw: `draw(data, number)` returns one episode of images or embeddings.
        classify: returns the logits of one episode.

    Returns:
        `measure(data, numbers)`, which returns the "loss" (in nats) and the "accuracy"
        (from 0 to 1) of each episode.
    """

    def one(data: PyTree, number: Integer[Array, ""]) -> Metrics:
        logits = classify(draw(data, number))
        return {"loss": episode_nll(logits), "accuracy": episode_accuracy(logits)}

    @compilation.jit
    def measure(data: PyTree, numbers: Integer[Array, " episodes"]) -> Metrics:
        return jax.vmap(one, in_axes=(None, 0))(data, numbers)

    return measure


def evaluate_episodes(
    measure: Callable[[PyTree, np.ndarray], Mapping[str, jax.Array]],
    data: PyTree | Callable[[int], Iterator[PyTree]],
    *,
    episodes: int,
    first: int = 0,
    block: int = 100,
) -> dict[str, np.ndarray]:
    """The measured values of the episodes from `first` on, in float64.

    Several processes share the calls, and all of them get all values.

    Args:
        measure: the function, made by `make_episode_eval`.
        data: the data that `measure` samples episodes from. For streamed episodes, a
            function: `data(k)` yields the batch of `block` episodes of call k, then
            those of the calls after it; `measure` then gets positions in the batch.
        episodes: the number of episodes.
        first: the number of the first; a multiple of `block` if episodes are streamed.
        block: episodes per call.
    """
    block = block if callable(data) else min(block, episodes)
    processes = distributed.count()
    # Calls of each process; the last ones may measure later episodes, so that only one
    # shape is compiled.
    count = -(-episodes // (block * processes))
    first += distributed.index() * count * block
    if callable(data):
        batches: Any = data(first // block)
        pairs = zip(batches, itertools.repeat(np.arange(block)))
    else:
        numbers = np.arange(first, first + count * block, dtype=np.uint32)
        pairs = zip(itertools.repeat(data), numbers.reshape(count, block))
    calls = [jax.device_get(measure(*pair)) for pair in itertools.islice(pairs, count)]
    return {
        name: distributed.gather_rows(np.concatenate([call[name] for call in calls]))[
            :episodes
        ].astype(np.float64)
        for name in calls[0]
    }
