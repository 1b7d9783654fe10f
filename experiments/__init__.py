"""One package per paper; each is run as `python -m experiments.NAME`."""
