"""Imprinting of novel birds: Tables 1 to 3 of Qi et al. 2018, for an accelerator.

Reproduces: Tables 1 to 3 and Figures 3 to 7, on CUB-200-2011. The first 100 species
    are base classes, images of 256 pixels are cropped to 224, and InceptionV1 trains
    with D = 64 for 112 epochs, without warm-up or weight decay. The paper's networks
    start from ImageNet and these from random weights, so do not expect its absolute
    values. `--data.exclude FILE` leaves out the images that are in ImageNet, and
    `--data.shuffled` chooses the base classes by seed.
Run: python -m experiments.imprinting --config configs/cub_imprinting.py
    --workdir runs/cub_imprinting --data.dir DIR
Expect: not yet measured.
"""

from experiments.imprinting.config import Config, Data, Network, Rows
from jaxfer.data import Crop
from jaxfer.optim import Optim

config = Config(
    data=Data("caltech_birds2011", base=100, shuffled=False, side=256, pixels="range"),
    net=Network("InceptionV1", width=64, dropout=0.2),
    augment=Crop(mirror=True, side=224),
    batch=64,
    # Every layer is new, and uses the learning rate of new layers.
    optim=Optim("rmsprop", 0.001, schedule="staircase", decay=0.94, decay_every=4),
    epochs=112,
    finetune=Optim(
        "rmsprop",
        0.0001,
        schedule="staircase",
        decay=0.94,
        decay_every=4,
        head_rate=10.0,
    ),
    finetune_epochs=112,
    transfer_steps=2000,
    seeds=(0, 1, 2, 3, 4),
    tuned=Rows((1, 2, 5, 10, 20), (0, 1, 2)),
    transfer=Rows((1, 2, 5, 10, 20), (0, 1, 2)),
    joint=Rows((1, 2, 5, 10, 20), (0, 1, 2)),
    dims=(128, 256, 512),
    losses=("lifted",),
    side_shots=(1, 5),
)
