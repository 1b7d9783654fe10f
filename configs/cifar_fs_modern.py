"""CIFAR-FS with the network of Snell et al. 2017 and a later recipe.

Reproduces: nothing of the paper. The goal is what is commonly reported for prototypes
    with this network, 55.5 and 72.0% at 5-way 1-shot and 5-shot (Bertinetto et al.
    2019); `conv4_modern` describes the recipe.
Run: python -m experiments.prototypes --config configs/cifar_fs_modern.py --workdir
    runs/cifar_fs_modern --data.dir DIR
Expect: 57.6 and 77.8% for prototypes, 62.0 and 78.4% for SimpleShot on the same
    embeddings, after 42 minutes on 2 CPU cores (docs/results/prototypes.md).
"""

from experiments.prototypes.presets import conv4_modern, published_accuracies

config = conv4_modern("cifar_fs", shift=4, base_epochs=40, episodes=5000)
published = published_accuracies(
    "Bertinetto et al. 2019, Table 1", {(5, 1): (55.5, 0), (5, 5): (72.0, 0)}
)
