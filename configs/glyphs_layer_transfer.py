"""Which layers transfer, on generated handwriting: minutes, no download.

Reproduces: nothing published. It runs the experiments of Yosinski et al. 2014 on
    `glyphs`: 200 characters of ten alphabets, 15 writers for training and 5 for test,
    random halves, and halves of angular against curved alphabets.
Run: python -m experiments.layer_transfer --config configs/glyphs_layer_transfer.py
    --workdir runs/glyphs_layer_transfer
Expect: about one and a half minutes on 2 CPU cores. The base networks of the random
    halves are near 72% accuracy. At n = 7, AnB loses 9 percentage points, and 19
    between the families; AnB+ gains 9.
"""

from experiments.layer_transfer.config import Config, Data, Grid, Network
from jaxfer.models import Options
from jaxfer.optim import Optim

config = Config(
    data=Data("glyphs", classes=200, side=14),
    net=Network(width=8, dense=64, dropout=0.2, normalize=True),
    optim=Optim("sgd", 0.1, schedule="cosine", warmup=1 / 15, weight_decay=5e-4),
    similar=Grid("random", splits=(0, 1)),
    dissimilar=Grid("family", splits=(0,), seeds=(0, 1), treatments=("base", "AnB")),
    untrained=Grid("whole", splits=(0,), seeds=(0, 1), treatments=("base", "random")),
    layers=(1, 3, 5, 7),
    epochs=15,
    batch=50,
    run=Options(save_every=10_000, log_every=10, tensorboard=False),
)
