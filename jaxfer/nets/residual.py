"""Residual blocks, which ResNet and ResNet12 are made of."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.layers import batch_norm, conv
from jaxfer.types import Mode


class Unit(NamedTuple):
    """A convolution and BatchNorm.

    Attributes:
        width: channels of the output.
        side: side of the kernels.
        stride: the stride.
    """

    width: int
    side: int = 3
    stride: int = 1


def residual(
    x: Float[Array, "n h w c"],
    mode: Mode,
    units: Sequence[Unit],
    activate: Callable[[Array], Array],
    dtype: DTypeLike,
    *,
    has_shortcut: bool,
) -> Float[Array, "n h2 w2 c2"]:
    """Run units beside a shortcut: `activate(units(x) + shortcut(x))`.

    Call it within a compact method, at most once.

    Args:
        x: a map.
        mode: how BatchNorm runs.
        units: what runs in order, with an activation after all but the last.
        activate: the activation.
        dtype: the dtype of activations.
        has_shortcut: whether the shortcut is a 1x1 convolution with BatchNorm; without,
            it is the identity.
    """
    y = x
    for i, (width, side, stride) in enumerate(units, 1):
        y = conv(width, side, dtype, stride=stride, name=f"conv{i}")(y)
        y = batch_norm(mode, dtype, name=f"norm{i}")(y)
        y = activate(y) if i < len(units) else y
    if has_shortcut:
        stride = math.prod(unit.stride for unit in units)
        x = conv(y.shape[-1], 1, dtype, stride=stride, name="conv_shortcut")(x)
        x = batch_norm(mode, dtype, name="norm_shortcut")(x)
    return activate(y + x.astype(y.dtype))


def residual_names(
    own: str, other: str, *, units: int, has_shortcut: bool
) -> dict[str, str]:
    """The names in PyTorch's libraries of the modules of a residual block.

    Args:
        own: the name of the block here.
        other: its name there.
        units: the number of units.
        has_shortcut: see `residual`.

    Example:
        >>> residual_names("block1", "layer1.0", units=1, has_shortcut=False)
        {'block1/conv1': 'layer1.0.conv1', 'block1/norm1': 'layer1.0.bn1'}
    """
    found = {}
    for i in range(1, units + 1):
        found[f"{own}/conv{i}"] = f"{other}.conv{i}"
        found[f"{own}/norm{i}"] = f"{other}.bn{i}"
    if has_shortcut:
        found[f"{own}/conv_shortcut"] = f"{other}.downsample.0"
        found[f"{own}/norm_shortcut"] = f"{other}.downsample.1"
    return found
