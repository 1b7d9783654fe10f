"""miniImageNet with the recipe of miniimagenet_modern.py, longer, for an accelerator.

Reproduces: Snell et al. 2017, Table 2 (49.42 and 68.20% at 5-way 1-shot and 5-shot),
    with its network and another training: 60 base epochs and 20,000 episodes, three
    times as many images as miniimagenet_modern.py.
Run: python -m experiments.prototypes --config configs/miniimagenet_modern_gpu.py
    --workdir runs/miniimagenet_modern_gpu --data.dir DIR --run.steps-per-call 50
Expect: 49.96 and 68.03% over two seeds (docs/results/prototypes.md). A run takes a
    minute and a half on a GPU.
"""

from experiments.prototypes.presets import conv4_modern, published_accuracies

config = conv4_modern(
    "miniimagenet", shift=8, base_epochs=60, episodes=20_000, unit=True
)
published = published_accuracies(
    "Snell et al. 2017, Table 2", {(5, 1): (49.42, 0), (5, 5): (68.2, 0)}
)
