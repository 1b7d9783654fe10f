"""Options of `experiments.layer_transfer`, and their checks."""

from dataclasses import dataclass, field

from experiments.inputs import Data, Network, check_apart, check_different
from experiments.options import StudyOptions, check_study
from jaxfer.config import length, which
from jaxfer.data import Crop
from jaxfer.optim import Optim
from jaxfer.ranges import Amount, Count, Seed
from jaxfer.transfer import treatments


@dataclass(frozen=True)
class Grid:
    """A rule that halves the classes, and the networks trained for each half."""

    by: str = "random"
    """Rule that halves the classes: random; made or animals (for cifar100); family (for
    glyphs); a path PREFIX, for the class lists PREFIXA.txt and PREFIXB.txt; or whole,
    for one task with all classes."""
    splits: tuple[Amount, ...] = which(())
    """Which random splits to use: numbers of at least 0, such as 0 1 2. The other rules
    have a single split: give one number, such as 0. Leave empty to skip this grid."""
    seeds: tuple[Seed, ...] = which((0,))
    """Seeds of the networks: one or more, in [0, 2^32)."""
    treatments: tuple[str, ...] = which(("base", "BnB", "BnB+", "AnB", "AnB+"))
    """base (required) and any of base3, base+, BnB, BnB+, AnB, AnB+, random and pixels
    (logistic regression); see `jaxfer.Treatment`. BnB and AnB accept -keepK, to copy K
    more layers and train them; BnB, AnB and random accept -thaw, to unfreeze the layers
    one by one. With net.pretrained, AnB and AnB+ copy from these weights, and the other
    treatments start from random ones."""


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
    """Grid of similar halves (Figure 2 of the paper)."""
    dissimilar: Grid = field(
        default_factory=lambda: Grid("animals", treatments=("base", "AnB"))
    )
    """Grid of dissimilar halves (Figure 3, left and middle)."""
    untrained: Grid = field(
        default_factory=lambda: Grid("whole", treatments=("base", "random"))
    )
    """Grid of untrained frozen layers (Figure 3, right)."""
    layers: tuple[Count, ...] = which((1, 2, 3, 4, 5, 6, 7))
    """Values of n, the number of copied or frozen layers, each from 1 to the number of
    layers of the network."""
    frozen_dropout: bool = True
    """Apply dropout in frozen layers too, as in the paper."""
    outputs: Count | None = None
    """Outputs of the classifier, at least the number of classes of a task; default:
    that number. The paper uses 1000 for every task."""
    epochs: Count = length(12)
    """Training epochs, at least 1."""
    batch: Count = 128
    """Examples per step, at least 1."""
    accumulate: Count = 1
    """Micro-batches per step, a divisor of batch; a larger number needs less memory."""
    cache: bool = True
    """Compute the outputs of frozen layers once and train on them, if these outputs do
    not change during training; otherwise the reason is printed."""

    def grids(self) -> dict[str, Grid]:
        """Return the grids that have networks, by the name used in results."""
        named = {
            "similar": self.similar,
            "dissimilar": self.dissimilar,
            "untrained": self.untrained,
        }
        return {name: grid for name, grid in named.items() if grid.splits}


def check(config: Config) -> None:
    """Check the options of a study.

    Raises:
        ValueError: an invalid option; the message states what is allowed.
    """
    check_study(config)
    check_apart(train=config.data.train, test=config.data.test)
    if config.augment.side is not None:
        raise ValueError(
            f"expected no augment.side, got {config.augment.side}: layer transfer "
            "uses whole images"
        )
    if not config.grids():
        raise ValueError(
            "expected splits in at least one grid, got none: set --similar.splits 0"
        )
    check_different("layers", config.layers, needed=True)
    for name, grid in config.grids().items():
        for part in ("splits", "seeds", "treatments"):
            check_different(f"{name}.{part}", getattr(grid, part), needed=True)
        _check_grid(name, grid, config.layers, config.net.pretrained)


def _check_grid(
    name: str, grid: Grid, layers: tuple[int, ...], pretrained: str | None
) -> None:
    if "base" not in grid.treatments:
        raise ValueError(
            f"expected 'base' among {name}.treatments, got {list(grid.treatments)}: "
            "all others are compared with it"
        )
    if grid.by != "random" and len(grid.splits) > 1:
        raise ValueError(
            f"expected one split for {name}.by = {grid.by!r}, got {list(grid.splits)}: "
            f"use {name}.seeds for repetitions"
        )
    known = treatments([t for t in grid.treatments if t != "pixels"], layers)
    others = sorted({t.name for t in known if t.source == "other"})
    if grid.by == "whole" and others and pretrained is None:
        raise ValueError(
            f"expected treatments of a single task with {name}.by = 'whole', got "
            f"{others}: there is no other task to copy from, unless net.pretrained "
            "names weights"
        )
