"""The CIFAR-100 study at full resolution, for an accelerator.

Reproduces: the trends, not the values, of Figures 2 and 3 of Yosinski et al. 2014, at
    32x32 pixels and n = 1 to 7: four random splits in both directions, fine-tuned and
    frozen. It adds the variant of the released code that copies two more layers,
    gradual unfreezing, and the controls trained twice and three times as long.
Run: python -m experiments.layer_transfer --data.dir DIR
    --config configs/cifar100_layer_transfer_gpu.py
    --workdir runs/cifar100_layer_transfer_gpu
Expect: not yet measured.
"""

from experiments.layer_transfer.config import Config, Data, Grid, Network
from jaxfer.models import Options
from jaxfer.optim import Optim

config = Config(
    data=Data("cifar100"),
    net=Network(width=64, dense=1024, dropout=0.5),
    optim=Optim("sgd", 0.03, schedule="cosine", warmup=1 / 30, weight_decay=1e-3),
    similar=Grid(
        "random",
        splits=(0, 1, 2, 3),
        treatments=(
            *("base", "base+", "base3", "pixels"),
            *("BnB", "BnB+", "AnB", "AnB+", "BnB-keep2", "AnB-thaw"),
        ),
    ),
    dissimilar=Grid(
        "animals", splits=(0,), seeds=(0, 1, 2, 3), treatments=("base", "AnB", "AnB+")
    ),
    untrained=Grid(
        "whole", splits=(0,), seeds=(0, 1, 2, 3), treatments=("base", "random")
    ),
    epochs=30,
    run=Options(tensorboard=False, cache_limit=60.0, steps_per_call=50),
)
