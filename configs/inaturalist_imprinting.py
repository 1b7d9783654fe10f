"""New species at once: Table 4 of Qi et al. 2018, for an accelerator.

Reproduces: Table 4 and Figure 8, on iNaturalist 2017: species with at least 100 images
    to train on are base classes, those with at least 20 of the others are novel, so
    that every n is one they have. The paper has an InceptionResNet that starts from
    ImageNet, no least number of images, and no Imprinting + Aug; its absolute values
    are not to be expected.
Run: python -m experiments.imprinting --config configs/inaturalist_imprinting.py
    --workdir runs/inaturalist_imprinting --data.dir DIR, after
    python tools/prepare_data.py i_naturalist2017 --to DIR
Expect: not yet measured.
"""

from experiments.imprinting_config import Config, Data, Network, Optim, Rows
from jaxfer.data import Crop

config = Config(
    data=Data(
        "i_naturalist2017",
        base_min_images=100,
        min_images=20,
        side=256,
        pixels="range",
        workers=16,
    ),
    net=Network("inception_v1", width=64, dropout=0.2),
    augment=Crop(mirror=True, side=224),
    dim=256,
    batch=128,
    optim=Optim("rmsprop", 0.001, schedule="stairs"),
    epochs=40,
    finetune=Optim("rmsprop", 0.0001, head_rate=10.0, schedule="stairs"),
    finetune_epochs=10,
    seeds=(0,),
    tuned=Rows((1, 5, 20), (0,)),
    transfer=Rows((), ()),
    joint=Rows((5,), (0,)),
)
