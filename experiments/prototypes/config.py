"""Options of `experiments.prototypes`, and their checks."""

from dataclasses import dataclass, field
from typing import Literal

from experiments.inputs import (
    ClassData,
    Episodes,
    Network,
    Way,
    check_apart,
    check_different,
)
from experiments.options import Mesh
from jaxfer import heads
from jaxfer.config import check_at_least, how, length, to_json
from jaxfer.data import Affine, Crop, Jitter
from jaxfer.methods import Temperature
from jaxfer.models import Options
from jaxfer.optim import Optim, needs_length
from jaxfer.ranges import Amount, Count, Seed, check_ranges


@dataclass(frozen=True)
class Data(ClassData):
    """The data set, and its parts for training, validation and test."""

    name: str = "omniglot"
    """Data set whose parts have different classes: cifar_fs, cub_fewshot, fc100,
    folder, glyphs, miniimagenet, omniglot, omniglot_background or tieredimagenet; or
    bank, caltech_birds2011, cifar100 or i_naturalist2017, with class_lists,
    class_shares or class_seed."""
    train: str = "trainval"
    """Part to train on: train, or trainval for train and val together."""
    val: str | None = None
    """Part to validate on, such as val; default: none. Validation decides when training
    stops, and the state with the lowest loss is tested."""
    retrain: str | None = None
    """Part for a second training from scratch, such as trainval; default: none. It
    lasts as long as the best state took plus the patience, and its model is tested, as
    in the released code of Snell et al. 2017."""
    test: str = "test"
    """Part to test on, such as test or val."""


@dataclass(frozen=True)
class Task:
    """The shape of a training episode."""

    way: Way = 60
    """Classes per episode, at least 2."""
    shot: Count = 1
    """Support examples per class, at least 1."""
    query: Count = 5
    """Queries per class, at least 1."""
    grouped: bool = False
    """Take the classes of an episode from one superclass, such as an alphabet of
    Omniglot, in training and validation."""
    least_shot: Count | None = None
    """Fewest support examples of a class, from 1 to shot: the classes of an episode
    have different numbers of them, at random. Images that are left out still count in
    the BatchNorm statistics of training. Default: all have shot."""
    cyclic: bool = False
    """Rotate support and queries, so that every example of a class is support in turn.
    This gives shot + query episodes per embedding; the paper uses one."""


Kind = Literal[
    "prototypes", "matching", "matching_fce", "diagonal", "gaussians", "anil", "maml"
]
# Methods with parameters of their own, which episodes train.
TRAINED = ("anil", "diagonal", "maml", "matching_fce")
Other = Literal[
    "prototypes",
    "prototypes_cosine",
    "matching",
    "nearest",
    "nearest_cosine",
    "simpleshot",
    "ridge",
    "logistic",
    "gaussians",
    "fine_tuning",
]


@dataclass(frozen=True)
class Evaluation:
    """Test episodes, for every combination of way and shot."""

    ways: tuple[Way, ...] = (5, 20)
    """Classes per episode: one or more numbers, each at least 2."""
    shots: tuple[Count, ...] = (1, 5)
    """Support examples per class: one or more numbers, each at least 1."""
    query: Count = 15
    """Queries per class, at least 1."""
    episodes: Episodes = 1000
    """Episodes per combination of way and shot, at least 1."""
    grouped: bool = False
    """Take the classes of an episode from one superclass, such as an alphabet of
    Omniglot."""
    least_shot: Count | None = None
    """Fewest support examples of a class, from 1 to the smallest of shots: the classes
    of an episode have different numbers of them, at random. Default: all have the same
    number."""
    methods: tuple[Other, ...] = ()
    """Other classifiers to test on the same embeddings and episodes: prototypes,
    prototypes_cosine, matching (cosine), nearest, nearest_cosine, simpleshot, ridge,
    logistic or gaussians; or fine_tuning, which trains the whole network on each
    support set and takes much longer."""
    transductive: bool = False
    """Also test with the BatchNorm statistics of each test episode, queries included.
    The names of these results end in _transductive, since they depend on other
    queries."""


