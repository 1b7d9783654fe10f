"""New classes of one's own photographs, in a folder a class.

Reproduces: nothing published; every row of Qi et al. 2018 that needs no joint training,
    at 64x64 pixels, with the small network of the CIFAR-100 study.
Run: python -m experiments.imprinting --config configs/photos_imprinting.py
    --workdir runs/photos_imprinting --data.dir PHOTOS --data.base 8
Expect: what your photographs give; the number of base classes is yours to say.
"""

from experiments.imprinting_config import Config, Data, Network, Optim, Rows
from jaxfer.data import Crop

config = Config(
    data=Data("folder", base=8, side=72, pixels="range"),
    net=Network("eight_batch_norm", width=24, dense=256, dropout=0.2),
    augment=Crop(mirror=True, side=64),
    batch=32,
    optim=Optim(learning_rate=0.05),
    epochs=40,
    finetune=Optim("rmsprop", 0.0003, head_rate=10.0, schedule="stairs"),
    finetune_epochs=10,
    shots=(1, 2, 5),
    seeds=(0, 1, 2),
    tuned=Rows((1, 5), (0, 1, 2)),
    transfer=Rows((), ()),
    joint=Rows((), ()),
)
