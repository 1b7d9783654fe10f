"""A prototypical network on generated handwriting: one minute, no download.

Reproduces: nothing published. It runs the whole pipeline of Snell et al. 2017 on
    `glyphs`, handwriting simulated by jaxfer, and tests on alphabets that were not used
    for training.
Run: python -m experiments.prototypes --config configs/quickstart.py
    --workdir runs/quickstart
Expect: about a minute on 2 CPU cores. The 1-shot accuracy is near 95% 5-way and near
    85% 20-way; nearest neighbours on pixels have 49% and 28%.
"""

from experiments.prototypes.config import Config, Data, Task
from experiments.prototypes.presets import snell2017
from jaxfer.models import Options

config = Config(
    data=Data(name="glyphs"),
    task=Task(way=20, shot=1, query=5),
    optim=snell2017(1e-3, halve_every=200),
    episodes=300,
    run=Options(save_every=100, log_every=10),
)
