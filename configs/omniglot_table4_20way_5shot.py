"""Omniglot, trained 20-way 5-shot with 15 queries per class: one row of Table 4.

Reproduces: Snell et al. 2017, Table 4 (train 5 shot, 15 query, 20 way), by the
    protocol of omniglot_1shot.py.
Run: python -m experiments.prototypes --config configs/omniglot_table4_20way_5shot.py
    --workdir runs/omniglot_table4_20way_5shot --data.dir DIR
Expect: 5-way 98.1 and 99.6 (1 and 5 shots), 20-way 94.1 and 98.7, minus the
    tolerance of re-implementations. For an accelerator; not yet run in full.
"""

from experiments.prototypes.presets import omniglot_published, omniglot_snell2017

config = omniglot_snell2017(way=20, shot=5, query=15)
published = omniglot_published(
    4, {(5, 1): 98.1, (5, 5): 99.6, (20, 1): 94.1, (20, 5): 98.7}
)
