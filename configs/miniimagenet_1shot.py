"""miniImageNet, 1-shot.

Reproduces: Snell et al. 2017, Table 2: 5-way 1-shot (49.42%), trained on 30-way
    episodes. Each update uses one episode, as in the paper;
    `miniimagenet_snell2017` describes the protocol.
Run: python -m experiments.prototypes --config configs/miniimagenet_1shot.py --workdir
    runs/miniimagenet_1shot --data.dir DIR --run.steps-per-call 50
Expect: 46.6% after 12,000 episodes (docs/results/prototypes.md), 2.8 points below the
    published value; re-implementations are at most 2.2 points below it. It trains for
    tens of thousands of episodes, work for an accelerator.
"""

from experiments.prototypes.presets import miniimagenet_snell2017, published_accuracies

config = miniimagenet_snell2017(way=30, shot=1)
published = published_accuracies("Snell et al. 2017, Table 2", {(5, 1): (49.42, 2.2)})
