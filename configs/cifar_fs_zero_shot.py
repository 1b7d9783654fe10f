"""Zero-shot classification of the test classes of CIFAR-FS by their superclasses.

Reproduces: no published value; the protocol of Snell et al. 2017, section 2.7, on other
    data. The attribute of a class is its superclass, so that test classes of one
    superclass cannot be told apart. Features are those of a network that was trained on
    the 64 training classes alone.
Run: python -m experiments.zero_shot --config configs/cifar_fs_zero_shot.py --workdir
    runs/cifar_fs_zero_shot --data.dir DIR --net.pretrained
    runs/cifar_fs_modern/base/model.safetensors
Expect: 28.5% over the 20 test classes, where chance is 5% and one image per class gives
    29.1% (docs/results/prototypes.md), after a minute on 2 CPU cores.
"""

from experiments.zero_shot.presets import with_images

config = with_images("cifar_fs", "superclasses")
