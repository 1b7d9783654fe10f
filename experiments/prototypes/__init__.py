"""Prototypical networks (Snell et al. 2017): train on episodes, classify new classes.

    python -m experiments.prototypes --config configs/quickstart.py --workdir DIR

trains an embedding on episodes of the training classes, embeds the test classes once,
and classifies numbered episodes of them for every way and shot, beside a nearest
neighbour on raw pixels on the same episodes. The same line resumes.
"""
