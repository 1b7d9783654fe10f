"""Omniglot, trained 60-way 1-shot with 5 queries per class: one row of Table 4.

Reproduces: Snell et al. 2017, Table 4 (train 1 shot, 5 query, 60 way), by the
    protocol of omniglot_1shot.py.
Run: python -m experiments.prototypes --config configs/omniglot_table4_60way_1shot.py
    --workdir runs/omniglot_table4_60way_1shot --data.dir DIR
Expect: 5-way 98.8 and 99.7 (1 and 5 shots), 20-way 96.0 and 99.0, minus the
    tolerance of re-implementations. For an accelerator; not yet run in full.
"""

from experiments.prototypes.presets import omniglot_published, omniglot_snell2017

config = omniglot_snell2017(way=60, shot=1, query=5)
published = omniglot_published(
    4, {(5, 1): 98.8, (5, 5): 99.7, (20, 1): 96.0, (20, 5): 99.0}
)
