"""Omniglot: 20-way 1-shot episodes within one alphabet, trained on the background set.

Reproduces: nothing of Snell et al. 2017. It is the harder task of Lake et al. 2015: the
    network is trained on the 30 background alphabets alone, and a test episode has 20
    characters of one of the 20 evaluation alphabets, which look alike. Training is that
    of omniglot_1shot_short.py.
Run: python -m experiments.prototypes --config configs/omniglot_within_alphabet.py
    --workdir runs/omniglot_within_alphabet --data.dir DIR
Expect: 79.0% (docs/results/prototypes.md).
"""

from experiments.prototypes.config import Config, Data, Evaluation, Task
from experiments.prototypes.presets import snell2017

config = Config(
    data=Data("omniglot_background", "trainval", test="test"),
    task=Task(way=60, shot=1, query=5),
    test=Evaluation((20,), (1,), query=15, episodes=1000, grouped=True),
    optim=snell2017(3e-3, halve_every=500),
    episodes=2000,
)
