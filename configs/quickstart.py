"""A prototypical network on embedded handwriting, in a minute and no download.

Reproduces: nothing published; the whole pipeline of Snell et al. 2017 on `glyphs`,
    handwriting drawn by the project itself, tested on alphabets never trained on.
Run: python -m experiments.prototypes --config configs/quickstart.py
    --workdir runs/quickstart
Expect: about a minute on 2 CPU cores; 5-way 1-shot accuracy near 95, where nearest
    neighbour on pixels has 49, and 20-way near 85 where it has 28.
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
