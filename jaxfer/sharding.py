"""Meshes and the placement of arrays on them: the only module with jax.sharding.

A mesh has two axes: "data", over which episodes, batches and populations are sharded,
and "model", over which wide parameters are sharded; one device is a mesh of one. Arrays
are placed with shardings, and `jax.jit` partitions the computation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import PyTree

from jaxfer.trees import Rules, flatten, match, unflatten
from jaxfer.types import Params


def make_mesh(
    data: int | None = None, model: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """The mesh over `data * model` devices.

    With several processes, a mesh has devices of this process, if they are enough, or
    all devices of all processes.

    Args:
        data: devices over which examples are sharded; default: all that are left.
        model: devices over which one set of parameters is sharded.
        devices: the devices, such as those of a topology to compile for; default: those
            that JAX finds.

    Raises:
        ValueError: more devices than are available, or none; or more than this process
            has, but not all.

    Example:
        >>> dict(make_mesh(1).shape)
        {'data': 1, 'model': 1}
    """
    given = devices is not None
    devices = jax.devices() if devices is None else [*devices]
    if data is None:
        data = len(devices) // max(model, 1)
    if min(data, model) < 1 or data * model > len(devices):
        raise ValueError(
            f"expected from 1 to {len(devices)} devices, the number that JAX finds, "
            f"got {data}" + (f" x {model}" if model != 1 else "")
        )
    own, wanted = devices if given else jax.local_devices(), data * model
    if wanted <= len(own):
        devices = own
    elif wanted < len(devices):
        raise ValueError(
            f"expected up to {len(own)} devices, those of this process, or all "
            f"{len(devices)} of the {jax.process_count()} processes, got {wanted}"
        )
    devices = devices[: data * model]
    # A contraction over sharded weights needs automatic propagation.
    options: Any = {"axis_types": (AxisType.Auto, AxisType.Auto)}
    slices = [getattr(device, "slice_index", 0) for device in devices]
    if len({*slices}) > 1:
        # JAX arranges the chips of one TPU slice only. Neighbours stay together here.
        devices = [devices[i] for i in np.argsort(slices, kind="stable")]
        placed = np.array(devices).reshape(data, model)
        return Mesh(placed, ("data", "model"), **options)
    return jax.make_mesh((data, model), ("data", "model"), devices=devices, **options)


def share_of(mesh: Mesh) -> tuple[int, int]:
    """The number of this process among those of a mesh, and how many they are.

    Example:
        >>> share_of(make_mesh(1))
        (0, 1)
    """
    owners = sorted({device.process_index for device in mesh.devices.flat})
    return owners.index(jax.process_index()), len(owners)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that puts whole arrays on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """The sharding that splits one axis over "data"."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def over_model(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """The sharding that splits one axis over "model"."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "model"))


def rows_by_device(
    function: Callable[..., PyTree], count: int, mesh: Mesh | None, *args: PyTree
) -> PyTree:
    """Within jit, compute some numbered rows so that each device computes its own.

    The rows do not depend on the number of devices, and devices do not communicate.

    Args:
        function: `function(numbers, *args)` returns one row per number; a row depends
            on its own number only.
        count: the number of rows, a multiple of the devices of "data".
        mesh: the mesh; None to compute all rows on the device at hand.
        *args: arrays that every device has whole.

    Returns:
        The rows 0 to count - 1, with the leading axis sharded over "data".

    Example:
        >>> rows_by_device(lambda i, x: i * x, 3, make_mesh(1), 10).tolist()
        [0, 10, 20]
    """
    if mesh is None:
        return function(jnp.arange(count, dtype=jnp.int32), *args)
    mine = count // mesh.shape["data"]

    def own(*args: PyTree) -> PyTree:
        first = jax.lax.axis_index("data") * mine
        return function(first + jnp.arange(mine, dtype=jnp.int32), *args)

    return jax.shard_map(
        own, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec("data")
    )(*args)


