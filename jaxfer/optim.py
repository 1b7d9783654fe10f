"""Optimizers and learning-rate schedules, described by a config or by optax.

`Optim` is a config: it fits on a command line and into a JSON file. `make_optimizer`
turns it into an optax transformation; it also takes any other optax transformation.
Weight decay and learning-rate multipliers are chosen by rules on parameter paths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

from jaxfer.ranges import Count, NotNegative, Positive, Range, Share, check_ranges
from jaxfer.trees import Rules, flatten, match
from jaxfer.types import Params

Schedule = Callable[[Any], Float[Array, "*steps"]]


@dataclass(frozen=True)
class Optim:
    """The optimizer and its learning-rate schedule."""

    name: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """adam, adamw, rmsprop or sgd. Adam and AdamW use b1 = 0.9, b2 = 0.999 and eps =
    1e-8."""
    learning_rate: Positive = 1e-3
    """The highest learning rate of the schedule, above 0."""
    schedule: Literal["constant", "cosine", "staircase"] = "constant"
    """constant; cosine, which reaches 0 at the last step; or staircase, for which the
    rate is multiplied by decay after every decay_every units of training."""
    warmup: Share = 0.0
    """Share of the training, in [0, 1), over which the rate rises linearly to its
    scheduled value. The first update is never 0."""
    decay: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    """Factor by which the staircase multiplies the rate, in (0, 1]."""
    decay_every: Count = 2000
    """Length of a stair, at least 1: in epochs when training on batches of labelled
    images, in episodes when training on episodes."""
    momentum: Share = 0.9
    """Momentum of SGD and RMSProp, in [0, 1); 0 for none."""
    weight_decay: NotNegative = 0.0
    """Weight decay, at least 0; 0 for none. SGD, RMSProp and Adam add it to the
    gradient; AdamW applies it directly to the parameters, times the learning rate."""
    rms_decay: Share = 0.9
    """Decay of RMSProp's second moment, in [0, 1); the moment starts at 1."""
    rms_eps: Positive = 1.0
    """Number above 0 that RMSProp adds to the second moment, inside the square root."""
    clip: NotNegative = 0.0
    """Maximum global norm of the gradient of the trained parameters, at least 0; 0 for
    no limit."""
    head_rate: Positive = 1.0
    """Multiplier of the learning rate for the parameters of the head, above 0."""


def check_optim(optim: Optim, name: str = "optim") -> None:
    """Check the numbers of an optimizer.

    Args:
        optim: the optimizer.
        name: the prefix of its fields in messages.

    Raises:
        ValueError: a number outside its range.

    Example:
        >>> check_optim(Optim(warmup=5.0))
        Traceback (most recent call last):
        ...
        ValueError: expected optim.warmup in [0, 1), got 5.0
    """
    check_ranges(optim, f"{name}.")


def needs_length(optim: Optim | optax.GradientTransformation) -> bool:
    """Whether the learning rate of a step depends on the length of the training.

    A cosine and a warm-up do; an optax transformation has its own schedule. Only a
    training whose rates do not depend on its length can go on from a shorter one.

    Example:
        >>> needs_length(Optim(schedule="staircase")), needs_length(Optim(warmup=0.1))
        (False, True)
    """
    return isinstance(optim, Optim) and (optim.schedule == "cosine" or optim.warmup > 0)


