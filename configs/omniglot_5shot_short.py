"""Omniglot, trained 60-way 5-shot for 2000 episodes: about half an hour on 2 cores.

Reproduces: Snell et al. 2017, Table 4 (5 shot, 5 query, 60 way; its 5-shot cells are
    those of Table 1), as far as a short run can; see omniglot_1shot_short.py.
Run: python -m experiments.prototypes --config configs/omniglot_5shot_short.py
    --workdir runs/omniglot_5shot_short --data.dir DIR
Expect: 5-way 1-shot 97.3, 5-shot 99.5, 20-way 1-shot 92.7, 5-shot 98.4.
    The tolerances are those of re-implementations trained in full, and the 1-shot cells
    of this short run are outside of them.
"""

from experiments.prototypes.config import Config, Data, Task
from experiments.prototypes.presets import omniglot_published, snell2017

config = Config(
    data=Data(name="omniglot", train="trainval", test="test"),
    task=Task(way=60, shot=5, query=5),
    optim=snell2017(3e-3, halve_every=500),
    episodes=2000,
    seed=0,
)
published = omniglot_published(
    4, {(5, 1): 98.5, (5, 5): 99.7, (20, 1): 94.7, (20, 5): 98.9}
)
