"""Branches of convolutions side by side, which the Inception networks are made of."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.layers import batch_norm
from jaxfer.types import Mode

Zeros = Literal["SAME", "VALID"] | tuple[tuple[int, int], tuple[int, int]]


class Unit(NamedTuple):
    """A convolution, BatchNorm with epsilon 1e-3, and ReLU.

    Attributes:
        width: channels of the output.
        sides: rows and columns of the kernel.
        stride: the step of both sides.
        padding: zeros before and after the rows, and before and after the columns; or
            'SAME' as in TensorFlow, or 'VALID' for none.
    """

    width: int
    sides: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Zeros = "SAME"


class Pool(NamedTuple):
    """A pool of squares.

    Attributes:
        kind: 'max', or 'mean' of the values that are not padding.
        side: side of the squares.
        stride: the step of both sides.
        padding: 'SAME' or 'VALID' as in TensorFlow, or 'CEIL' as in PyTorch with
            ceil_mode, where the last squares may reach beyond the map.
    """

    kind: Literal["max", "mean"] = "max"
    side: int = 3
    stride: int = 1
    padding: Literal["SAME", "VALID", "CEIL"] = "SAME"


class Embed(NamedTuple):
    """The mean of a map, with dropout in training."""

    dropout: float


# A branch: what runs one after another. Branches side by side have names.
Branch = tuple[Unit | Pool, ...]
Branches = tuple[tuple[str, Branch], ...]


class ConvNorm(nn.Module):
    """A layer of one unit, and what follows it.

    Attributes:
        unit: the convolution, BatchNorm and ReLU.
        dtype: the dtype of activations.
        then: what follows; None for nothing.
    """

    unit: Unit
    dtype: DTypeLike
    then: Pool | Embed | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        """Return the map, or the vectors."""
        width, sides, stride, padding = self.unit
        x = nn.Conv(
            width,
            sides,
            strides=stride,
            padding=padding,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)
        x = batch_norm(mode, self.dtype, epsilon=1e-3, name="norm")(x)
        return finished(nn.relu(x), self.then, mode)


class Mixed(nn.Module):
    """A layer of branches, and what follows it.

    Attributes:
        branches: the branches, by name.
        dtype: the dtype of activations.
        then: what follows; None for nothing.
    """

    branches: Branches
    dtype: DTypeLike
    then: Pool | Embed | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        """Return the map, or the vectors."""
        x = side_by_side(x, self.branches, self.dtype, mode)
        return finished(x, self.then, mode)


def side_by_side(
    x: Float[Array, "n h w c"], branches: Branches, dtype: DTypeLike, mode: Mode
) -> Float[Array, "n h2 w2 c2"]:
    """The outputs of all branches, one after another along the channels.

    It is called within a module, which has the units by the names of `unit_paths`.
    """
    outputs = []
    for name, branch in branches:
        y = x
        for path, part in _paths(name, branch):
            if isinstance(part, Pool):
                y = pooled(y, part)
            else:
                y = ConvNorm(part, dtype, name=path)(y, mode)
        outputs.append(y)
    return jnp.concatenate(outputs, axis=-1)


def finished(
    x: Float[Array, "n h w c"], then: Pool | Embed | None, mode: Mode
) -> Float[Array, "n ..."]:
    """A layer's output after what follows; called within a module."""
    if isinstance(then, Pool):
        return pooled(x, then)
    if then is None:
        return x
    x = x.mean(axis=(1, 2))
    return nn.Dropout(then.dropout, deterministic=not mode.dropout)(x)


def pooled(x: Float[Array, "n h w c"], pool: Pool) -> Float[Array, "n h2 w2 c"]:
    """A map after a pool.

    Example:
        >>> x = jnp.arange(5.0).reshape(1, 1, 5, 1)
        >>> pooled(x, Pool("max", 3, 2, "CEIL")).ravel()
        Array([2., 4.], dtype=float32)
        >>> pooled(x, Pool("mean", 3, 2)).ravel()
        Array([0.5, 2. , 3.5], dtype=float32)
    """
    kind, side, stride, _ = pool
    padding: Any = pool.padding
    if padding == "CEIL":
        # The last square begins within the map.
        rest = [max(side - n, (side - n) % stride) for n in x.shape[1:3]]
        padding = [(0, zeros) for zeros in rest]
    sides, strides = (side, side), (stride, stride)
    if kind == "max":
        return nn.max_pool(x, sides, strides, padding)
    return nn.avg_pool(x, sides, strides, padding, count_include_pad=False)


def branch_names(layer: str, theirs: str, branches: Branches) -> dict[str, str]:
    """The names of the weights of branches in torchvision and timm.

    There a branch of several parts is a sequence, in which pools count too.

    Args:
        layer: the name of the layer here.
        theirs: its name there.
        branches: its branches.

    Example:
        >>> branches = (("branch4", (Pool(), Unit(8))),)
        >>> branch_names("block35_1", "repeat.0", branches)["block35_1/branch4_1/norm"]
        'repeat.0.branch4.1.bn'
    """
    found = {}
    for name, branch in branches:
        for path, part in _paths(name, branch):
            if isinstance(part, Unit):
                other = f"{theirs}.{path.replace('_', '.')}"
                found |= unit_names({f"{layer}/{path}": other})
    return found


def unit_names(names: Mapping[str, str]) -> dict[str, str]:
    """The names of the weights of units in torchvision and timm.

    Args:
        names: the name of each unit there, by its name here.

    Example:
        >>> unit_names({"conv1": "first"})
        {'conv1/conv': 'first.conv', 'conv1/norm': 'first.bn'}
    """
    pairs = (("conv", "conv"), ("norm", "bn"))
    return {
        f"{ours}/{here}": f"{theirs}.{there}"
        for ours, theirs in names.items()
        for here, there in pairs
    }


def _paths(name: str, branch: Branch) -> Sequence[tuple[str, Unit | Pool]]:
    """The parts of a branch by their names here."""
    if len(branch) == 1:
        return [(name, branch[0])]
    return [(f"{name}_{i}", part) for i, part in enumerate(branch)]
