"""One module a paper, or a part of one; each is run as `python -m experiments.NAME`."""
