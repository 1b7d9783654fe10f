"""Prototypical networks on your own photographs, one folder per class.

Reproduces: nothing published. It is the method of Snell et al. 2017 with what
    photographs need. Distances are divided by the square root of the dimension of the
    embedding (temperature), so that the first losses are near log(way). Training images
    are shifted and mirrored at random (crop), and every example of an episode is
    support in turn (task.cyclic). Images have 64x64 pixels.
Run: python -m experiments.prototypes --config configs/photos_prototypes.py
    --workdir runs/photos_prototypes --data.dir PHOTOS
Expect: results depend on your photographs. From 100 folders of 100 CIFAR-100 pictures
    (--data.side 32), 150 episodes give a 5-way accuracy of 39.5% with 1 shot and 52.5%
    with 5 shots on the 20 test classes; nearest neighbours on pixels have 30.7% and
    37.5%. With fewer than 10 training classes, lower --task.way. A larger --episodes
    with --extend goes on from a finished run.
"""

from experiments.prototypes.config import Config, Data, Evaluation, Task
from experiments.prototypes.presets import snell2017
from jaxfer.data import Crop
from jaxfer.models import Options

config = Config(
    data=Data("folder", side=64),
    task=Task(way=10, shot=5, query=5, cyclic=True),
    test=Evaluation(ways=(5,), shots=(1, 5), query=10),
    optim=snell2017(1e-3, halve_every=1000),
    crop=Crop(shift=4, mirror=True),
    temperature="sqrt_dim",
    episodes=1000,
    run=Options(save_every=250, log_every=10),
)
