"""Three layers that compile fast, with running statistics and dropout.

A network of one's own, as users name it: `--net.name tests.experiments.tiny:Tiny`.
"""

from dataclasses import dataclass

from flax import linen as nn

from experiments.imprinting.config import Rows
from jaxfer import Net
from jaxfer.nets import chain

# An imprinting study of one base network, measured from one example per class.
ONE_BASE = {
    **dict.fromkeys(("tuned", "transfer", "joint"), Rows(shots=(), seeds=())),
    **{"batch": 20, "shots": (1,), "seeds": (0,), "side_seeds": ()},
}


class _Layer(nn.Module):
    width: int
    conv: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, mode):
        if self.conv:
            x = nn.Conv(self.width, (3, 3), strides=4)(x)
        else:
            x = nn.Dense(self.width)(x.reshape(len(x), -1))
        x = nn.BatchNorm(
            use_running_average=mode.batch_norm == "running", momentum=mode.momentum
        )(x)
        return nn.Dropout(self.dropout, deterministic=not mode.dropout)(nn.relu(x))


@dataclass(frozen=True)
class Tiny:
    """A convolution, a dense layer, and a dense layer that drops units."""

    width: int = 4

    def build(self) -> Net:
        blocks = [
            ("conv1", _Layer(self.width, conv=True)),
            ("fc2", _Layer(8)),
            ("fc3", _Layer(8, dropout=0.2)),
        ]
        return chain(blocks, stochastic=("fc3",), spec=self)
