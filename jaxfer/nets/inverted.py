"""Inverted residual blocks, which EfficientNet-Lite and MobileNetV2 are made of."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.convolution import depthwise
from jaxfer.nets.layers import Padding, batch_norm, padding_of, with_embedding
from jaxfer.nets.names import Names
from jaxfer.types import Mode, Net


class Stage(NamedTuple):
    """Blocks of the same width.

    Attributes:
        expand: channels inside a block, as a multiple of those of its input.
        width: channels of the output.
        repeats: number of blocks.
        stride: stride of the first block; the others have stride 1.
        side: side of the depthwise kernels.
    """

    expand: int
    width: int
    repeats: int
    stride: int
    side: int = 3


class How(NamedTuple):
    """What all layers of a network share: padding, epsilon of BatchNorm and dtype."""

    padding: Padding
    epsilon: float
    dtype: DTypeLike


def inverted_net(
    stages: Sequence[Stage], *, stem: int, top: int, dropout: float, how: How, spec: Any
) -> Net:
    """The network with layers stem, block1 to blockN and top.

    Args:
        stages: the blocks.
        stem: channels of the first convolution, 3x3 with stride 2.
        top: channels of the last convolution, 1x1, whose map is averaged.
        dropout: share of the averaged features that is dropped in training.
        how: what all layers share.
        spec: the architecture; its `dim` adds a linear layer `embedding`.
    """
    blocks: list[tuple[str, nn.Module]] = [("stem", _Unit(stem, 3, 2, how))]
    for stage in stages:
        for i in range(stage.repeats):
            stride = 1 if i else stage.stride
            block = _Block(stage.expand, stage.width, stride, stage.side, how)
            blocks.append((f"block{len(blocks)}", block))
    blocks.append(("top", _Top(top, dropout, how)))
    stochastic = ("top",) if dropout else ()
    return chain(with_embedding(blocks, spec.dim), stochastic=stochastic, spec=spec)


def inverted_names(
    library: str,
    stages: Sequence[Stage],
    names: Mapping[str, Sequence[str]],
    *,
    prefix: str,
    ends: Mapping[str, str],
    head: str,
) -> Names:
    """A library's names for the weights of `inverted_net`.

    Args:
        library: the name of the library.
        stages: the blocks.
        names: its names of the convolutions and BatchNorms in a block, in the order in
            which they run: under 'plain' of a block that expands no channels, under
            'inverted' of the others.
        prefix: its name of a block, with {i} for the number of the block from 0, {n}
            for the number from 1, {stage} for the stage from 0 and {j} for the number
            within the stage from 0.
        ends: its names of the other modules.
        head: its name of the classifier.
    """
    found, i = dict(ends), 0
    for k, stage in enumerate(stages):
        theirs = names["plain" if stage.expand == 1 else "inverted"]
        parts = ("expand", "depthwise", "project")[stage.expand == 1 :]
        ours = [f"{part}/{kind}" for part in parts for kind in ("conv", "norm")]
        for j in range(stage.repeats):
            block = prefix.format(i=i, n=i + 1, stage=k, j=j)
            i += 1
            for own, other in zip(ours, theirs, strict=True):
                found[f"block{i}/{own}"] = f"{block}.{other}"
    return Names(library, found, head)


def timm_names(stages: Sequence[Stage]) -> Names:
    """The names in timm of the weights of `inverted_net`."""
    return inverted_names(
        "timm",
        stages,
        {
            "plain": ("conv_dw", "bn1", "conv_pw", "bn2"),
            "inverted": ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"),
        },
        prefix="blocks.{stage}.{j}",
        ends=end_names("conv_stem", "bn1", "conv_head", "bn2"),
        head="classifier",
    )


def end_names(*names: str) -> dict[str, str]:
    """A library's names for convolution and BatchNorm of the stem and of the top.

    Example:
        >>> end_names("a", "b", "c", "d")["top/unit/norm"]
        'd'
    """
    ours = ("stem/conv", "stem/norm", "top/unit/conv", "top/unit/norm")
    return dict(zip(ours, names, strict=True))


class _Unit(nn.Module):
    """A convolution, BatchNorm and, unless it ends a block, ReLU6."""

    width: int
    side: int
    stride: int
    how: How
    is_depthwise: bool = False
    is_linear: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        dtype = self.how.dtype
        padding = padding_of(x, self.side, self.stride, self.how.padding)
        if self.is_depthwise:
            y = _Depthwise(self.side, self.stride, padding, dtype, name="conv")(x)
        else:
            y = nn.Conv(
                self.width,
                (self.side, self.side),
                strides=self.stride,
                padding=padding,
                use_bias=False,
                dtype=dtype,
                kernel_init=nn.initializers.he_normal(),
                name="conv",
            )(x)
        y = batch_norm(mode, dtype, epsilon=self.how.epsilon, name="norm")(y)
        return y if self.is_linear else jnp.clip(y, 0, 6)


class _Depthwise(nn.Module):
    side: int
    stride: int
    padding: Sequence[tuple[int, int]]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n ..."]:
        init = nn.initializers.he_normal(in_axis=(0, 1), out_axis=-1)
        shape = (self.side, self.side, 1, x.shape[-1])
        kernel = self.param("kernel", init, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return depthwise(x, kernel, stride=self.stride, padding=self.padding)


class _Block(nn.Module):
    expand: int
    width: int
    stride: int
    side: int
    how: How

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        inner = self.expand * x.shape[-1]
        y = x
        if self.expand > 1:
            y = _Unit(inner, 1, 1, self.how, name="expand")(y, mode)
        y = _Unit(
            inner, self.side, self.stride, self.how, is_depthwise=True, name="depthwise"
        )(y, mode)
        y = _Unit(self.width, 1, 1, self.how, is_linear=True, name="project")(y, mode)
        same = self.stride == 1 and x.shape == y.shape
        return x.astype(y.dtype) + y if same else y


class _Top(nn.Module):
    width: int
    dropout: float
    how: How

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        x = _Unit(self.width, 1, 1, self.how, name="unit")(x, mode).mean(axis=(1, 2))
        return nn.Dropout(self.dropout, deterministic=not mode.dropout)(x)
