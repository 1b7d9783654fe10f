"""Zero-shot classification of the test classes of miniImageNet by WordNet.

Reproduces: no published value; the protocol of Snell et al. 2017, section 2.7, on other
    data. The attributes of a class are its ancestors in WordNet. Features are those of
    a network that was trained on the 64 training classes alone.
Run: python -m experiments.zero_shot --config configs/miniimagenet_zero_shot.py
    --workdir runs/miniimagenet_zero_shot --data.dir DIR --attributes.path
    dataset_spec.json --net.pretrained
    runs/miniimagenet_modern/base/model.safetensors
    where dataset_spec.json is Meta-Dataset's specification of ILSVRC 2012, which holds
    the graph.
Expect: 15.1% over the 20 test classes with a network of 8 base epochs, where chance is
    5% and one image per class gives 15.4% (docs/results/prototypes.md).
"""

from experiments.zero_shot.presets import with_images

config = with_images("miniimagenet", "wordnet")
