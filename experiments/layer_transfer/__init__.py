"""Layer transfer (Yosinski et al. 2014): which layers of a network carry over?

    python -m experiments.layer_transfer --config configs/glyphs_layer_transfer.py

This trains base networks on halves of the classes. It copies the first n layers of each
to networks for its own half (selffer) and for the other half (transfer), frozen or
fine-tuned, and measures the change in test accuracy, paired by target task. The same
command resumes a stopped study, and adds missing networks to a finished one.
"""
