"""EfficientNet-Lite, for photographs."""

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from jaxfer.nets.inverted import (
    How,
    Stage,
    end_names,
    inverted_names,
    inverted_net,
    timm_names,
)
from jaxfer.nets.layers import Padding, Precision
from jaxfer.nets.names import Names
from jaxfer.types import Net

# EfficientNet-B0 (Tan & Le 2019, Table 1) without squeeze-and-excitation.
_STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
# Multipliers of channels and of blocks.
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))


@dataclass(frozen=True)
class EfficientNetLite:
    """A convolution, 16 or more inverted residual blocks, and mean pooling.

    Tan & Le 2019, in the form of TensorFlow's EfficientNet-Lite: ReLU6, no
    squeeze-and-excitation, and a first and a last stage of the same size in all
    variants. Embeddings have 1280 dimensions.

    Attributes:
        variant: 0 to 4, for images of 224, 240, 260, 280 and 300 pixels; any other size
            works as well.
        padding: 'same' as in TensorFlow, or 'symmetric' as in PyTorch.
        epsilon: the term in the denominator of BatchNorm.
        dropout: share of the pooled features that is dropped in training.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Raises:
        ValueError: an unknown variant.

    Example:
        >>> import jax
        >>> net = EfficientNetLite().build()
        >>> draw = lambda key: net.init(key, (224, 224, 3))
        >>> params, _ = jax.eval_shape(draw, jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(params))
        3371008
        >>> net.layers[:3], net.layers[-1], len(net.layers)
        (('stem', 'block1', 'block2'), 'top', 18)
    """

    variant: Literal[0, 1, 2, 3, 4] = 0
    padding: Padding = "same"
    epsilon: float = 1e-3
    dropout: float = 0.2
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers stem, block1 to blockN and top."""
        how = How(self.padding, self.epsilon, jnp.dtype(self.precision))
        return inverted_net(
            self._stages(), stem=32, top=1280, dropout=self.dropout, how=how, spec=self
        )

    def names(self) -> tuple[Names, ...]:
        """The names of its weights in efficientnet_lite_pytorch and in timm."""
        stages = self._stages()
        plain = ("_depthwise_conv", "_bn1", "_project_conv", "_bn2")
        pytorch = inverted_names(
            "efficientnet_lite_pytorch",
            stages,
            {"plain": plain, "inverted": ("_expand_conv", "_bn0", *plain)},
            prefix="_blocks.{i}",
            ends=end_names("_conv_stem", "_bn0", "_conv_head", "_bn1"),
            head="_fc",
        )
        return pytorch, timm_names(stages)

    def _stages(self) -> list[Stage]:
        if self.variant not in range(len(_SCALES)):
            raise ValueError(f"expected variant 0 to 4, got {self.variant!r}")
        width, depth = _SCALES[self.variant]
        ends = (0, len(_STAGES) - 1)
        return [
            stage._replace(
                width=_rounded(stage.width * width),
                repeats=stage.repeats
                if i in ends
                else math.ceil(depth * stage.repeats),
            )
            for i, stage in enumerate(_STAGES)
        ]


def _rounded(width: float) -> int:
    """The nearest multiple of 8, but not less than 90% of the width."""
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near
