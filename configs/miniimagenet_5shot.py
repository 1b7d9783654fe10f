"""miniImageNet, 5-shot.

Reproduces: Snell et al. 2017, Table 2: 5-way 5-shot (68.2%), trained on 20-way
    episodes. Each update uses one episode, as in the paper;
    `miniimagenet_snell2017` describes the protocol.
Run: python -m experiments.prototypes --config configs/miniimagenet_5shot.py --workdir
    runs/miniimagenet_5shot --data.dir DIR --run.steps-per-call 50
Expect: 65.4% after 12,000 episodes (docs/results/prototypes.md), 2.8 points below the
    published value; re-implementations are at most 2.0 points below it. It trains for
    tens of thousands of episodes, work for an accelerator.
"""

from experiments.prototypes.presets import miniimagenet_snell2017, published_accuracies

config = miniimagenet_snell2017(way=20, shot=5)
published = published_accuracies("Snell et al. 2017, Table 2", {(5, 5): (68.2, 2.0)})
