"""Omniglot, trained 60-way 5-shot with 5 queries per class: one row of Table 4.

Reproduces: Snell et al. 2017, Table 4 (train 5 shot, 5 query, 60 way), by the
    protocol of omniglot_1shot.py.
Run: python -m experiments.prototypes --config configs/omniglot_table4_60way_5shot.py
    --workdir runs/omniglot_table4_60way_5shot --data.dir DIR
Expect: 5-way 98.5 and 99.7 (1 and 5 shots), 20-way 94.7 and 98.9, minus the
    tolerance of re-implementations. For an accelerator; not yet run in full.
"""

from experiments.prototypes.presets import omniglot_published, omniglot_snell2017

config = omniglot_snell2017(way=60, shot=5, query=5)
published = omniglot_published(
    4, {(5, 1): 98.5, (5, 5): 99.7, (20, 1): 94.7, (20, 5): 98.9}
)
