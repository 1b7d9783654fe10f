"""Zero-shot classification (Snell et al. 2017, section 2.7): classes from attributes.

    python -m experiments.zero_shot --config configs/cub_zero_shot_simulated.py

One linear map takes image features to embeddings, another takes the attributes of a
class to its prototype. Both are trained on classes with images, and tested on classes
that have none in training. Every seed is a network of its own; results are means over
seeds. The same command resumes a stopped study, and adds missing seeds.
"""
