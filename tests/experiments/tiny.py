"""Small studies and runs, and three layers that compile fast.

The layers have running statistics and dropout. They are a network of one's own, as
users name it: `--net.name tests.experiments.tiny:Tiny`.
"""

from dataclasses import dataclass

from flax import linen as nn

from experiments.imprinting.config import Rows
from experiments.inputs import Network
from experiments.prototypes.config import Config, Data, Evaluation, Task
from jaxfer import Net
from jaxfer.models import Options
from jaxfer.nets import chain

# An imprinting study of one base network, measured from one example per class.
ONE_BASE = {
    **dict.fromkeys(("tuned", "transfer", "joint"), Rows(shots=(), seeds=())),
    **{"batch": 20, "shots": (1,), "seeds": (0,), "side_seeds": ()},
}
# A run of prototypical networks on the few glyphs of the fixture `small_glyphs`.
EPISODIC = Config(
    data=Data(name="glyphs", train="train", test="val"),
    net=Network("Conv4", width=8),
    task=Task(way=5, shot=2, query=3),
    test=Evaluation(ways=(2, 5), shots=(1,), query=3, episodes=6),
    episodes=6,
    devices=1,
    run=Options(save_every=2, log_every=1, progress=False),
)


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
