"""The command line of prototypical networks."""

import sys
from collections.abc import Sequence

from experiments.prototypes.config import Config
from jaxfer import config as configs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    return configs.main("experiments.prototypes", Config, argv, together=True)


if __name__ == "__main__":
    sys.exit(main())
