"""The options of `experiments.prototypes`, and what it refuses."""

from dataclasses import dataclass, field

from experiments.inputs import Network, check_different
from jaxfer import heads
from jaxfer.config import check_at_least, how, to_json
from jaxfer.data import Affine
from jaxfer.models import Options
from jaxfer.optim import Optim, check_optim


@dataclass(frozen=True)
class Data:
    """Which classes train, which say when to stop, and which test."""

    name: str = "omniglot"
    """Data set whose parts have different classes: folder, glyphs, omniglot."""
    train: str = "trainval"
    """Part to train on: train, or trainval for train and val together."""
    val: str | None = None
    """Part to validate on: validation stops training, and the best state is tested."""
    retrain: str | None = None
    """Part for a fresh run after that, as long as the best one and the patience, which
    is tested in its place: what the released code of Snell et al. 2017 does."""
    test: str = "test"
    """Part to test on."""
    side: int | None = None
    """Pixels per side to shrink images to, or to resize photographs to; default:
    unchanged; 256 for photographs."""
    dir: str | None = how(None)
    """Data directory; default: $JAXFER_DATA, else the TFDS default."""


@dataclass(frozen=True)
class Task:
    """The shape of a training episode."""

    way: int = 60
    """Classes."""
    shot: int = 1
    """Support examples per class."""
    query: int = 5
    """Queries per class."""
    cyclic: bool = False
    """Shift the support and queries of a class in a circle, so that every example is
    support in turn: shot + query episodes for one embedding. The paper has one."""


@dataclass(frozen=True)
class Evaluation:
    """Test episodes: every way with every shot."""

    ways: tuple[int, ...] = (5, 20)
    shots: tuple[int, ...] = (1, 5)
    query: int = 15
    """Queries per class."""
    episodes: int = 1000
    """Episodes of each way and shot."""
    transductive: bool = False
    """Also test with the BatchNorm statistics of each test episode, queries included.
    Predictions then depend on the other queries, and the method is named so."""


@dataclass(frozen=True)
class Validation:
    """Validation episodes: shots as in training, new episodes each time."""

    every: int = 100
    """Training episodes between validations."""
    episodes: int = 100
    """Episodes of a validation."""
    way: int = 5
    query: int = 15
    patience: int = 200
    """Validations without improvement before training stops."""


@dataclass(frozen=True)
class Config:
    """A run of prototypical networks."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=lambda: Network("Conv4"))
    task: Task = field(default_factory=Task)
    val: Validation = field(default_factory=Validation)
    test: Evaluation = field(default_factory=Evaluation)
    optim: Optim = field(
        default_factory=lambda: Optim(
            "adam", 1e-3, schedule="staircase", decay=0.5, decay_every=2000
        )
    )
    """A unit of its schedule is an episode."""
    augment: Affine = field(default_factory=Affine)
    """Random affine maps of training images, one per image; the paper has none."""
    distance: heads.Distance = "sqeuclidean"
    """sqeuclidean or cosine."""
    episodes: int = 2000
    """Training episodes; with validation, at most."""
    episodes_per_step: int = 1
    """Episodes whose gradients are averaged in one update; the paper has 1."""
    seed: int = 0
    """Seed of the first weights and of the episodes, in training and test."""
    devices: int | None = how(None)
    """Devices to spread the episodes of a step over; default: as many as divide them
    evenly."""
    run: Options = how(Options(save_every=500, log_every=50))
    figures: bool = how(True)
    """Draw figures, if matplotlib is installed."""


def check(config: Config) -> None:
    """Refuse numbers that make no run.

    Raises:
        ValueError: an option with its value and what is allowed.
    """
    values, val = to_json(config), config.val
    positive = ("episodes", "episodes_per_step", "test.episodes", "devices")
    own = ("val.every", "val.episodes", "val.patience")
    check_at_least(1, values, (*positive, *own, "data.side"))
    check_at_least(2, values, ("task.way", "val.way"))
    check_at_least(0, values, [name for name in values if name.startswith("augment.")])
    for name in ("ways", "shots"):
        check_different(f"test.{name}", getattr(config.test, name), needed=True)
    if min(config.test.ways) < 2:
        raise ValueError(f"expected test.ways of at least 2, got {config.test.ways}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"expected seed in [0, 2^32), got {config.seed}")
    check_optim(config.optim)
    config.net.build()
    per_step = config.episodes_per_step
    if config.devices and per_step % config.devices:
        raise ValueError(
            f"expected episodes_per_step to be a multiple of devices = "
            f"{config.devices}, got {per_step}"
        )
    if config.episodes % per_step:
        raise ValueError(
            f"expected episodes to be a multiple of episodes_per_step = {per_step}, "
            f"got {config.episodes}"
        )
    if config.data.val and val.every % per_step:
        raise ValueError(
            f"expected val.every to be a multiple of episodes_per_step = {per_step}, "
            f"got {val.every}"
        )
    if config.data.val and config.episodes < val.every:
        raise ValueError(
            f"expected episodes of at least val.every = {val.every} with data.val, got "
            f"{config.episodes}: no state would be validated"
        )
    if config.data.val and config.optim.schedule == "cosine":
        raise ValueError(
            "expected no data.val with optim.schedule = 'cosine', which ends at a "
            f"known step, got {config.data.val!r}"
        )
    if config.data.retrain and not config.data.val:
        raise ValueError(
            f"expected data.val with data.retrain = {config.data.retrain!r}, got none: "
            "validation says how long to train again"
        )
