"""A Net made of Linen blocks that run one after another."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import InvalidRngError, ScopeParamShapeError
from jaxtyping import Array, PRNGKeyArray, Shaped

from jaxfer.types import EVAL, Mode, Modes, Net, Params, State, layer_mode

_STATE = "batch_stats"


def chain(
    blocks: Sequence[tuple[str, nn.Module]],
    *,
    stochastic: Sequence[str] = (),
    spec: Any = None,
) -> Net:
    """The network that runs named Linen modules in order.

    Each module is called as `module(x, mode)` and keeps its parameters and running
    statistics under its own name, so that layers can be frozen, copied and run
    separately.

    Args:
        blocks: (name, module) pairs from the input on.
        stochastic: names of the blocks that use random numbers in training.
        spec: the architecture, stored in a model's file; networks with equal specs
            share compiled programs.

    Returns:
        The net. Its `init` refuses images that are not `[height, width, channels]`,
        and `apply` refuses layer names that it does not have.

    Raises:
        ValueError: two blocks with the same name, or no block.

    Example:
        >>> class Double(nn.Module):
        ...     def __call__(self, x, mode):
        ...         return 2 * x
        >>> net = chain([("one", Double()), ("two", Double())])
        >>> params, state = net.init(jax.random.key(0), (1, 1, 1))
        >>> net.apply(params, state, jnp.ones((1, 1, 1, 1)))[0].item()
        4.0
    """
    modules = dict(blocks)
    names = tuple(modules)
    if len(names) != len(blocks):
        raise ValueError(f"expected different names, got {[n for n, _ in blocks]}")
    if not names:
        raise ValueError("expected at least one block, got none")
    if unknown := sorted(set(stochastic) - set(names)):
        raise ValueError(f"expected stochastic among {list(names)}, got {unknown}")

    def init(key: PRNGKeyArray, image_shape: tuple[int, ...]) -> tuple[Params, State]:
        if len(image_shape) != 3:
            raise ValueError(
                f"expected image shape [height, width, channels], got {image_shape}"
            )
        x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        params, state = {}, {}
        for i, name in enumerate(names):
            module = modules[name]
            variables = module.init(
                jax.random.fold_in(key, i), jnp.zeros(x.shape, x.dtype), EVAL
            )
            params[name] = variables.get("params", {})
            state[name] = variables.get(_STATE, {})
            x = jax.eval_shape(
                lambda v, x, module=module: module.apply(v, x, EVAL), variables, x
            )
        return params, state

    def apply(
        params: Params,
        state: State,
        x: Shaped[Array, "n *item"],
        *,
        mode: Modes = EVAL,
        rng: PRNGKeyArray | None = None,
        first: str | None = None,
        last: str | None = None,
    ) -> tuple[Array, State]:
        start = _index(names, first, 0)
        if start == 0:
            _check_images(x)
        stop = _index(names, last, len(names) - 1) + 1
        if stop <= start:
            raise ValueError(
                f"expected first and last in the order {list(names)}, got first = "
                f"{first!r} after last = {last!r}"
            )
        state = dict(state)
        for i in range(start, stop):
            name = names[i]
            x, state[name] = _run(
                name,
                modules[name],
                # Trees of parameters may lack layers that have no parameters.
                {"params": params.get(name, {}), _STATE: state.get(name, {})},
                x,
                layer_mode(mode, name),
                None if rng is None else jax.random.fold_in(rng, i),
            )
        return x, state

    return Net(init, apply, names, tuple(stochastic), spec)


def _run(
    name: str,
    module: nn.Module,
    variables: Mapping[str, Any],
    x: Array,
    mode: Mode,
    rng: PRNGKeyArray | None,
) -> tuple[Array, State]:
    rngs = {} if rng is None else {"dropout": rng}
    # Without mutable collections, the statistics are returned unchanged.
    mutable = [_STATE] if mode.batch_norm == "batch" else []
    try:
        out: Any = module.apply(variables, x, mode, rngs=rngs, mutable=mutable)
    except ScopeParamShapeError as e:
        raise ValueError(
            f"expected an input that fits the parameters of {name}, got shape "
            f"{x.shape}: {e}"
        ) from e
    except InvalidRngError as e:
        raise ValueError(f"expected an rng for {name}, which has dropout") from e
    y, updated = out
    return y, updated.get(_STATE, variables[_STATE])


def _check_images(x: Array) -> None:
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            "expected floating images [n, height, width, channels], got shape "
            f"{x.shape} and type {x.dtype}; jaxfer.data.to_float converts pixels"
        )


def _index(names: tuple[str, ...], name: str | None, default: int) -> int:
    if name is None:
        return default
    if name not in names:
        raise ValueError(f"expected a layer among {list(names)}, got {name!r}")
    return names.index(name)
