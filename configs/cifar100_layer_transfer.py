"""Which layers of an eight-layer network carry over, on CIFAR-100 at 16x16 pixels.

Reproduces: Yosinski et al. 2014, Figures 2 and 3 in kind, not in value: two random
    splits in both directions, halves of animals against all else with two seeds, and
    untrained layers on all classes with two seeds, n = 1, 3, 4, 5 and 7. Beside them a
    base network trained twice and one trained three times as long, and logistic
    regression on pixels.
Run: python -m experiments.layer_transfer --config configs/cifar100_layer_transfer.py
    --workdir runs/cifar100_layer_transfer --data.dir DIR
Expect: one and a half to two hours on 2 CPU cores; base networks of the random halves
    from 43 to 52, 9 points lost by AnB at n = 7, 4 gained by AnB+.
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