def make_schedule(
    optim: Optim, *, num_steps: int, units: tuple[int, int] = (1, 1)
) -> Schedule:
    """The learning rate of each step, steps counted from 0.

    Warm-up multiplies the schedule by `min((step + 1) / warm, 1)`, where `warm` is the
    number of warm-up steps. The cosine goes from the end of the warm-up to 0 at the
    last step and is evaluated at `step + 1` too, so the last update is 0. The staircase
    counts the units that are done before the step in integers, so that rounding never
    shifts a stair.

    Args:
        optim: the optimizer.
        num_steps: steps of the whole training.
        units: `(a, b)`: `step * a // b` units are done after `step` steps. For
            episodes a is the number of episodes per step and b is 1; for epochs a is 1
            and b is the number of steps per epoch.

    Returns:
        `schedule(step)`, a float32; `step` may be traced, and may be an array.

    Raises:
        ValueError: a number outside its range.

    Example:
        >>> optim = Optim("sgd", 0.1, "staircase", decay=0.5, decay_every=2)
        >>> rates = make_schedule(optim, num_steps=9, units=(1, 2))(jnp.arange(9))
        >>> print(rates)
        [0.1   0.1   0.1   0.1   0.05  0.05  0.05  0.05  0.025]
    """
    check_optim(optim)
    a, b = units
    if num_steps < 1 or a < 1 or b < 1:
        raise ValueError(
            f"expected num_steps and units of at least 1, got {num_steps} and {units}"
        )
    warm = min(round(optim.warmup * num_steps), num_steps - 1)

    def schedule(step: int | Integer[Array, "*steps"]) -> Float[Array, "*steps"]:
        step = jnp.asarray(step, jnp.int32)
        counted = (step + 1).astype(jnp.float32)
        factor = jnp.ones_like(counted)
        if optim.schedule == "cosine":
            # A training of one step has half the rate, not 0.
            length = max(num_steps, 2) - warm
            done = jnp.clip((counted - warm) / length, 0.0, 1.0)
            factor = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        elif optim.schedule == "staircase":
            # It equals step * a // b, but cannot overflow.
            done = step // b * a + step % b * a // b
            stairs = (done // optim.decay_every).astype(jnp.float32)
            factor = optim.decay**stairs
        if warm:
            factor = factor * jnp.minimum(counted / warm, 1.0)
        return optim.learning_rate * factor

    return schedule


def schedule_of(
    optim: Optim | optax.GradientTransformation,
    *,
    num_steps: int,
    units: tuple[int, int] = (1, 1),
) -> Schedule | None:
    """The schedule of an `Optim`; None for an optax transformation, which hides it.

    Args:
        optim: the optimizer.
        num_steps: see `make_schedule`.
        units: see `make_schedule`.
    """
    if not isinstance(optim, Optim):
        return None
    return make_schedule(optim, num_steps=num_steps, units=units)


def make_optimizer(
    optim: Optim | optax.GradientTransformation,
    *,
    num_steps: int,
    units: tuple[int, int] = (1, 1),
    decay: Rules | None = None,
    rates: Rules = (),
    params: Params | None = None,
) -> optax.GradientTransformation:
    """The optax transformation of an `Optim` or a given one, with rates by rules.

    The gradient is clipped, then coupled weight decay is added, then the optimizer and
    its schedule apply, then the multipliers of the learning rate.

    Args:
        optim: the optimizer; or an optax transformation, which is used unchanged, with
            its own schedule and weight decay.
        num_steps: steps of the whole training.
        units: see `make_schedule`.
        decay: (pattern, bool) pairs, see `trees.match`: whether weight decay applies.
            Default: it applies to arrays with two or more axes (kernels and the rows of
            heads) and not to biases, scales and the parameters of BatchNorm.
        rates: (pattern, multiplier) pairs for the learning rate. Default: none. Those
            of a parameter group "head" are multiplied by `optim.head_rate` as well.
        params: all parameters, to check that every rule is used. Default: no such
            check, since the optimizer sees only the parameters that are not frozen.

    Raises:
        ValueError: a number outside its range, or rules that do not fit `params`.

    Example:
        >>> params = {"net": {"bias": jnp.ones(1)}, "head": {"bias": jnp.ones(1)}}
        >>> optim = Optim("sgd", 0.5, momentum=0.0, head_rate=10.0)
        >>> optimizer = make_optimizer(optim, num_steps=5)
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> updates["net"]["bias"].item(), updates["head"]["bias"].item()
        (-0.5, -5.0)
    """
    by_rules = [scale_by_rules(rates, params)] if rates else []
    if not isinstance(optim, Optim):
        if decay is not None:
            raise ValueError(
                "expected no decay rules with an optax transformation: it decides "
                "itself which parameters it decays"
            )
        return _chained([optim, *by_rules])
    rate = make_schedule(optim, num_steps=num_steps, units=units)
    decays = _kernels if decay is None else _values_by_rules(decay, params)
    chain: list[optax.GradientTransformation] = []
    if optim.clip:
        chain.append(optax.clip_by_global_norm(optim.clip))
    if optim.weight_decay and optim.name != "adamw":
        chain.append(optax.add_decayed_weights(optim.weight_decay, mask=decays))
    if optim.name == "adam":
        chain.append(optax.adam(rate))
    elif optim.name == "adamw":
        chain.append(optax.adamw(rate, weight_decay=optim.weight_decay, mask=decays))
    elif optim.name == "sgd":
        chain.append(optax.sgd(rate, optim.momentum or None))
    else:
        chain.append(
            optax.rmsprop(
                rate,
                decay=optim.rms_decay,
                eps=optim.rms_eps,
                initial_scale=1.0,
                momentum=optim.momentum or None,
            )
        )
    if optim.head_rate != 1:
        chain.append(_scale_head(optim.head_rate))
    return _chained([*chain, *by_rules])


def scale_by_rules(
    rules: Rules, params: Params | None = None
) -> optax.GradientTransformation:
    """Multiply updates by rules, to give some parameters their own learning rate.

    Args:
        rules: (pattern, multiplier) pairs, see `trees.match`.
        params: all parameters, see `make_optimizer`.

    Raises:
        ValueError: rules that do not fit `params`.

    Example:
        >>> fast_head = scale_by_rules([("head", 10.0), ("**", 1.0)])
        >>> updates = {"head": jnp.ones(1), "net": jnp.ones(1)}
        >>> fast_head.update(updates, fast_head.init(updates))[0]["head"].item()
        10.0
    """
    return _scale(_values_by_rules(rules, params))


def _chained(
    parts: Sequence[optax.GradientTransformation],
) -> optax.GradientTransformation:
    """The parts in order; a single part keeps the state that optax gives it."""
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _scale_head(rate: float) -> optax.GradientTransformation:
    return _scale(
        lambda tree: jax.tree_util.tree_map_with_path(
            lambda path, _: rate if _name(path).split("/")[0] == "head" else 1.0, tree
        )
    )


def _scale(factors_of: Callable[[Params], Any]) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factors = factors_of(updates)
        return jax.tree.map(lambda u, factor: u * factor, updates, factors), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _values_by_rules(rules: Rules, params: Params | None) -> Callable[[Params], Any]:
    """A function from a tree of parameters to the values that rules give them."""
    known = None if params is None else flatten(match(rules, params))

    def values(tree: Params) -> Any:
        found = known
        if found is None:
            # The trainable part may lack parameters that the rules name.
            found = flatten(match(rules, tree, all_used=False))
        return jax.tree_util.tree_map_with_path(
            lambda path, _: found[_name(path)], tree
        )

    return values


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _kernels(params: Params) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
