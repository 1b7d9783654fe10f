"""Imprinting of novel classes from your own photographs, one folder per class.

Reproduces: nothing published. It runs every row of Qi et al. 2018 that needs no joint
    training, at 64x64 pixels, with the small network of the CIFAR-100 study.
Run: python -m experiments.imprinting --config configs/photos_imprinting.py
    --workdir runs/photos_imprinting --data.dir PHOTOS --data.base 8
Expect: results depend on your photographs. Set --data.base to the number of base
    classes.
"""

from experiments.imprinting.config import Config, Data, Network, Rows
from jaxfer.data import Crop
from jaxfer.optim import Optim

config = Config(
    data=Data("folder", base=8, side=72, pixels="range"),
    net=Network(width=24, dense=256, dropout=0.2, normalize=True),
    augment=Crop(mirror=True, side=64),
    batch=32,
    optim=Optim("sgd", 0.05, schedule="cosine", warmup=0.1, weight_decay=5e-4),
    epochs=40,
    finetune=Optim(
        "rmsprop",
        0.0003,
        schedule="staircase",
        decay=0.94,
        decay_every=4,
        head_rate=10.0,
        weight_decay=5e-4,
    ),
    finetune_epochs=10,
    shots=(1, 2, 5),
    seeds=(0, 1, 2),
    tuned=Rows((1, 5), (0, 1, 2)),
    transfer=Rows((), ()),
    joint=Rows((), ()),
)
