"""Distance and number of training ways, as in Figure 2 of Snell et al. 2017.

Reproduces: Snell et al. 2017, Figure 2 and Tables 5 and 6, qualitatively: prototypes
    and matching networks, squared Euclidean and cosine distance, trained with 5 and 20
    ways, on CIFAR-FS in place of miniImageNet and with 1,500 episodes per run. The
    network, the distances without a scale, one episode per step and Adam are those of
    the paper. The figure is a grid of runs of this preset.
Run: python -m experiments.prototypes --config configs/cifar_fs_figure2.py --workdir
    runs/figure2 --data.dir DIR
    for one run, and for the grid: python tools/grid.py configs/cifar_fs_figure2.py
    --workdir runs/figure2 --vary seed 0 1 --vary task.way 5 20 --vary task.shot 1 5
    --vary distance sqeuclidean cosine --vary method prototypes matching
    --skip method=matching task.shot=1 -- --data.dir DIR
Expect: squared Euclidean above cosine distance, and 20 training ways above 5, in every
    setting (docs/results/prototypes.md).
"""

from experiments.prototypes.config import Config, Data, Evaluation, Task
from experiments.prototypes.presets import snell2017
from jaxfer.models import Options

config = Config(
    data=Data("cifar_fs", "train", test="test"),
    task=Task(way=20, shot=5, query=15),
    test=Evaluation(ways=(5,), shots=(1, 5), query=15, episodes=600),
    optim=snell2017(1e-3, halve_every=2000),
    episodes=1500,
    figures=False,
    run=Options(save_every=100, log_every=50),
)
