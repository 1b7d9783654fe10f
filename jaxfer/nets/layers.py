"""Linen blocks that several networks are made of."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.types import Mode


class Classifier(nn.Module):
    """A linear classifier of whatever comes in, flattened, in float32.

    Attributes:
        num_classes: outputs.
    """

    num_classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "n ..."], mode: Mode
    ) -> Float[Array, "n classes"]:
        """Logits."""
        flat = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return nn.Dense(self.num_classes)(flat)


def batch_norm(mode: Mode, dtype: DTypeLike) -> nn.BatchNorm:
    """BatchNorm as a mode has it."""
    return nn.BatchNorm(
        use_running_average=mode.batch_norm == "running",
        momentum=mode.momentum,
        epsilon=1e-5,
        dtype=dtype,
    )
