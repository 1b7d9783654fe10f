"""Meshes and where arrays lie on them: the only home of jax.sharding.

A mesh has the axes "data", over which episodes, batches and populations are spread,
and "model", over which wide parameters are; one device is a mesh of one. Arrays are
placed with shardings and `jax.jit` does the rest (what pjit became).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxfer.trees import Rules, flatten, match, unflatten
from jaxfer.types import Params


def make_mesh(data: int | None = None, model: int = 1) -> Mesh:
    """The mesh over `data * model` devices.

    Args:
        data: devices over which examples are spread; default: all that are left.
        model: devices over which one set of parameters is spread.

    Raises:
        ValueError: more devices than there are, or none.

    Example:
        >>> dict(make_mesh(1).shape)
        {'data': 1, 'model': 1}
    """
    devices = jax.devices()
    if data is None:
        data = len(devices) // max(model, 1)
    if min(data, model) < 1 or data * model > len(devices):
        raise ValueError(
            f"expected data x model, each at least 1, within {len(devices)} devices, "
            f"got {data} x {model}"
        )
    # Automatic propagation, as a contraction over sharded weights needs it.
    return jax.make_mesh(
        (data, model),
        ("data", "model"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: data * model],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """The leading axis spread over "data"."""
    return NamedSharding(mesh, PartitionSpec("data"))


def spread(tree: PyTree, mesh: Mesh) -> PyTree:
    """Within jit: the leading axis of every array spread over "data".

    What comes before is computed whole on every device: for little things, such as
    the rows of an episode, that is cheaper than to gather them.
    """
    tree = jax.lax.with_sharding_constraint(tree, replicated(mesh))
    return jax.lax.with_sharding_constraint(tree, over_data(mesh))


def spread_members(
    function: Callable[..., Any], mesh: Mesh, in_axes: PyTree, out_axes: PyTree
) -> Callable[..., Any]:
    """A function of many members, each device's share of them computed there alone.

    By `jax.shard_map`: left to itself, XLA gathers the weights and activations of all
    members of a vmapped convolution onto every device.

    Args:
        function: vmapped over members.
        mesh: whose "data" axis divides their number.
        in_axes: as of `jax.vmap`: 0 where members are stacked, None where arguments are
            common to all.
        out_axes: likewise.
    """

    def specs(axes: PyTree) -> PyTree:
        return jax.tree.map(
            lambda axis: PartitionSpec() if axis is None else PartitionSpec("data"),
            axes,
            is_leaf=lambda axis: axis is None,
        )

    return jax.shard_map(
        function, mesh=mesh, in_specs=specs(in_axes), out_specs=specs(out_axes)
    )


def place_batch(tree: PyTree, mesh: Mesh, *, axis: int = 0) -> PyTree:
    """Host arrays of which each device of the mesh is given its share of one axis.

    Args:
        tree: arrays.
        mesh: whose "data" axis divides the size of the axis.
        axis: that is spread.
    """
    spec = PartitionSpec(*[None] * axis, "data")
    return jax.device_put(tree, NamedSharding(mesh, spec))


def place(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays put whole on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def from_host(tree: PyTree, mesh: Mesh) -> PyTree:
    """The global batch of which each process holds its own rows."""
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(over_data(mesh), x), tree
    )


def param_shardings(rules: Rules, params: Params, mesh: Mesh) -> Params:
    """The sharding of each parameter, by rules.

    Args:
        rules: (pattern, axes) pairs, where axes names the mesh axis ("data", "model")
            or None for each leading axis of the array; () is whole on every device.
        params: a nested dictionary of arrays.
        mesh: of `make_mesh`.

    Raises:
        ValueError: as `trees.match`, or an axis that does not divide among its devices.

    Example:
        >>> params = {"conv1": {"bias": jax.numpy.zeros(4)}}
        >>> shardings = param_shardings([("**", ("model",))], params, make_mesh(1))
        >>> tuple(shardings["conv1"]["bias"].spec)
        ('model',)
    """
    leaves = flatten(params)
    axes = flatten(match(rules, params))
    # A layer without parameters stays {}.
    return unflatten(
        {
            path: _named(path, leaf, axes[path], mesh) if hasattr(leaf, "shape") else {}
            for path, leaf in leaves.items()
        }
    )


def _named(path: str, leaf: Any, axes: tuple[str | None, ...], mesh: Mesh):
    for size, axis in zip(leaf.shape, axes, strict=False):
        if axis is not None and size % mesh.shape[axis]:
            raise ValueError(
                f"expected an axis of {path} that is a multiple of the "
                f"{mesh.shape[axis]} devices of {axis!r}, got {size}"
            )
    if len(axes) > leaf.ndim:
        raise ValueError(
            f"expected a rule for at most the {leaf.ndim} axes of {path}, got one for "
            f"{len(axes)}"
        )
    return NamedSharding(mesh, PartitionSpec(*axes))
