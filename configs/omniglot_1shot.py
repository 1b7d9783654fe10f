"""Omniglot as Snell et al. 2017 ran it, 60-way 1-shot: the 1-shot cells of Table 1.

Reproduces: Snell et al. 2017, Table 1 (Proto. Nets), 1-shot, by the protocol of the
    released code: one episode an update, Adam at 1e-3 halved every 2000 episodes, 100
    validation episodes (5-way, new ones each time) after every 100 on the five
    validation alphabets, training until more than 200 of them in a row have no lower
    loss, then a fresh run on train + val for as many episodes as the best took, counted
    from 0, and 20,000 more.
Run: python -m experiments.prototypes --config configs/omniglot_1shot.py
    --workdir runs/omniglot_1shot --data.dir DIR
Expect: 5-way 98.8, 20-way 96.0, minus the tolerance of re-implementations (0.6 and
    1.1). For an accelerator, and not yet run in full; 6000 episodes on
    train + val alone, with no validation, gave 98.43 and 94.96:
    --data.train trainval --data.val None --data.retrain None --episodes 6000
"""

from experiments.prototypes.presets import omniglot_published, omniglot_snell2017

config = omniglot_snell2017(way=60, shot=1, query=5, test_shots=(1,))
published = omniglot_published(1, {(5, 1): 98.8, (20, 1): 96.0})
