"""Prototypical networks (Snell et al. 2017): train on episodes, classify new classes.

    python -m experiments.prototypes --config configs/quickstart.py --workdir DIR

This trains an embedding on episodes of the training classes and embeds the test classes
once. It then classifies test episodes for every way and shot, and compares with nearest
neighbours on raw pixels on the same episodes. The same command resumes a stopped run.
"""
