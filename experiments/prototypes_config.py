"""What `experiments.prototypes` can be told, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxfer import heads
from jaxfer.config import check_at_least, how, to_json
from jaxfer.data import Affine


@dataclass(frozen=True)
class Data:
    """Which classes train, which say when to stop, and which test."""

    name: str = "omniglot"
    train: str = "trainval"
    val: str | None = None
    """Validation stops training, and its best state is tested, where this is given."""
    retrain: str | None = None
    """Then a fresh run on these, as long as the best one and the patience, is tested
    in its place: what the released code of Snell et al. 2017 does."""
    test: str = "test"
    side: int | None = None
    """Pixels a side to shrink images to, or to resize photographs to; as they are, and
    256, unless given."""
    dir: str | None = how(None)
    """Data directory; else $JAXFER_DATA, else where TFDS keeps its data."""
    limit: float = how(4.0)
    """Gigabytes of a part's pixels kept on a device; a larger part is streamed from the
    host or the disk, ahead of the step."""
    workers: int = how(2)
    """Threads that read what is streamed."""


@dataclass(frozen=True)
class Embedding:
    """The network."""

    width: int = 64
    bn_scale_init: Literal["ones", "uniform"] = "uniform"
    """BatchNorm scales at first; the paper's framework drew them from U(0, 1)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters, statistics and distances stay float32."""


@dataclass(frozen=True)
class Task:
    """The shape of a training episode."""

    way: int = 60
    shot: int = 1
    query: int = 5
    cyclic: bool = False
    """The support and queries of a class are shifted in a circle, every example support
    in turn: shot + query episodes for one embedding. The paper has one."""

    def shape(self) -> dict[str, int]:
        """As `sample_episode` takes it."""
        return {"way": self.way, "shot": self.shot, "n_query": self.query}


@dataclass(frozen=True)
class Evaluation:
    """Test episodes: every way with every shot."""

    ways: tuple[int, ...] = (5, 20)
    shots: tuple[int, ...] = (1, 5)
    query: int = 15
    episodes: int = 1000
    transductive: bool = False
    """Test beside it with the BatchNorm statistics of each test episode, its queries'
    too. Predictions then depend on the other queries, and the method is named so."""


@dataclass(frozen=True)
class Validation:
    """Validation episodes: shots as in training, new episodes each time."""

    every: int = 100
    """Training episodes between validations."""
    episodes: int = 100
    way: int = 5
    query: int = 15
    patience: int = 200
    """Validations without a lower loss that are borne."""


@dataclass(frozen=True)
class Optim:
    """Adam, its rate halved at fixed intervals or brought to 0 along a cosine."""

    learning_rate: float = 1e-3
    schedule: Literal["halving", "cosine"] = "halving"
    halve_every: int = 2000
    """Episodes between halvings; 0 for a constant rate."""
    warmup: int = 100
    """Steps, before the cosine, over which the rate rises from 0."""


@dataclass(frozen=True)
class Config:
    """A run: what it is, and how it is run."""

    data: Data = field(default_factory=Data)
    net: Embedding = field(default_factory=Embedding)
    task: Task = field(default_factory=Task)
    val: Validation = field(default_factory=Validation)
    test: Evaluation = field(default_factory=Evaluation)
    optim: Optim = field(default_factory=Optim)
    augment: Affine = field(default_factory=Affine)
    """Training images are moved at random, each by itself; the paper's are not."""
    distance: heads.Distance = "sqeuclidean"
    episodes: int = 2000
    """Training episodes; with validation, at most."""
    episodes_per_step: int = 1
    """Episodes whose gradients are averaged to one update; the paper's is 1."""
    seed: int = 0
    """Of the first weights and of the episodes, in training and test."""

    steps_per_call: int = how(1)
    """Steps in one call of the device; more hides the host where steps are short."""
    devices: int | None = how(None)
    """Devices to spread the episodes of a step over; the most that divide them evenly,
    unless given."""
    save_every: int = how(500)
    """Steps between checkpoints."""
    log_every: int = how(50)
    """Steps averaged to one line of metrics.jsonl."""
    figures: bool = how(True)
    """Draw figures, where matplotlib is installed."""


