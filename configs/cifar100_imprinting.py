"""Imprinting of novel classes on natural images, on CPUs.

Reproduces: the trends, not the values, of Tables 1 to 3 and Figures 3 to 7 of Qi et al.
    2018, on CIFAR-100 at 16x16 pixels with 80 base and 20 novel classes chosen by seed.
    The networks train from scratch, those of the paper start from ImageNet.
Run: python -m experiments.imprinting --config configs/cifar100_imprinting.py
    --workdir runs/cifar100_imprinting --data.dir DIR
Expect: an hour and a half on 2 CPU cores. The accuracy of the base classifier is near
    45%. On novel classes, with all classes as candidates, it is 14, 27 and 36% after
    imprinting from 1, 5 and 20 examples, and 3, 13 and 21% after fine-tuning. See
    docs/results/imprinting.md.
"""

from experiments.imprinting.config import Config, Data, Network, Rows
from jaxfer.data import Crop
from jaxfer.optim import Optim

config = Config(
    data=Data("cifar100", base=80, side=16),
    net=Network(width=24, dense=256, dropout=0.0, normalize=True),
    augment=Crop(2, mirror=True),
    batch=128,
    optim=Optim("sgd", 0.1, schedule="cosine", warmup=0.1, weight_decay=5e-4),
    epochs=10,
    # The rate with the highest harmonic mean among .0001 (the paper's), .0003 and .003,
    # for n = 1 and 20 with `--data.train train --data.test val`.
    finetune=Optim(
        "rmsprop",
        0.0003,
        schedule="staircase",
        decay=0.94,
        decay_every=4,
        head_rate=10.0,
        weight_decay=5e-4,
    ),
    finetune_epochs=5,
    shots=(1, 2, 5, 10, 20),
    seeds=(0, 1, 2, 3, 4),
    tuned=Rows((1, 5, 20), (0, 1, 2)),
    transfer=Rows((1, 5, 20), (0, 1, 2)),
    joint=Rows((1, 5, 20), (0, 1, 2)),
    dims=(128, 256, 512),
    losses=("lifted", "nca", "proxy_nca"),
    side_shots=(1, 5),
)
