"""Conversion between state dictionaries of PyTorch and parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer.memo import memoised
from jaxfer.models.programs import trained_head
from jaxfer.nets import Names
from jaxfer.trees import flatten, unflatten
from jaxfer.types import Head, Net, Params, State

# The names of the arrays of a module here and in PyTorch.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# A count of PyTorch's BatchNorm, which nothing here needs.
_COUNT = "num_batches_tracked"
_SHOWN = 8


class _Place(NamedTuple):
    """Where an array is in a state dictionary, and the order of its axes there."""

    name: str
    axes: tuple[int, ...] | None


def from_state_dict(
    net: Net, arrays: Mapping[str, Any], image_shape: tuple[int, ...], names: Names
) -> tuple[Params, State, Head | None]:
    """Parameters, statistics and classifier from a state dictionary.

    Kernels `[out, in, height, width]` become `[height, width, in, out]`, and weights
    `[out, in]` become `[in, out]`. Layers that `names` does not mention are left out.

    Args:
        net: the network.
        arrays: arrays by name.
        image_shape: `[height, width, channels]`.
        names: the names of the weights.

    Returns:
        Parameters, statistics, and a linear head; None without a classifier.

    Raises:
        ValueError: arrays that are missing, are of another shape, or have no use; the
            message lists them.

    Example:
        >>> from jaxfer.nets import Flatten
        >>> names = Names("mine", {"embedding/Dense_0": "linear"}, "head")
        >>> arrays = {"linear.weight": np.ones((2, 4)), "linear.bias": np.zeros(2)}
        >>> net = Flatten(dim=2).build()
        >>> params, _, head = from_state_dict(net, arrays, (2, 2, 1), names)
        >>> params["embedding"]["Dense_0"]["kernel"].shape, head
        ((4, 2), None)
    """
    places, shapes = _places(net, image_shape, names)
    missing, misshaped, found = [], [], {}
    for path, place in places.items():
        if place.name not in arrays:
            missing.append(place.name)
            continue
        x = np.asarray(arrays[place.name])
        if place.axes is not None and x.ndim == len(place.axes):
            x = np.transpose(x, place.axes)
        if x.shape != shapes[path].shape:
            misshaped.append(f"{place.name}: {x.shape}, not {shapes[path].shape}")
        found[path] = x
    head_names = [f"{names.head}.{part}" for part in ("weight", "bias")]
    used = {place.name for place in places.values()} | {*head_names}
    unused = [
        name
        for name in arrays
        if name not in used
        and not name.endswith(f".{_COUNT}")
        and not name.startswith(names.unused)
    ]
    if missing or misshaped or unused:
        raise ValueError(
            f"expected the {len(places)} arrays of this network by the names of "
            f"{names.library}"
            + _listed(", got none for", missing)
            + _listed(", got other shapes for", misshaped)
            + _listed(", got names without use", unused)
        )
    # Half precision becomes single; double stays where JAX has it enabled.
    leaves = {
        path: jnp.asarray(x.astype(np.promote_types(x.dtype, shapes[path].dtype)))
        for path, x in found.items()
    }
    trees = unflatten(leaves)
    params = {name: trees.get("params", {}).get(name, {}) for name in net.layers}
    state = {name: trees.get("state", {}).get(name, {}) for name in net.layers}
    head = None
    if head_names[0] in arrays:
        parts = zip(("weight", "bias"), head_names, strict=True)
        given = {part: arrays[name] for part, name in parts if name in arrays}
        given = {part: jnp.asarray(x, jnp.float32) for part, x in given.items()}
        head = trained_head(given, unit=False)
    return params, state, head


def to_state_dict(
    net: Net,
    params: Params,
    state: State,
    names: Names,
    head: Head | None = None,
) -> dict[str, np.ndarray]:
    """The state dictionary of a network; the inverse of `from_state_dict`.

    Args:
        net: the network.
        params: its parameters.
        state: its statistics.
        names: the names of the weights.
        head: a linear head, which becomes the classifier; None for none.

    Raises:
        ValueError: a layer that `names` does not mention, or a head that is not linear.
    """
    tree = flatten({"params": params, "state": state})
    # A layer without parameters is an empty dictionary.
    leaves = {k: np.asarray(x) for k, x in tree.items() if not isinstance(x, Mapping)}
    arrays, without = {}, []
    for path, x in leaves.items():
        place = _place(path.split("/", 1)[1], x.ndim, names)
        if place is None:
            without.append(path)
        else:
            if place.axes is not None:
                x = np.ascontiguousarray(np.transpose(x, np.argsort(place.axes)))
            arrays[place.name] = x
    if without:
        raise ValueError(
            f"expected layers with a name in {names.library}"
            + _listed(", got others", without)
        )
    if head is not None:
        if head.unit or head.centre is not None or head.pool is not None:
            raise ValueError(
                "expected a linear head, got one of another kind: convert it with "
                "`jaxfer.as_linear`"
            )
        scale = np.asarray(head.scale, np.float32).reshape(-1, 1)
        arrays[f"{names.head}.weight"] = np.asarray(head.weight) * scale
        arrays[f"{names.head}.bias"] = np.asarray(head.bias)
    return arrays


def _places(
    net: Net, image_shape: tuple[int, ...], names: Names
) -> tuple[dict[str, _Place], dict[str, Any]]:
    """Where each array of a network is, and its shape here."""
    shapes = _shapes(net, tuple(image_shape))
    places = {
        path: _place(path.split("/", 1)[1], len(like.shape), names)
        for path, like in shapes.items()
    }
    return {path: place for path, place in places.items() if place}, shapes


@memoised(8)
def _shapes(net: Net, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The shapes of all arrays, by path; tracing a large network takes seconds."""
    params, state = jax.eval_shape(
        lambda key: net.init(key, image_shape), jax.random.key(0)
    )
    tree = flatten({"params": params, "state": state})
    return {path: x for path, x in tree.items() if not isinstance(x, Mapping)}


def _place(path: str, rank: int, names: Names) -> _Place | None:
    """The place of one array; None if the names do not mention it."""
    if path in names.modules:
        return _Place(names.modules[path], None)
    module, _, leaf = path.rpartition("/")
    if module not in names.modules:
        return None
    axes = {("kernel", 4): (2, 3, 1, 0), ("kernel", 2): (1, 0)}.get((leaf, rank))
    return _Place(f"{names.modules[module]}.{_LEAVES[leaf]}", axes)


def _listed(text: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{text} {', '.join(names[:_SHOWN])}{more}"
