"""ResNet-18, ResNet-34 and ResNet-50, for photographs."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Precision, batch_norm, conv, with_embedding
from jaxfer.nets.names import Names
from jaxfer.nets.residual import Unit, residual, residual_names
from jaxfer.types import Mode, Net

# He et al. 2016, Table 1: the number of blocks of each stage.
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


@dataclass(frozen=True)
class ResNet:
    """A convolution, 8 or 16 residual blocks, and mean pooling.

    He et al. 2016, Table 1. A block has two 3x3 convolutions; at depth 50 it is a
    bottleneck of 1x1, 3x3 and 1x1 convolutions whose 3x3 convolution has the stride
    (version 1.5). A shortcut that changes the shape is a 1x1 convolution (option B).
    Padding is symmetric as in PyTorch.

    Embeddings have 512 dimensions, or 2048 at depth 50, for images of any size.

    Attributes:
        depth: the number of layers, 18, 34 or 50.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Raises:
        ValueError: an unknown depth.

    Example:
        >>> import jax
        >>> def size(net):
        ...     draw = lambda key: net.init(key, (224, 224, 3))[0]
        ...     params = jax.eval_shape(draw, jax.random.key(0))
        ...     return sum(x.size for x in jax.tree.leaves(params))
        >>> [size(ResNet(depth).build()) for depth in (18, 34, 50)]
        [11176512, 21284672, 23508032]
        >>> ResNet(18).build().layers[:3]
        ('conv1', 'block1', 'block2')
    """

    depth: Literal[18, 34, 50] = 18
    dim: int | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse an unknown depth."""
        if self.depth not in _BLOCKS:
            raise ValueError(f"expected depth of 18, 34 or 50, got {self.depth!r}")

    def build(self) -> Net:
        """The network, with layers conv1 and block1 to block8 or block16."""
        dtype = jnp.dtype(self.precision)
        blocks: list[tuple[str, nn.Module]] = [("conv1", _Stem(dtype))]
        places = self._places()
        for i, place in enumerate(places, 1):
            block = _Block(place, dtype, is_last=i == len(places))
            blocks.append((f"block{i}", block))
        return chain(with_embedding(blocks, self.dim), spec=self)

    def names(self) -> tuple[Names, ...]:
        """The names of its weights in torchvision, which timm shares."""
        modules = {"conv1/conv": "conv1", "conv1/norm": "bn1"}
        for i, place in enumerate(self._places(), 1):
            modules |= residual_names(
                f"block{i}",
                place.name,
                units=len(place.units),
                has_shortcut=place.has_shortcut,
            )
        return (Names("torchvision", modules, "fc"),)

    def _places(self) -> list["_Place"]:
        places, channels = [], 64
        for stage, blocks in enumerate(_BLOCKS[self.depth]):
            for i in range(blocks):
                stride = 2 if stage and not i else 1
                units = self._units(64 * 2**stage, stride)
                changes = stride > 1 or channels != units[-1].width
                channels = units[-1].width
                places.append(_Place(f"layer{stage + 1}.{i}", units, changes))
        return places

    def _units(self, width: int, stride: int) -> tuple[Unit, ...]:
        if self.depth < 50:
            return Unit(width, stride=stride), Unit(width)
        return Unit(width, 1), Unit(width, 3, stride), Unit(4 * width, 1)


class _Place(NamedTuple):
    """A block: its name in torchvision, its units, and whether its shape changes."""

    name: str
    units: tuple[Unit, ...]
    has_shortcut: bool


class _Stem(nn.Module):
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        x = conv(64, 7, self.dtype, stride=2, name="conv")(x)
        x = nn.relu(batch_norm(mode, self.dtype, name="norm")(x))
        # Flax accepts pairs as well as the names that it declares.
        padding: Any = ((1, 1), (1, 1))
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


class _Block(nn.Module):
    place: _Place
    dtype: DTypeLike
    is_last: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n ..."]:
        _, units, has_shortcut = self.place
        x = residual(x, mode, units, nn.relu, self.dtype, has_shortcut=has_shortcut)
        return x.mean(axis=(1, 2)) if self.is_last else x
