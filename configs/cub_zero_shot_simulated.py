"""Zero-shot classification with features simulated from the attributes of birds.

Reproduces: no published value. Classes and attributes are those of `cub_zero_shot.py`.
    Features are simulated from the attributes at several levels of noise, in 256
    dimensions, and the learning rate is ten times as high.
Run: python -m experiments.zero_shot --config configs/cub_zero_shot_simulated.py
    --workdir runs/cub_zero_shot_simulated --data.class-lists LISTS --attributes.path
    CUB
    where LISTS has trainval_classes.txt and test_classes.txt, and CUB is the folder
    CUB_200_2011.
Expect: 89.4, 72.5 and 34.8% over the 50 test classes at noise 1, 2 and 4, where chance
    is 2% (docs/results/prototypes.md), after five minutes on 2 CPU cores.
"""

from experiments.zero_shot.config import (
    Attributes,
    Config,
    Data,
    Simulated,
    Stopping,
)
from jaxfer.optim import Optim

config = Config(
    data=Data("bank", class_seed=0),
    attributes=Attributes("cub"),
    simulated=Simulated(noise=(1.0, 2.0, 4.0), dim=256),
    dim=256,
    optim=Optim("adam", 1e-3, weight_decay=1e-5),
    val=Stopping(every=50),
)
