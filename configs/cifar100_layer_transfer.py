"""Which layers of an eight-layer network transfer, on CIFAR-100 at 16x16 pixels.

Reproduces: the trends, not the values, of Figures 2 and 3 of Yosinski et al. 2014: two
    random splits in both directions, animals against all other classes with two seeds,
    and untrained layers on all classes with two seeds, at n = 1, 3, 4, 5 and 7.
    Controls are a base network trained twice, one trained three times as long, and
    logistic regression on pixels.
Run: python -m experiments.layer_transfer --config configs/cifar100_layer_transfer.py
    --workdir runs/cifar100_layer_transfer --data.dir DIR
Expect: about two hours on 2 CPU cores. The base networks of the random halves reach 44
    to 51% accuracy. AnB loses 10 percentage points at n = 7, and AnB+ gains 4. See
    docs/results/layer_transfer.md.
"""

from experiments.layer_transfer.config import Config, Data, Grid, Network
from jaxfer.optim import Optim

config = Config(
    data=Data("cifar100", side=16),
    net=Network(width=24, dense=512, dropout=0.1),
    optim=Optim("sgd", 0.05, schedule="cosine", warmup=1 / 12, weight_decay=2e-3),
    similar=Grid(
        "random",
        splits=(0, 1),
        treatments=("base", "base+", "base3", "pixels", "BnB", "BnB+", "AnB", "AnB+"),
    ),
    dissimilar=Grid("animals", splits=(0,), seeds=(0, 1), treatments=("base", "AnB")),
    untrained=Grid("whole", splits=(0,), seeds=(0, 1), treatments=("base", "random")),
    layers=(1, 3, 4, 5, 7),
    epochs=12,
    batch=128,
)
