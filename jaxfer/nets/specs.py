"""Conversions of an architecture, a Linen module, or a name to a Net."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError
from jaxtyping import Array, PRNGKeyArray

from jaxfer.memo import memoised
from jaxfer.nets.alexnet import AlexNetSmall
from jaxfer.nets.conv4 import Conv4
from jaxfer.nets.efficientnet import EfficientNetLite
from jaxfer.nets.flatten import Flatten
from jaxfer.nets.inception import InceptionV1
from jaxfer.nets.inception_resnet import InceptionResNetV2
from jaxfer.nets.mobilenet import MobileNetV2
from jaxfer.nets.resnet import ResNet
from jaxfer.nets.resnet12 import ResNet12
from jaxfer.nets.resnet20 import ResNet20
from jaxfer.nets.vit import ViT
from jaxfer.types import EVAL, Mode, Modes, Net, Params, State

_STATE = "batch_stats"
# Names of the argument that tells Linen modules whether they train.
_FLAGS = ("train", "training", "is_training")


@runtime_checkable
class Spec(Protocol):
    """An architecture: a frozen dataclass of plain values with a `build` method."""

    def build(self) -> Net:
        """Build the network."""
        ...


AnyNet = Net | Spec | nn.Module
_SPECS: dict[str, Any] = {
    spec.__name__: spec
    for spec in (
        AlexNetSmall,
        Conv4,
        EfficientNetLite,
        Flatten,
        InceptionResNetV2,
        InceptionV1,
        MobileNetV2,
        ResNet,
        ResNet12,
        ResNet20,
        ViT,
    )
}
NAMES = tuple(_SPECS)


def as_net(net: AnyNet, image_shape: tuple[int, ...] | None = None) -> Net:
    """The Net for a description of a network; equal descriptions give the same Net.

    Args:
        net: a `Net`, an architecture of `jaxfer.nets`, anything with a `build()` that
            returns a `Net`, or a Linen module.
        image_shape: `[height, width, channels]`, required for a Linen module, whose
            parameter groups become the layers.

    Raises:
        ValueError: an object that is not a network, or a Linen module without a shape.

    Example:
        >>> as_net(Conv4(width=8)).layers
        ('conv1', 'conv2', 'conv3', 'conv4')
    """
    if isinstance(net, Net):
        return net
    if isinstance(net, nn.Module):
        if image_shape is None:
            raise ValueError("expected image_shape with a Linen module")
        return _from_linen(net, tuple(image_shape))
    if isinstance(net, Spec) and not isinstance(net, type):
        return _built(net)
    raise ValueError(
        "expected a Net, an architecture of jaxfer.nets or a Linen module, got "
        f"{type(net).__name__}"
    )


def spec_of(name: str, **fields: Any) -> Any:
    """The architecture with a given name, with some of its fields set.

    Args:
        name: the name of a class of `jaxfer.nets`, such as 'Conv4'.
        fields: fields of that class.

    Raises:
        ValueError: an unknown name, or a field that the architecture does not have.

    Example:
        >>> spec_of("ResNet20", width=8)
        ResNet20(width=8, dim=None, precision='float32')
    """
    if name not in _SPECS:
        raise ValueError(
            f"expected a network of {list(NAMES)} or an import path such as "
            f"'my_package:make_net', got {name!r}"
        )
    spec = _SPECS[name]
    known = {field.name for field in dataclasses.fields(spec)}
    if unknown := sorted(set(fields) - known):
        raise ValueError(f"{name} has no option {unknown}: it has {sorted(known)}")
    return spec(**fields)


def by_name(name: str, **fields: Any) -> AnyNet:
    """The network with a given name or import path.

    Args:
        name: the name of a class of `jaxfer.nets`; or 'package.module:function', where
            the function returns anything that `as_net` accepts.
        fields: fields of the class, or keyword arguments of the function.

    Raises:
        ValueError: an unknown name, or a path that cannot be imported.

    Example:
        >>> by_name("jaxfer.nets:Conv4", width=8)
        Conv4(width=8, bn_scale_init='uniform', dim=None, precision='float32')
    """
    if ":" not in name:
        return spec_of(name, **fields)
    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
        return make(**fields)
    except (ImportError, AttributeError, TypeError) as e:
        raise ValueError(f"the network {name!r} cannot be made: {e}") from e


def num_params(net: AnyNet, image_shape: tuple[int, ...]) -> int:
    """The number of parameters of a network, without running statistics.

    Args:
        net: a network, see `as_net`.
        image_shape: `(height, width, channels)`.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> num_params(Conv4(), (28, 28, 1))
        111680
    """
    init = as_net(net, image_shape).init
    params, _ = jax.eval_shape(lambda key: init(key, image_shape), jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


@memoised(128)
def _built(spec: Spec) -> Net:
    return spec.build()


@memoised(128)
def _from_linen(module: nn.Module, image_shape: tuple[int, ...]) -> Net:
    """A Net of any Linen module whose first argument is a batch of images."""
    call = _caller(module)
    x = jnp.zeros((1, *image_shape), jnp.float32)
    layers: list[str] = []

    def look(key: Array) -> Any:
        variables: Any = module.init(key, x, **call(EVAL))
        # Keep the order in which the module made them; a pytree would sort them.
        layers.extend(variables.get("params", {}))
        return variables

    shapes = jax.eval_shape(look, jax.random.key(0))
    if extra := sorted(set(shapes) - {"params", _STATE}):
        raise ValueError(
            f"expected a module with parameters and {_STATE}, got collections {extra}"
        )
    stateful = shapes.get(_STATE, {})

    def init(key: PRNGKeyArray, shape: tuple[int, ...]) -> tuple[Params, State]:
        images = jnp.zeros((1, *shape), jnp.float32)
        variables: Any = module.init(key, images, **call(EVAL))
        return dict(variables.get("params", {})), dict(variables.get(_STATE, {}))

    def apply(
        params: Params,
        state: State,
        x: Array,
        *,
        mode: Modes = EVAL,
        rng: PRNGKeyArray | None = None,
        first: str | None = None,
        last: str | None = None,
    ) -> tuple[Array, State]:
        if first is not None or last is not None:
            raise ValueError(
                "a plain Linen module runs as a whole: build the net from its blocks "
                "with `jaxfer.nets.chain` to run some of its layers"
            )
        chosen = _one_mode(mode, stateful)
        variables = {"params": params, **({_STATE: state} if state else {})}
        mutable = [_STATE] if chosen.batch_norm == "batch" and state else []
        rngs = {} if rng is None else {"dropout": rng}
        try:
            out: Any = module.apply(
                variables, x, **call(chosen), rngs=rngs, mutable=mutable
            )
        except (FlaxError, ZeroDivisionError) as e:
            raise ValueError(f"{type(module).__name__} cannot run: {e}") from e
        y, updated = out
        return y, {**state, **updated.get(_STATE, {})}

    # It is unknown which groups use random numbers, so all count as stochastic.
    names = tuple(layers)
    return Net(init, apply, names, stochastic=names)


def _caller(module: nn.Module) -> Callable[[Mode], dict[str, Any]]:
    """The keyword arguments that tell a module how to run."""
    known = inspect.signature(module.__call__).parameters
    if "mode" in known:
        return lambda mode: {"mode": mode}
    for flag in _FLAGS:
        if flag in known:
            return lambda mode: {flag: mode.batch_norm == "batch" or mode.dropout}
    if "deterministic" in known:
        return lambda mode: {"deterministic": not mode.dropout}
    return lambda mode: {}


def _one_mode(mode: Modes, stateful: Any) -> Mode:
    """The single mode of a module that cannot run its layers in different modes."""
    if isinstance(mode, Mode):
        return mode
    modes = set(mode.values())
    if len({(m.batch_norm, m.momentum) for m in modes}) > 1 and stateful:
        raise ValueError(
            "a plain Linen module with BatchNorm cannot be frozen in part: build the "
            "net from its blocks with `jaxfer.nets.chain`"
        )
    chosen = [m for m in modes if m.batch_norm == "batch"] or [*modes]
    return chosen[0] if chosen else EVAL
