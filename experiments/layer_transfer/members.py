"""The networks of a layer-transfer study: one treatment at one n for one target task.

All random numbers of a network depend on its name alone, so it is the same in any
study, in any order and after any interruption.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from experiments.layer_transfer.config import Config
from jaxfer.data import halve
from jaxfer.transfer import Treatment, treatments

# Logistic regression is not a treatment of the network.
PIXELS = "pixels"


class Target(NamedTuple):
    """A task: one half of a class split, trained with a given seed."""

    grid: str
    split: int
    half: str
    seed: int
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name that is unique within a study."""
        return f"{self.grid}-{self.split}{self.half}-seed{self.seed}"


class Transfer(NamedTuple):
    """One network of a study.

    Attributes:
        target: the target task.
        other: the other half of the same split; None if there is none.
        treatment: how it starts and which layers train; None for logistic regression.
    """

    target: Target
    other: Target | None
    treatment: Treatment | None

    @property
    def kind(self) -> str:
        """The name of the treatment."""
        return self.treatment.name if self.treatment else PIXELS

    @property
    def n(self) -> int:
        """The number of layers copied or frozen; 0 if the treatment has no n."""
        return self.treatment.n if self.treatment else 0

    @property
    def name(self) -> str:
        """A name that is unique within a study."""
        at = f"-n{self.n}" if self.n else ""
        return f"{self.target.name}-{self.kind}{at}"

    @property
    def source(self) -> str | None:
        """The name of the base network that it copies from; None if there is none."""
        if self.treatment is None or self.treatment.source == "none":
            return None
        task = self.target if self.treatment.source == "self" else self.other
        return None if task is None else f"{task.name}-base"


def transfers(
    config: Config, class_names: Sequence[str], num_layers: int
) -> list[Transfer]:
    """Return all networks of a study, each after the one it copies from.

    Args:
        config: the config of the study.
        class_names: names of the classes of the data set.
        num_layers: number of layers of the net. A treatment that copies extra layers,
            such as BnB-keep2, is left out at each n where it would copy more than this.

    Raises:
        ValueError: a rule that does not halve the classes, or an n or a treatment that
            needs more layers than the net has.
    """
    if most := [n for n in config.layers if n > num_layers]:
        raise ValueError(
            f"expected each number in layers to be at most {num_layers}, the number of "
            f"layers of the net, got {most}"
        )
    found = []
    for grid_name, grid in config.grids().items():
        kinds = [name for name in grid.treatments if name != PIXELS]
        fits = [
            t
            for t in treatments(kinds, config.layers)
            if not t.extra_copied or t.n + t.extra_copied <= num_layers
        ]
        if lost := sorted(set(kinds) - {t.name for t in fits}):
            raise ValueError(
                f"expected {grid_name}.treatments that fit the {num_layers} layers of "
                f"the net at one or more n of {list(config.layers)}, got {lost}, which "
                "copy too many layers at every n"
            )
        asked: list[Treatment | None] = [*fits]
        asked += [None] * (PIXELS in grid.treatments)
        try:
            parts = {s: _halves(class_names, grid.by, s) for s in grid.splits}
        except ValueError as e:
            raise ValueError(
                f"{e}; choose another --{grid_name}.by, or skip the grid with "
                f"--{grid_name}.splits"
            ) from e
        for split, seed in itertools.product(grid.splits, grid.seeds):
            targets = [
                Target(grid_name, split, half, seed, classes)
                for half, classes in parts[split].items()
            ]
            others = [*reversed(targets)] if len(targets) > 1 else [None]
            if config.net.pretrained:
                others = [None] * len(targets)
            found += [
                Transfer(target, other, treatment)
                for target, other in zip(targets, others, strict=True)
                for treatment in asked
            ]
    # Base networks come first, then treatments without n, then the others by n.
    return sorted(found, key=lambda m: (m.kind != "base", m.n))


def _halves(
    class_names: Sequence[str], by: str, split: int
) -> dict[str, tuple[str, ...]]:
    if by == "whole":
        return {"W": tuple(class_names)}
    a, b = halve(class_names, by, split)
    return {"A": a, "B": b}
