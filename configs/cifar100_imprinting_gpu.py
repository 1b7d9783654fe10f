"""The CIFAR-100 study of imprinting at full resolution, for an accelerator.

Reproduces: the trends, not the values, of Tables 1 to 3 and Figures 3 to 7 of Qi et al.
    2018, at 32x32 pixels with five seeds of every network, on 80 base and 20 novel
    classes. Use `--data.base 50` and another workdir for 50 base and 50 novel classes.
Run: python -m experiments.imprinting --config configs/cifar100_imprinting_gpu.py
    --workdir runs/cifar100_imprinting_gpu --data.dir DIR
Expect: not yet measured.
"""

from experiments.imprinting.config import Config, Data, Network, Rows
from jaxfer.data import Crop
from jaxfer.models import Options
from jaxfer.optim import Optim

SEEDS = (0, 1, 2, 3, 4)

config = Config(
    data=Data("cifar100", base=80),
    net=Network(width=64, dense=512, dropout=0.3, normalize=True),
    augment=Crop(4, mirror=True),
    optim=Optim("sgd", 0.1, schedule="cosine", warmup=0.1, weight_decay=5e-4),
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
    finetune_epochs=16,
    seeds=SEEDS,
    tuned=Rows((1, 2, 5, 10, 20), SEEDS),
    transfer=Rows((1, 2, 5, 10, 20), SEEDS),
    joint=Rows((1, 2, 5, 10, 20), SEEDS),
    dims=(128, 256, 512),
    losses=("lifted", "nca", "proxy_nca"),
    side_seeds=SEEDS,
    side_shots=(1, 5),
    run=Options(tensorboard=False, steps_per_call=50),
)
