"""The options of `experiments.layer_transfer`, and what it refuses."""

from dataclasses import dataclass, field

from experiments.inputs import Data, Network, StudyOptions, check_different, check_study
from jaxfer.config import which
from jaxfer.data import Crop
from jaxfer.optim import Optim, check_optim
from jaxfer.transfer import treatments


@dataclass(frozen=True)
class Grid:
    """Halves of the classes, and what is trained for each of them."""

    by: str = "random"
    """How classes are halved: random, made, animals, family, the path of two class
    lists up to A.txt and B.txt, or whole for all classes as one task."""
    splits: tuple[int, ...] = which(())
    """Numbers of random splits; one number, such as 0, for the other rules. Leave empty
    to skip this grid."""
    seeds: tuple[int, ...] = which((0,))
    """Seeds of the networks."""
    treatments: tuple[str, ...] = which(("base", "BnB", "BnB+", "AnB", "AnB+"))
    """base, base3, base+, BnB, BnB+, AnB, AnB+, random, and variants such as BnB-keep2
    and AnB-thaw (see `jaxfer.Treatment`); pixels is logistic regression."""


@dataclass(frozen=True)
class Config(StudyOptions):
    """A study of layer transfer."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=Network)
    optim: Optim = field(
        default_factory=lambda: Optim(
            "sgd", 0.02, schedule="cosine", warmup=1 / 12, weight_decay=5e-4
        )
    )
    augment: Crop = field(default_factory=Crop)
    similar: Grid = field(default_factory=lambda: Grid(splits=(0, 1)))
    """Halves that are alike: Figure 2 of the paper."""
    dissimilar: Grid = field(
        default_factory=lambda: Grid("animals", treatments=("base", "AnB"))
    )
    """Halves that are not alike: Figure 3, left and middle."""
    untrained: Grid = field(
        default_factory=lambda: Grid("whole", treatments=("base", "random"))
    )
    """Layers that no task has trained: Figure 3, right."""
    layers: tuple[int, ...] = which((1, 2, 3, 4, 5, 6, 7))
    """The values of n."""
    frozen_dropout: bool = True
    """Keep dropout on in frozen layers, as in the paper."""
    outputs: int | None = None
    """Outputs of the classifier; default: as many as the task has classes. The paper
    has 1000 for every task."""
    epochs: int = 12
    batch: int = 128
    accumulate: int = 1
    """Micro-batches per step: their gradients are averaged, which needs less memory."""
    cache: bool = True
    """Train frozen networks on the activations of their frozen layers, computed once,
    where that is exact; elsewhere the log says why not."""

    def grids(self) -> dict[str, Grid]:
        """The grids that have networks, by the name of their results."""
        named = {
            "similar": self.similar,
            "dissimilar": self.dissimilar,
            "untrained": self.untrained,
        }
        return {name: grid for name, grid in named.items() if grid.splits}


def check(config: Config) -> None:
    """Refuse numbers and names that make no study.

    Raises:
        ValueError: an option with its value and what is allowed.
    """
    check_study(config, ["outputs"])
    if config.augment.side is not None:
        raise ValueError(
            f"expected no augment.side, got {config.augment.side}: networks of layer "
            "transfer see whole images"
        )
    if not config.grids():
        raise ValueError("expected splits in at least one grid, such as 0, got none")
    check_optim(config.optim)
    check_different("layers", config.layers, needed=True)
    for name, grid in config.grids().items():
        for part in ("splits", "seeds", "treatments"):
            check_different(f"{name}.{part}", getattr(grid, part), needed=True)
        _check_grid(name, grid, config.layers)


def _check_grid(name: str, grid: Grid, layers: tuple[int, ...]) -> None:
    if "base" not in grid.treatments:
        raise ValueError(
            f"expected 'base' among {name}.treatments: every other is compared with it"
        )
    if grid.by != "random" and len(grid.splits) > 1:
        raise ValueError(
            f"expected one split for {name}.by = {grid.by!r}, got {list(grid.splits)}: "
            f"use {name}.seeds for repetitions"
        )
    known = treatments([t for t in grid.treatments if t != "pixels"], layers)
    others = sorted({t.name for t in known if t.source == "other"})
    if grid.by == "whole" and others:
        raise ValueError(
            f"expected treatments of a single task with {name}.by = 'whole', got "
            f"{others}: there is no other task to copy from"
        )
