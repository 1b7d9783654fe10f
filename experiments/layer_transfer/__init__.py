"""Layer transfer (Yosinski et al. 2014): which layers of a network carry over?

    python -m experiments.layer_transfer --config configs/glyphs_layer_transfer.py

trains base networks on halves of the classes, copies the first n layers of each to
networks for its own half (selffer) and for the other (transfer), frozen and fine-tuned,
and measures on test images what that costs, paired by target task. The same line goes
on after any stop, and adds what a finished study lacks.
"""