@dataclass(frozen=True)
class Validation:
    """Validation episodes: shots as in training, new episodes at each validation."""

    every: Count = 100
    """Training episodes between validations, at least 1."""
    episodes: Episodes = 100
    """Episodes per validation, at least 1."""
    way: Way = 5
    """Classes per episode, at least 2."""
    query: Count = 15
    """Queries per class, at least 1."""
    patience: Count = 200
    """Validations without improvement before training stops, at least 1."""


@dataclass(frozen=True)
class Base:
    """A classifier of the training classes, which is trained before the episodes."""

    epochs: Amount = 0
    """Passes over the training images; 0 skips this phase."""
    head: Literal["linear", "cosine"] = "linear"
    """Its last layer, which is not used in episodes: linear, or cosine with a trained
    scale."""
    batch: Count = 128
    """Images per step, at least 1."""
    optim: Optim = field(
        default_factory=lambda: Optim(
            "sgd", 0.1, schedule="cosine", warmup=0.1, weight_decay=5e-4
        )
    )
    """Optimizer; its schedule counts epochs."""


@dataclass(frozen=True)
class Config:
    """A run of prototypical networks."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=lambda: Network("Conv4"))
    task: Task = field(default_factory=Task)
    base: Base = field(default_factory=Base)
    val: Validation = field(default_factory=Validation)
    test: Evaluation = field(default_factory=Evaluation)
    optim: Optim = field(
        default_factory=lambda: Optim(
            "adam", 1e-3, schedule="staircase", decay=0.5, decay_every=2000
        )
    )
    """Optimizer; its schedule counts episodes."""
    augment: Affine = field(default_factory=Affine)
    """Random affine maps of training images, one per image; the paper uses none."""
    crop: Crop = field(default_factory=Crop)
    """Random shifts, windows and flips of training images, after the affine map; the
    paper uses none. Tests use the centre window."""
    jitter: Jitter = field(default_factory=Jitter)
    """Random brightness, contrast and saturation of training images, after the crop;
    the paper uses none."""
    method: Kind = "prototypes"
    """Classifier of the episodes: prototypes; matching, matching networks without full
    context embeddings; matching_fce, with them; diagonal, prototypes with a learned
    scale per dimension; gaussians, one diagonal Gaussian per class; anil, a linear head
    adapted by gradient descent; or maml, which adapts the whole network."""
    distance: heads.Distance = "sqeuclidean"
    """Distance of an embedding from a prototype, or from a support example in matching
    networks: sqeuclidean or cosine."""
    unit: bool = False
    """Scale embeddings to length 1 first, in prototypes and matching networks."""
    separate: bool = False
    """Embed support examples by a network of their own, which starts from the same
    weights. Not with maml."""
    temperature: Temperature = 1.0
    """Divisor of the distances, above 0; or sqrt_dim, the square root of the dimension
    of the embedding. The paper uses 1."""
    learn_temperature: bool = False
    """Train the temperature with the network, from this value on."""
    episodes: Amount = length(2000)
    """Training episodes, a multiple of episodes_per_step; with validation, the
    maximum. 0 tests the base network without training on episodes."""
    extend: bool = how(False)
    """Go on from a run in the workdir that is the same but has fewer episodes."""
    episodes_per_step: Count = 1
    """Episodes per update, at least 1; their gradients are averaged. The paper uses
    1."""
    seed: Seed = 0
    """Seed of the initial weights and of all episodes, in [0, 2^32)."""
    mesh: Mesh = how(Mesh())
    run: Options = how(Options(save_every=500, log_every=50))
    figures: bool = how(True)
    """Draw figures if matplotlib is installed."""


def why_not_longer(config: Config) -> str | None:
    """Return why a run cannot go on from one with fewer episodes, if it cannot."""
    optim, retrain = config.optim, config.data.retrain
    other = "choose another --workdir"
    if needs_length(optim):
        return (
            f"the rates of optim.schedule = {optim.schedule!r} with optim.warmup = "
            f"{optim.warmup} depend on the number of episodes: {other}"
        )
    if retrain:
        return (
            f"training on data.retrain = {retrain!r} replaced its checkpoints: {other}"
        )
    return None if config.extend else f"add --extend to go on from it, or {other}"


def _check_method(config: Config) -> None:
    """Refuse options that the method does not have, which would be ignored.

    Raises:
        ValueError: such an option.
    """
    kind, default = config.method, Config()
    used = {
        "prototypes": ("distance", "unit", "temperature", "learn_temperature"),
        "matching": ("distance", "unit", "temperature", "learn_temperature"),
        "matching_fce": ("distance", "temperature", "learn_temperature"),
        "diagonal": ("temperature", "learn_temperature"),
        "gaussians": (),
        "anil": (),
        "maml": (),
    }
    if config.separate and (config.task.cyclic or not config.episodes):
        why = "task.cyclic" if config.task.cyclic else "episodes = 0"
        raise ValueError(f"expected no separate with {why}, got True")
    for name in ("task.cyclic", "test.transductive", "separate"):
        if kind == "maml" and to_json(config)[name]:
            raise ValueError(f"expected no {name} for method 'maml', got True")
    for name in used["prototypes"]:
        value = getattr(config, name)
        if name not in used[kind] and value != getattr(default, name):
            raise ValueError(f"expected no {name} for method {kind!r}, got {value!r}")
    if kind in config.test.methods:
        raise ValueError(
            f"expected test.methods without the method that is trained, got {kind!r}"
        )
    if not config.episodes and kind in TRAINED:
        raise ValueError(
            f"expected episodes of at least 1 for method {kind!r}, whose parameters "
            "are trained, got 0"
        )


def _check_unbalanced(config: Config) -> None:
    """Refuse unbalanced support sets where they are not defined.

    Raises:
        ValueError: a least shot out of range, or options that need balanced episodes.
    """
    task, test = config.task, config.test
    for name, least, shot in (
        ("task", task.least_shot, task.shot),
        ("test", test.least_shot, min(test.shots)),
    ):
        if least is not None and not 1 <= least <= shot:
            raise ValueError(
                f"expected {name}.least_shot from 1 to {shot}, got {least}"
            )
    every = {config.method, *test.methods} & {"maml", "fine_tuning"}
    if (task.least_shot and (task.cyclic or config.method == "maml")) or (
        test.least_shot and (test.transductive or every)
    ):
        raise ValueError(
            "expected no least_shot with task.cyclic, test.transductive, maml or "
            "fine_tuning, which need a balanced support set"
        )


def check(config: Config) -> None:
    """Check the options of a run.

    Raises:
        ValueError: an invalid option; the message states what is allowed.
    """
    values, val = to_json(config), config.val
    check_ranges(config)
    data = config.data
    check_apart(train=data.train, val=data.val, test=data.test)
    check_apart(retrain=data.retrain, test=data.test)
    check_at_least(0 if config.base.epochs else 1, values, ("episodes",))
    if config.data.side:
        config.crop.window(config.data.side, config.data.side)
    for name in ("ways", "shots", "methods"):
        chosen = getattr(config.test, name)
        check_different(f"test.{name}", chosen, needed=name != "methods")
    _check_unbalanced(config)
    _check_method(config)
    config.net.build()
    config.mesh.check()
    per_step = config.episodes_per_step
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
            "expected no data.val with optim.schedule = 'cosine', which needs a fixed "
            f"number of steps, got {config.data.val!r}"
        )
    if config.data.retrain and not config.data.val:
        raise ValueError(
            f"expected data.val with data.retrain = {config.data.retrain!r}, got none: "
            "validation determines how long the second training lasts"
        )
