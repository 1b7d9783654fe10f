"""Imprinted weights (Qi et al. 2018): a trained classifier learns new classes.

    python -m experiments.imprinting --config configs/glyphs_imprinting.py

This trains classifiers of base classes and adds novel classes from 1 to 20 examples
each: by imprinting, with random weights, or as nearest neighbours. It fine-tunes some
of these, and measures the test accuracy on base and novel classes. The same command
resumes a stopped study, and adds missing networks to a finished one.
"""
