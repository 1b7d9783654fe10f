"""InceptionV1 with BatchNorm, for photographs."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from jaxfer.nets.branches import (
    Branches,
    ConvNorm,
    Embed,
    Mixed,
    Pool,
    Unit,
    branch_names,
    unit_names,
)
from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Precision, with_embedding
from jaxfer.nets.names import Names
from jaxfer.types import Net

# Channels of the four branches of each block: 1x1; 1x1 and 3x3; again 1x1 and 3x3; 1x1
# after a pool.
_BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
# Sides of the pools that end layers.
_POOLS = {"conv1": 3, "conv3": 3, "inception3b": 3, "inception4e": 2}
# Padding of the first convolution and of the pools.
_FORMS = {"slim": ("SAME", "SAME"), "torchvision": (((3, 3), (3, 3)), "CEIL")}


@dataclass(frozen=True)
class InceptionV1:
    """Three convolutions, nine blocks of four branches, and mean pooling.

    Szegedy et al. 2015, Table 1, with the changes of TensorFlow-slim, from which Qi et
    al. 2018 start, and of torchvision: BatchNorm with epsilon 1e-3 after every
    convolution, 3x3 kernels where the table has 5x5, a last pool of 2x2, and no
    auxiliary classifiers. Embeddings have 1024 dimensions, for images of any size.

    Attributes:
        width: channels of the first convolution; all others scale in proportion.
        form: the padding: 'slim' as in TensorFlow, or 'torchvision' for weights of its
            GoogLeNet, whose published weights expect pixels in [-1, 1].
        dropout: share of the pooled features that is dropped in training.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Raises:
        ValueError: an unknown form.

    Example:
        >>> import jax
        >>> net = InceptionV1().build()
        >>> draw = lambda key: net.init(key, (224, 224, 3))
        >>> params, state = jax.eval_shape(draw, jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(params))
        5599904
    """

    width: int = 64
    form: Literal["slim", "torchvision"] = "slim"
    dropout: float = 0.2
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers conv1 to conv3 and inception3a to inception5b."""
        if self.form not in _FORMS:
            raise ValueError(f"expected form among {[*_FORMS]}, got {self.form!r}")
        dtype = jnp.dtype(self.precision)
        first, pads = _FORMS[self.form]
        pools = {name: Pool("max", side, 2, pads) for name, side in _POOLS.items()}
        end = [*_BLOCKS][-1]
        then = {**pools, end: Embed(self.dropout)}
        stem = {
            "conv1": Unit(self._scaled(64), (7, 7), 2, first),
            "conv2": Unit(self._scaled(64)),
            "conv3": Unit(self._scaled(192), (3, 3)),
        }
        blocks: list[tuple[str, nn.Module]] = [
            (name, ConvNorm(unit, dtype, then.get(name))) for name, unit in stem.items()
        ]
        blocks += [
            (name, Mixed(self._branches(name), dtype, then.get(name)))
            for name in _BLOCKS
        ]
        stochastic = (end,) if self.dropout else ()
        blocks = with_embedding(blocks, self.dim)
        return chain(blocks, stochastic=stochastic, spec=self)

    def names(self) -> tuple[Names, ...]:
        """The names of its weights in torchvision."""
        found = unit_names({f"conv{i}": f"conv{i}" for i in (1, 2, 3)})
        for name in _BLOCKS:
            found |= branch_names(name, name, self._branches(name))
        return (Names("torchvision", found, "fc", ("aux1.", "aux2.")),)

    def _scaled(self, channels: int) -> int:
        return max(1, channels * self.width // 64)

    def _branches(self, block: str) -> Branches:
        a, b, bb, c, cc, d = (self._scaled(width) for width in _BLOCKS[block])
        return (
            ("branch1", (Unit(a),)),
            ("branch2", (Unit(b), Unit(bb, (3, 3)))),
            ("branch3", (Unit(c), Unit(cc, (3, 3)))),
            ("branch4", (Pool(), Unit(d))),
        )
