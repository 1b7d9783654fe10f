"""Imprinted weights (Qi et al. 2018): a trained classifier meets new classes.

    python -m experiments.imprinting --config configs/glyphs_imprinting.py

trains classifiers of base classes, adds novel ones from 1 to 20 examples each by
imprinting, at random, or as nearest neighbours, fine-tunes some of these, and measures
on test images what is known of old and new classes. The same line goes on after any
stop, and adds what a finished study lacks.
"""
