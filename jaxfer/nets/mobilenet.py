"""MobileNetV2, for photographs."""

from dataclasses import dataclass

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

# Sandler et al. 2018, Table 2.
_STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


@dataclass(frozen=True)
class MobileNetV2:
    """A convolution, 17 inverted residual blocks, and mean pooling.

    Sandler et al. 2018, Table 2, with ReLU6. Embeddings have 1280 dimensions, for
    images of any size.

    Attributes:
        padding: 'symmetric' as in weights from PyTorch, or 'same' as in those from
            TensorFlow.
        epsilon: the term in the denominator of BatchNorm: 1e-5 for weights from
            PyTorch, 1e-3 for those from TensorFlow.
        dropout: share of the pooled features that is dropped in training.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters and statistics stay float32.

    Example:
        >>> import jax
        >>> net = MobileNetV2().build()
        >>> draw = lambda key: net.init(key, (224, 224, 3))
        >>> params, _ = jax.eval_shape(draw, jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(params))
        2223872
    """

    padding: Padding = "symmetric"
    epsilon: float = 1e-5
    dropout: float = 0.2
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers stem, block1 to block17 and top."""
        how = How(self.padding, self.epsilon, jnp.dtype(self.precision))
        return inverted_net(
            _STAGES, stem=32, top=1280, dropout=self.dropout, how=how, spec=self
        )

    def names(self) -> tuple[Names, ...]:
        """The names of its weights in torchvision, in its early form, and in timm."""
        parts = ("0.0", "0.1", "1.0", "1.1", "2", "3")
        early = ("0", "1", "3", "4", "6", "7")
        forms = {
            "torchvision": {"plain": ("0.0", "0.1", "1", "2"), "inverted": parts},
            "torchvision before 0.3": {"plain": early[:4], "inverted": early},
        }
        ends = ("features.0.0", "features.0.1", "features.18.0", "features.18.1")
        found = [
            inverted_names(
                library,
                _STAGES,
                names,
                prefix="features.{n}.conv",
                ends=end_names(*ends),
                head="classifier.1",
            )
            for library, names in forms.items()
        ]
        return (*found, timm_names(_STAGES))
