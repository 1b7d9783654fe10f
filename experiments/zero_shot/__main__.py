"""The command line of the zero-shot study."""

import sys
from collections.abc import Sequence

from experiments.zero_shot.config import Config
from jaxfer import config as configs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    return configs.main("experiments.zero_shot", Config, argv)


if __name__ == "__main__":
    sys.exit(main())
