"""The command line of prototypical networks."""

from collections.abc import Sequence

from experiments.prototypes.config import Config
from jaxfer import config as configs
from jaxfer.signals import exit_after


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    return configs.main("experiments.prototypes", Config, argv, together=True)


if __name__ == "__main__":
    exit_after(main)
