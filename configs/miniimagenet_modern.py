"""miniImageNet with the network of Snell et al. 2017 and a later recipe.

Reproduces: nothing published. The goal is Snell et al. 2017, Table 2 (49.42 and 68.20%
    at 5-way 1-shot and 5-shot), in hours on a CPU; `conv4_modern` describes the recipe.
Run: python -m experiments.prototypes --config configs/miniimagenet_modern.py --workdir
    runs/miniimagenet_modern --data.dir DIR
Expect: 48.70 and 66.35% (docs/results/prototypes.md), below the published values by 0.7
    and 1.9 points.
"""

from experiments.prototypes.presets import conv4_modern, published_accuracies

config = conv4_modern("miniimagenet", shift=8, base_epochs=20, episodes=8000, unit=True)
published = published_accuracies(
    "Snell et al. 2017, Table 2", {(5, 1): (49.42, 0), (5, 5): (68.2, 0)}
)