def published_accuracies(
    source: str, cells: Mapping[tuple[int, int], tuple[float, float]]
) -> list[dict[str, Any]]:
    """Published test accuracies, for a config file to set beside its result.

    Args:
        source: the paper and its table.
        cells: accuracy in percent and tolerance below it, by (way, shot).
    """
    return [
        {
            "name": f"test/{way}way_{shot}shot/prototypes/accuracy",
            "value": value,
            "tolerance": tolerance,
            "source": source,
        }
        for (way, shot), (value, tolerance) in cells.items()
    ]


def omniglot_snell2017(
    *, way: int, shot: int, query: int, test_shots: tuple[int, ...] = (1, 5)
) -> Config:
    """Omniglot by the protocol of Snell et al. 2017, as their released code has it.

    One episode an update; Adam at 1e-3, halved every 2000 episodes; after every 100
    episodes 100 of 5-way validation, new ones each time, on five alphabets; an end once
    more than 200 of those in a row have no lower loss; then a fresh run on train + val
    for as many episodes as the best took, counted from 0, and 20,000 more. Its last
    weights are tested on 1000 episodes.

    Args:
        way: classes of a training episode.
        shot: its support examples a class.
        query: its queries a class.
        test_shots: of the test episodes.
    """
    return Config(
        data=Data("omniglot", "train", val="val", retrain="trainval", test="test"),
        task=Task(way=way, shot=shot, query=query),
        val=Validation(every=100, episodes=100, way=5, query=15, patience=200),
        test=Evaluation(ways=(5, 20), shots=test_shots, query=15, episodes=1000),
        optim=Optim(learning_rate=1e-3, halve_every=2000),
        episodes=1_000_000,
    )


def omniglot_published(
    table: int, accuracies: Mapping[tuple[int, int], float]
) -> list[dict[str, Any]]:
    """Accuracies of Snell et al. 2017 on Omniglot, with the tolerance below them.

    That is how far users of the released code fall short of Table 1; for the rows of
    Table 4 it is borrowed.

    Args:
        table: 1 or 4.
        accuracies: in percent, by (way, shot).
    """
    tolerance = {(5, 1): 0.6, (5, 5): 0.35, (20, 1): 1.1, (20, 5): 0.4}
    return published_accuracies(
        f"Snell et al. 2017, Table {table}",
        {cell: (value, tolerance[cell]) for cell, value in accuracies.items()},
    )


def check_numbers(config: Config) -> None:
    """Refuse numbers that make no run."""
    values = to_json(config)
    positive = (
        "episodes",
        "episodes_per_step",
        "steps_per_call",
        "save_every",
        "log_every",
        "val.every",
        "val.episodes",
        "val.patience",
        "test.episodes",
        "net.width",
        "data.workers",
    )
    check_at_least(1, values, positive)
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"found seed = {config.seed}, needed 0 to 2^32 - 1")
    if config.episodes % config.episodes_per_step:
        raise ValueError(
            f"found episodes = {config.episodes}, needed a multiple of "
            f"episodes_per_step = {config.episodes_per_step}"
        )
    if config.data.val and config.val.every % config.episodes_per_step:
        raise ValueError(
            f"found val.every = {config.val.every}, needed a multiple of "
            f"episodes_per_step = {config.episodes_per_step}"
        )
    check_at_least(0, values, ["data.limit"])
    if config.data.val and config.episodes < config.val.every:
        raise ValueError(
            f"found episodes = {config.episodes} with data.val, needed at least "
            f"val.every = {config.val.every}: no state would be validated"
        )
    if config.optim.schedule == "cosine":
        if config.data.val:
            raise ValueError(
                "found optim.schedule = 'cosine' with data.val, needed one or the "
                "other: a cosine ends at a known step"
            )
        steps = config.episodes // config.episodes_per_step
        if not 0 <= config.optim.warmup < steps:
            raise ValueError(
                f"found optim.warmup = {config.optim.warmup}, needed 0 to the number "
                f"of steps less one, {steps - 1}"
            )
    if config.data.retrain and not config.data.val:
        raise ValueError(
            f"found data.retrain = {config.data.retrain!r} without data.val, needed "
            "both: validation says how long to train again"
        )
