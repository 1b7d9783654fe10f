"""Imprinting of novel species: Table 4 of Qi et al. 2018, for an accelerator.

Reproduces: Table 4 and Figure 8, on iNaturalist 2017. Species with at least 100
    training images are base classes, and all others with at least 2 are novel; those
    with fewer than n use all of them. As in the paper, there is no warm-up and no
    weight decay. The paper uses an InceptionResNet that starts from
    ImageNet, and has no Imprinting + Aug; do not expect its absolute values.
Run: python -m experiments.imprinting --config configs/inaturalist_imprinting.py
    --workdir runs/inaturalist_imprinting --data.dir DIR, after
    python -m jaxfer prepare i_naturalist2017 --to DIR
Expect: not yet measured.
"""

from experiments.imprinting.config import Config, Data, Network, Rows
from jaxfer.data import Crop
from jaxfer.models import Options
from jaxfer.optim import Optim

config = Config(
    data=Data(
        "i_naturalist2017",
        base_min_images=100,
        min_images=2,
        allow_fewer=True,
        side=256,
        pixels="range",
    ),
    net=Network("InceptionV1", width=64, dropout=0.2),
    augment=Crop(mirror=True, side=224),
    dim=256,
    batch=128,
    optim=Optim("rmsprop", 0.001, schedule="staircase", decay=0.94, decay_every=4),
    epochs=40,
    finetune=Optim(
        "rmsprop",
        0.0001,
        schedule="staircase",
        decay=0.94,
        decay_every=4,
        head_rate=10.0,
    ),
    finetune_epochs=10,
    seeds=(0,),
    tuned=Rows((1, 5, 20), (0,)),
    transfer=Rows((), ()),
    joint=Rows((5,), (0,)),
    run=Options(tensorboard=False, workers=16),
)
