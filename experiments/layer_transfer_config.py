"""What `experiments.layer_transfer` can be told, and what it refuses."""

from dataclasses import dataclass, field
from typing import Literal

from experiments.backbone import Data, Network
from jaxfer.config import check_at_least, how, to_json
from jaxfer.data import Crop
from jaxfer.transfer import treatments


@dataclass(frozen=True)
class Optim:
    """SGD or AdamW along a cosine, the same for base networks and transfers."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-4
    """Of kernels; coupled to the gradient in SGD, decoupled in AdamW."""
    warmup: float = 1.0
    """Epochs over which the rate rises from 0."""
    clip: float = 0.0
    """Greatest norm of the gradient of what trains; 0 for none."""


@dataclass(frozen=True)
class Grid:
    """Halves of the classes, and what is done for each of them."""

    by: str = "random"
    """'random', 'made', 'animals', 'family', the path of two lists up to A.txt and
    B.txt (see `jaxfer.data.halve`), or 'whole' for all classes as one task."""
    splits: tuple[int, ...] = ()
    """Random splits by number; one number, of no meaning, for the others. None of a
    kind of halves, none of its networks."""
    seeds: tuple[int, ...] = (0,)
    treatments: tuple[str, ...] = ("base", "BnB", "BnB+", "AnB", "AnB+")
    """See `jaxfer.Treatment`; 'pixels' is logistic regression."""


@dataclass(frozen=True)
class Config:
    """A study: what it is, and how it is run."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=Network)
    optim: Optim = field(default_factory=Optim)
    augment: Crop = field(default_factory=Crop)
    similar: Grid = field(default_factory=lambda: Grid(splits=(0, 1)))
    """Halves that are alike: Figure 2 of the paper."""
    dissimilar: Grid = field(
        default_factory=lambda: Grid("animals", treatments=("base", "AnB"))
    )
    """Halves that are not: Figure 3, left and middle."""
    untrained: Grid = field(
        default_factory=lambda: Grid("whole", treatments=("base", "random"))
    )
    """Layers that no task has trained: Figure 3, right."""
    layers: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    """The values of n."""
    frozen_dropout: bool = True
    """Dropout goes on in frozen layers, as it did in the paper."""
    outputs: int | None = None
    """Of the classifier; as many as the task has classes, unless given. The paper's has
    1000 for every task."""
    epochs: int = 12
    batch: int = 128
    cache: bool = True
    """Train frozen networks on the activations of what never changes of them, computed
    once, where that is exact; elsewhere the log says why not. Networks that thaw are
    always trained on images."""
    cache_limit: float = how(2.0)
    """Gigabytes of activations that may be kept on a device; more go to the disk."""
    population: int | None = how(None)
    """Networks trained at once, of those that share a program; unless given, 1 a device
    on CPUs and 8 elsewhere."""
    devices: int | None = how(None)
    """Over which a population is spread, as many as divide it; one, unless given."""
    steps_per_call: int = how(1)
    """Steps in one compiled call: more of them where calls are what takes time."""
    save_every: int = how(1000)
    """Steps between checkpoints within a network's training."""
    log_every: int = how(50)
    """Steps averaged to one line of metrics.jsonl."""
    figures: bool = how(True)
    """Draw figures, where matplotlib is installed."""

    def grids(self) -> dict[str, Grid]:
        """Those that have networks, by the name under which results stand."""
        named = {
            "similar": self.similar,
            "dissimilar": self.dissimilar,
            "untrained": self.untrained,
        }
        return {name: grid for name, grid in named.items() if grid.splits}


def check(config: Config) -> None:
    """Refuse numbers and names that make no study."""
    values = to_json(config)
    positive = (
        "epochs",
        "batch",
        "steps_per_call",
        "save_every",
        "log_every",
        "net.width",
        "net.dense",
        "population",
        "devices",
        "data.classes",
        "data.min_images",
        "data.side",
        "outputs",
    )
    check_at_least(1, values, positive)
    limits = ("optim.clip", "augment.shift", "cache_limit", "data.limit")
    check_at_least(0, values, limits)
    if not 0 <= config.net.dropout < 1:
        raise ValueError(
            f"found net.dropout = {config.net.dropout}, needed 0 up to, not with, 1"
        )
    if config.augment.side is not None:
        raise ValueError(
            f"found augment.side = {config.augment.side}, needed none: networks of "
            "layer transfer see whole images"
        )
    if not config.grids():
        raise ValueError("found no splits in any grid, needed one, such as 0")
    if len(set(config.layers)) < len(config.layers) or not config.layers:
        raise ValueError(
            f"found layers {list(config.layers)}, needed different values of n"
        )
    if not 0 <= config.optim.warmup < config.epochs:
        raise ValueError(
            f"found optim.warmup = {config.optim.warmup}, needed 0 to less than the "
            f"{config.epochs} epochs"
        )
    for name, grid in config.grids().items():
        _check_grid(name, grid, config.layers)


def _check_grid(name: str, grid: Grid, layers: tuple[int, ...]) -> None:
    for field_name in ("splits", "seeds", "treatments"):
        found = getattr(grid, field_name)
        if len(set(found)) < len(found) or not found:
            raise ValueError(
                f"found {name}.{field_name} = {list(found)}, needed different ones"
            )
    if "base" not in grid.treatments:
        raise ValueError(
            f"found no 'base' in {name}.treatments, needed it: every other is compared "
            "with it"
        )
    if grid.by != "random" and len(grid.splits) > 1:
        raise ValueError(
            f"found {name}.splits = {list(grid.splits)} by {grid.by!r}, needed one: "
            "only random halves have several; see seeds"
        )
    known = treatments([t for t in grid.treatments if t != "pixels"], layers)
    others = sorted({t.name for t in known if t.source == "other"})
    if grid.by == "whole" and others:
        raise ValueError(
            f"found {others} in {name}.treatments by 'whole', needed halves for them: "
            "there is no other task"
        )