def spread_members(
    function: Callable[..., Any], mesh: Mesh, in_axes: PyTree, out_axes: PyTree
) -> Callable[..., Any]:
    """A function of stacked members that runs each device's members on that device.

    It uses `jax.shard_map`: without it, XLA gathers the weights and activations of all
    members of a vmapped convolution onto every device.

    Args:
        function: a function that is vmapped over members.
        mesh: a mesh whose "data" axis divides the number of members.
        in_axes: as in `jax.vmap`: 0 where members are stacked, None for arguments that
            all members share.
        out_axes: the same for the results.
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


def init_rows(make: Callable[[], PyTree], rows: int, mesh: Mesh | None) -> PyTree:
    """Make arrays in parts: each device along "model" makes its own rows.

    The values are those of `make()`. No device has the whole of an array.

    Args:
        make: a function that returns arrays, and that can be compiled.
        rows: the size of the leading axis of the arrays to split, a multiple of the
            devices along "model"; other arrays are whole on every device.
        mesh: the mesh; None for one device.

    Raises:
        ValueError: rows that the devices do not divide.

    Example:
        >>> init_rows(lambda: jnp.arange(4), 4, None).tolist()
        [0, 1, 2, 3]
    """
    if mesh is None or mesh.shape["model"] == 1:
        return make()
    if rows % mesh.shape["model"]:
        raise ValueError(
            f"expected a number of classes that is a multiple of the "
            f"{mesh.shape['model']} devices of 'model', got {rows}"
        )
    at = jax.tree.map(
        lambda x: over_model(mesh) if x.shape[:1] == (rows,) else replicated(mesh),
        jax.eval_shape(make),
    )
    return jax.jit(make, out_shardings=at)()


def split_rows(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Wrap a function so that each device along "model" calls it with its own rows.

    Args:
        function: a function of arrays that are split by their leading axis, and of
            replicated arrays. Its results are joined by their second axis.
        mesh: a mesh whose "model" axis divides the leading axes.
    """
    specs = PartitionSpec("model"), PartitionSpec()
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(None, "model")
    )


def place_batch(tree: PyTree, mesh: Mesh, *, axis: int = 0) -> PyTree:
    """Put host arrays on the mesh, with one axis sharded over "data".

    Args:
        tree: the arrays.
        mesh: a mesh whose "data" axis divides the size of the axis.
        axis: the axis that is sharded.
    """
    return _put(tree, over_data(mesh, axis=axis))


def place(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put host arrays whole on every device of the mesh.

    With several processes, all of them call it with the same arrays.
    """
    return _put(tree, replicated(mesh))


def place_as(tree: PyTree, shardings: PyTree) -> PyTree:
    """Put host arrays on devices, each with its own sharding; see `place`."""
    return jax.tree.map(_put, tree, shardings)


def _put(tree: PyTree, sharding: Sharding) -> PyTree:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: _put_share(x, sharding), tree)


def _put_share(x: Any, sharding: Sharding) -> jax.Array:
    """Put the part of an array that the devices of this process have."""
    if isinstance(x, jax.Array):
        if not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = _put_share(jax.random.key_data(x), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])


def local(tree: PyTree) -> PyTree:
    """Arrays on devices of several processes, as whole arrays of this one.

    All processes call it. Arrays of this process alone are returned as they are.
    """

    def one(x: jax.Array) -> jax.Array:
        if x.is_fully_addressable:
            return x
        if not x.is_fully_replicated:
            return jnp.asarray(multihost_utils.process_allgather(x, tiled=True))
        return jnp.asarray(np.asarray(x))

    return jax.tree.map(one, tree)


def from_host(tree: PyTree, mesh: Mesh, *, axis: int = 0) -> PyTree:
    """Make the global batch from the rows that each process holds.

    Args:
        tree: the arrays of this process.
        mesh: the mesh.
        axis: the axis that is sharded over "data".
    """
    sharding = over_data(mesh, axis=axis)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), tree
    )


def param_shardings(rules: Rules, params: Params, mesh: Mesh) -> Params:
    """The sharding of each parameter, by rules.

    Args:
        rules: (pattern, axes) pairs, where axes names the mesh axis ("data", "model")
            or None for each leading axis of the array; () is whole on every device.
        params: a nested dictionary of arrays.
        mesh: the mesh, made by `make_mesh`.

    Raises:
        ValueError: rules that `trees.match` refuses, or an axis whose size is not a
            multiple of its devices.

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
