"""The members of a zero-shot study: one per seed, and per noise level if simulated."""

import itertools
from typing import NamedTuple

from experiments.zero_shot.config import Config


class Mapped(NamedTuple):
    """Both maps of one seed.

    Attributes:
        seed: the seed of the maps and of all episodes.
        noise: the noise level of simulated features; None for a data set.
    """

    seed: int
    noise: float | None

    @property
    def name(self) -> str:
        """A name that is unique within a study."""
        level = "" if self.noise is None else f"noise{self.noise:g}-"
        return f"{level}seed{self.seed}"


def mapped(config: Config) -> list[Mapped]:
    """Return the members of a study."""
    levels = config.simulated.noise or (None,)
    return [Mapped(s, level) for level, s in itertools.product(levels, config.seeds)]
