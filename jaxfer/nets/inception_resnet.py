"""InceptionResNetV2, for photographs."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.branches import (
    Branches,
    ConvNorm,
    Embed,
    Mixed,
    Pool,
    Unit,
    branch_names,
    side_by_side,
    unit_names,
)
from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Precision, with_embedding
from jaxfer.nets.names import Names
from jaxfer.types import Mode, Net

_SMALLEST = 75
_POOL = Pool("max", 3, 2, "VALID")


def _halving(width: int) -> Unit:
    return Unit(width, (3, 3), 2, "VALID")


# Szegedy et al. 2017, Figure 14. Two layers end with a pool.
_STEM = {
    "conv2d_1a": (_halving(32), None),
    "conv2d_2a": (Unit(32, (3, 3), 1, "VALID"), None),
    "conv2d_2b": (Unit(64, (3, 3)), _POOL),
    "conv2d_3b": (Unit(80), None),
    "conv2d_4a": (Unit(192, (3, 3), 1, "VALID"), _POOL),
}
# The branches of a mixed block, and of each kind of block with a shortcut.
_BRANCHES: dict[str, Branches] = {
    "mixed_5b": (
        ("branch0", (Unit(96),)),
        ("branch1", (Unit(48), Unit(64, (5, 5)))),
        ("branch2", (Unit(64), Unit(96, (3, 3)), Unit(96, (3, 3)))),
        ("branch3", (Pool("mean"), Unit(64))),
    ),
    "mixed_6a": (
        ("branch0", (_halving(384),)),
        ("branch1", (Unit(256), Unit(256, (3, 3)), _halving(384))),
        ("branch2", (_POOL,)),
    ),
    "mixed_7a": (
        ("branch0", (Unit(256), _halving(384))),
        ("branch1", (Unit(256), _halving(288))),
        ("branch2", (Unit(256), Unit(288, (3, 3)), _halving(320))),
        ("branch3", (_POOL,)),
    ),
    "block35": (
        ("branch0", (Unit(32),)),
        ("branch1", (Unit(32), Unit(32, (3, 3)))),
        ("branch2", (Unit(32), Unit(48, (3, 3)), Unit(64, (3, 3)))),
    ),
    "block17": (
        ("branch0", (Unit(192),)),
        ("branch1", (Unit(128), Unit(160, (1, 7)), Unit(192, (7, 1)))),
    ),
    "block8": (
        ("branch0", (Unit(192),)),
        ("branch1", (Unit(192), Unit(224, (1, 3)), Unit(256, (3, 1)))),
    ),
}
_SCALES = {"block35": 0.17, "block17": 0.10, "block8": 0.20}
# A mixed block, the blocks that follow it, and their name in timm.
_PARTS = (
    ("mixed_5b", "block35", "repeat"),
    ("mixed_6a", "block17", "repeat_1"),
    ("mixed_7a", "block8", "repeat_2"),
)


@dataclass(frozen=True)
class InceptionResNetV2:
    """Six convolutions, 43 blocks of branches, most with a shortcut, and mean pooling.

    Szegedy et al. 2017, Section 3.2, in the form of TensorFlow-slim, Keras and timm:
    BatchNorm with epsilon 1e-3 and a short stem. Embeddings have 1536 dimensions, for
    images of 75 pixels or more; published weights expect 299 pixels in [-1, 1].

    A block with a shortcut is `ReLU(x + scale * convolution(branches(x)))`, with scales
    0.17, 0.10 and 0.20; the last has scale 1 and no ReLU.

    Attributes:
        repeats: blocks of each kind with a shortcut, without the last block.
        dropout: share of the pooled features that is dropped in training.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Example:
        >>> InceptionResNetV2(repeats=(1, 1, 1)).build().layers[4:]
        ... # doctest: +NORMALIZE_WHITESPACE
        ('conv2d_4a', 'mixed_5b', 'block35_1', 'mixed_6a', 'block17_1', 'mixed_7a',
         'block8_1', 'block8_2', 'conv2d_7b')
    """

    repeats: tuple[int, int, int] = (10, 20, 9)
    dropout: float = 0.2
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers by the names of Keras, conv2d_1a to conv2d_7b."""
        dtype = jnp.dtype(self.precision)
        blocks: list[tuple[str, nn.Module]] = [
            (name, (_First if name == "conv2d_1a" else ConvNorm)(unit, dtype, pool))
            for name, (unit, pool) in _STEM.items()
        ]
        for name, theirs in self._layers().items():
            kind = _kind(name)
            block = Mixed(_BRANCHES[kind], dtype)
            if kind in _SCALES:
                last = theirs == "block8"
                scale = 1.0 if last else _SCALES[kind]
                block = _Block(_BRANCHES[kind], scale, not last, dtype)
            blocks.append((name, block))
        blocks.append(("conv2d_7b", ConvNorm(Unit(1536), dtype, Embed(self.dropout))))
        stochastic = ("conv2d_7b",) if self.dropout else ()
        blocks = with_embedding(blocks, self.dim)
        return chain(blocks, stochastic=stochastic, spec=self)

    def names(self) -> tuple[Names, ...]:
        """The names of its weights in timm."""
        found = unit_names({name: name for name in (*_STEM, "conv2d_7b")})
        for name, theirs in self._layers().items():
            found |= branch_names(name, theirs, _BRANCHES[_kind(name)])
            if _kind(name) in _SCALES:
                found[f"{name}/conv2d"] = f"{theirs}.conv2d"
        return (Names("timm", found, "classif"),)

    def _layers(self) -> dict[str, str]:
        """The names in timm of the layers with branches, by their names here."""
        found = {}
        for (mixed, kind, theirs), repeats in zip(_PARTS, self.repeats, strict=True):
            found[mixed] = mixed
            found |= {f"{kind}_{i + 1}": f"{theirs}.{i}" for i in range(repeats)}
        return {**found, f"block8_{self.repeats[2] + 1}": "block8"}


def _kind(name: str) -> str:
    """The name of a layer, without its number if it has a shortcut."""
    return name if name in _BRANCHES else name.rpartition("_")[0]


class _First(ConvNorm):
    """The first layer, which refuses images that the last layers have no pixel for."""

    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        if min(x.shape[1:3]) < _SMALLEST:
            raise ValueError(
                f"expected images of {_SMALLEST} x {_SMALLEST} pixels or more for "
                f"InceptionResNetV2, got {x.shape[1]} x {x.shape[2]}"
            )
        return super().__call__(x, mode)


class _Block(nn.Module):
    branches: Branches
    scale: float
    relu: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        y = side_by_side(x, self.branches, self.dtype, mode)
        conv = nn.Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="conv2d")
        y = x.astype(self.dtype) + self.scale * conv(y)
        return nn.relu(y) if self.relu else y
