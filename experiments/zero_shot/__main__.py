"""The command line of the zero-shot study."""

from collections.abc import Sequence

from experiments.zero_shot.config import Config
from jaxfer import config as configs
from jaxfer.signals import exit_after


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    return configs.main("experiments.zero_shot", Config, argv)


if __name__ == "__main__":
    exit_after(main)
