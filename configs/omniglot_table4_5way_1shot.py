"""Omniglot, trained 5-way 1-shot with 15 queries per class: one row of Table 4.

Reproduces: Snell et al. 2017, Table 4 (train 1 shot, 15 query, 5 way), by the
    protocol of omniglot_1shot.py.
Run: python -m experiments.prototypes --config configs/omniglot_table4_5way_1shot.py
    --workdir runs/omniglot_table4_5way_1shot --data.dir DIR
Expect: 5-way 97.4 and 99.3 (1 and 5 shots), 20-way 92.0 and 97.8, minus the
    tolerance of re-implementations. For an accelerator; not yet run in full.
"""

from experiments.prototypes.presets import omniglot_published, omniglot_snell2017

config = omniglot_snell2017(way=5, shot=1, query=15)
published = omniglot_published(
    4, {(5, 1): 97.4, (5, 5): 99.3, (20, 1): 92.0, (20, 5): 97.8}
)
