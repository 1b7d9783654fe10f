"""Imprinting of novel classes on generated handwriting: minutes, no download.

Reproduces: nothing published. It runs the experiments of Qi et al. 2018 on `glyphs`:
    250 characters, 15 writers for training and 5 for test, 200 base classes and 50
    novel ones.
Run: python -m experiments.imprinting --config configs/glyphs_imprinting.py
    --workdir runs/glyphs_imprinting
Expect: two to three minutes on 2 CPU cores. On novel classes, with all classes as
    candidates, the accuracy at n = 1 is 42% after imprinting and 28% after fine-tuning;
    at n = 15 it is near 74 and 69%.
"""

from experiments.imprinting.config import Config, Data, Network, Rows
from jaxfer.data import Crop
from jaxfer.models import Options
from jaxfer.optim import Optim

config = Config(
    data=Data("glyphs", classes=250, base=200, side=14),
    net=Network(width=8, dense=64, dropout=0.0, normalize=True),
    augment=Crop(1),
    batch=64,
    optim=Optim("sgd", 0.1, schedule="cosine", warmup=0.1, weight_decay=5e-4),
    epochs=20,
    finetune=Optim(
        "rmsprop",
        0.003,
        schedule="staircase",
        decay=0.94,
        decay_every=4,
        head_rate=10.0,
    ),
    finetune_epochs=10,
    transfer_steps=200,
    shots=(1, 2, 5, 10, 15),
    seeds=(0, 1, 2),
    tuned=Rows((1, 5, 15), (0, 1, 2)),
    transfer=Rows((1, 5, 15), (0,)),
    joint=Rows((1, 5, 15), (0,)),
    dims=(16, 128),
    losses=("lifted", "nca", "proxy_nca"),
    run=Options(save_every=10_000, log_every=10, tensorboard=False),
)
