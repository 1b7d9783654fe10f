"""Small studies and runs."""

from experiments.imprinting.config import Rows
from experiments.inputs import Network
from experiments.options import Mesh
from experiments.prototypes.config import Config, Data, Evaluation, Task
from jaxfer.models import Options

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
    mesh=Mesh(1),
    run=Options(save_every=2, log_every=1, progress=False),
)
