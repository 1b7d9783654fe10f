"""Zero-shot classification of birds, as in Snell et al. 2017.

Reproduces: Snell et al. 2017, Table 3 (54.6%): 50 test classes of CUB-200-2011 from
    312 attributes, by Reed's list of test classes. The 100 training and 50 validation
    classes are chosen at random among the others, since Reed's own choice of them is
    not published with it. Features of the paper are 1,024 activations of GoogLeNet; a
    bank of features of one's own takes their place (see docs/howto/feature_banks.md).
Run: python -m experiments.zero_shot --config configs/cub_zero_shot.py --workdir
    runs/cub_zero_shot --data.dir BANK --data.class-lists LISTS --attributes.path CUB
    where LISTS has trainval_classes.txt and test_classes.txt, and CUB is the folder
    CUB_200_2011.
Expect: not measured, since the features of the paper are not available for download.
"""

from experiments.zero_shot.config import Attributes, Config, Data

config = Config(
    data=Data("bank", class_seed=0),
    attributes=Attributes("cub"),
    features="raw",
)
published = [
    {
        "name": "test/50way_0shot/zero_shot/accuracy",
        "value": 54.6,
        "tolerance": 1.0,
        "source": "Snell et al. 2017, Table 3",
    }
]
