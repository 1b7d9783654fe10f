"""New birds at once: Tables 1 to 3 of Qi et al. 2018, for an accelerator.

Reproduces: Tables 1 to 3 and Figures 3 to 7, on CUB-200-2011: the first 100 species
    are base classes, images of 256 pixels are cut to 224, InceptionV1, D = 64, 112
    epochs. The paper's networks start from ImageNet and these from nothing, so that its
    absolute values are not to be expected. `--data.exclude FILE` leaves out the images
    that are in ImageNet, `--data.shuffled` draws the base classes by seed.
Run: python -m experiments.imprinting --config configs/cub_imprinting.py
    --workdir runs/cub_imprinting --data.dir DIR
Expect: not yet measured.
"""

from experiments.imprinting_config import Config, Data, Network, Optim, Rows
from jaxfer.data import Crop

config = Config(
    data=Data("caltech_birds2011", base=100, shuffled=False, side=256, pixels="range"),
    net=Network("inception_v1", width=64, dropout=0.2),
    augment=Crop(mirror=True, side=224),
    batch=64,
    # Every layer is new, and has the rate of new layers.
    optim=Optim("rmsprop", 0.001, schedule="stairs"),
    epochs=112,
    finetune=Optim("rmsprop", 0.0001, head_rate=10.0, schedule="stairs"),
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
