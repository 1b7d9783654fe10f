"""FC100 with the network of Snell et al. 2017 and a later recipe.

Reproduces: nothing published for this recipe. The data are those of Oreshkin et al.
    2018, whose parts have different superclasses of CIFAR-100. `conv4_modern` describes
    the recipe, which is that of `cifar_fs_modern.py`.
Run: python -m experiments.prototypes --config configs/fc100_modern.py --workdir
    runs/fc100_modern --data.dir DIR
Expect: 37.1 and 52.8% at 5-way 1-shot and 5-shot (docs/results/prototypes.md).
"""

from experiments.prototypes.presets import conv4_modern

config = conv4_modern("fc100", shift=4, base_epochs=40, episodes=5000)
