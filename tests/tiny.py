"""Three layers that compile fast, for tests that are not about the network.

The layers have running statistics and dropout. They are a network of one's own, as
users name it: `--net.name tests.tiny:Tiny`.
"""

from dataclasses import dataclass

from flax import linen as nn

from jaxfer import Net
from jaxfer.nets import chain


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
    dropout: float = 0.2

    def build(self) -> Net:
        blocks = [
            ("conv1", _Layer(self.width, conv=True)),
            ("fc2", _Layer(8)),
            ("fc3", _Layer(8, dropout=self.dropout)),
        ]
        return chain(blocks, stochastic=("fc3",), spec=self)
