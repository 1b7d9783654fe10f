"""Options of `experiments.zero_shot`, and their checks."""

from dataclasses import dataclass, field
from typing import Literal

from experiments.inputs import (
    ClassData,
    Episodes,
    Network,
    Way,
    Width,
    check_different,
)
from experiments.options import StudyOptions
from jaxfer.config import check_at_least, how, length, to_json, which
from jaxfer.data.attributes import AttributeSource, Scale
from jaxfer.methods import Temperature
from jaxfer.optim import Optim, needs_length
from jaxfer.ranges import Count, NotNegative, Positive, Seed, check_ranges


@dataclass(frozen=True)
class Data(ClassData):
    """The data set, whose train, val and test parts have different classes."""

    name: str = "bank"
    """Data set: bank for features in a file, or images, which net.pretrained embeds:
    cifar_fs, cub_fewshot, fc100, folder, miniimagenet or tieredimagenet; or
    caltech_birds2011 and cifar100, with class_lists, class_shares or class_seed."""
    class_lists: str | None = how(None)
    """Path of a folder with the lists train.txt, val.txt and test.txt (or .json) of
    class names, or with trainval.txt in place of the first two; default: the parts of
    the data set, or a random split."""


@dataclass(frozen=True)
class Attributes:
    """What describes a class."""

    source: AttributeSource = "table"
    """table, a .csv or .tsv file with one line per class; cub, the folder of
    CUB-200-2011; wordnet, a JSON file with WordNet's graph, whose ancestors are the
    attributes; or superclasses, from the names of the classes."""
    path: str | None = how(None)
    """Path of the file or folder; none for superclasses."""
    scale: Scale = "unit"
    """raw; unit, vectors of length 1; or standard, each attribute with mean 0 and
    standard deviation 1 over the training classes."""


@dataclass(frozen=True)
class Simulated:
    """Features that are simulated from attributes, in place of a data set's."""

    noise: tuple[Positive, ...] = which(())
    """Noise levels, each above 0: the standard deviation of an image's features around
    those of its class, in units of how features vary between classes. Leave empty to
    use the data set."""
    class_noise: NotNegative = 0.5
    """Standard deviation, in the same units, of a class's features around what its
    attributes determine; at least 0."""
    per_class: Count = 60
    """Images per class, at least 1."""
    dim: Width = 1024
    """Dimensions of the features, at least 1."""


@dataclass(frozen=True)
class Stopping:
    """Validation of the first training, which decides how long it lasts."""

    every: Count = 100
    """Training episodes between validations, at least 1."""
    episodes: Count = 20
    """Episodes per validation, at least 1."""
    patience: Count = 20
    """Validations without improvement before training stops, at least 1."""


@dataclass(frozen=True)
class Config(StudyOptions):
    """A study of zero-shot classification."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=lambda: Network("Flatten"))
    """The frozen network that embeds images; Flatten for features."""
    attributes: Attributes = field(default_factory=Attributes)
    simulated: Simulated = field(default_factory=Simulated)
    features: Literal["raw", "standard"] = "standard"
    """raw; or standard, which subtracts the mean of the training features and divides
    them by one standard deviation."""
    seeds: tuple[Seed, ...] = which((0, 1, 2, 3, 4))
    """Seeds of the maps and of the episodes: one or more, in [0, 2^32)."""
    way: Way = 50
    """Classes per training episode, at least 2."""
    query: Count = 10
    """Queries per class, at least 1."""
    dim: Width = 1024
    """Dimension of the embeddings, at least 1."""
    unit: bool = True
    """Scale prototypes to length 1; the image embedding is not scaled."""
    bias: bool = True
    """Give the map of attributes a bias."""
    temperature: Temperature = 1.0
    """Divisor of the distances, above 0, or sqrt_dim. The paper uses 1."""
    learn_temperature: bool = False
    """Train the temperature with the maps, from this value on."""
    optim: Optim = field(default_factory=lambda: Optim("adam", 1e-4, weight_decay=1e-5))
    """Optimizer; its schedule counts episodes. Adam adds weight decay to the gradient,
    as in the paper."""
    episodes: Count = length(10_000)
    """Maximum number of training episodes, at least val.every."""
    val: Stopping = field(default_factory=Stopping)
    retrain: bool = True
    """Train again from scratch on train and val, for as many episodes as the best state
    took."""
    shots: tuple[Count, ...] = (1, 2, 5, 10)
    """Shots of few-shot prototypes of the same features, to compare with; each at least
    1. Leave empty to skip them."""
    test_episodes: Episodes = 100
    """Episodes per shot of few-shot prototypes, at least 1."""


def _check_used(config: Config) -> None:
    """Refuse options that would have no effect.

    Raises:
        ValueError: such an option.
    """
    values, simulated = to_json(config), bool(config.simulated.noise)
    default = to_json(Config())
    set_ = [name for name, value in values.items() if value != default[name]]
    unused = ["net.new_rate", "net.batch_norm"]
    if simulated:
        unused += [n for n in values if n.startswith(("net.", "data.max", "data.excl"))]
    else:
        unused += [f"simulated.{n}" for n in ("class_noise", "per_class", "dim")]
    if config.net.pretrained is None and config.net.name != "Flatten":
        unused.append("net.name")
    if found := [name for name in set_ if name in unused]:
        some = "with simulated.noise" if simulated else "without simulated.noise"
        raise ValueError(
            f"expected no {found[0]} {some}, where it has no effect, got "
            f"{values[found[0]]!r}"
        )


def check(config: Config) -> None:
    """Check the options of a study.

    Raises:
        ValueError: an invalid option; the message states what is allowed.
    """
    values = to_json(config)
    check_ranges(config)
    check_at_least(config.val.every, values, ("episodes",))
    check_different("seeds", config.seeds, needed=True)
    check_different("shots", config.shots)
    check_different("simulated.noise", config.simulated.noise)
    _check_used(config)
    config.mesh.check()
    for name, usual in (("population", None), ("mesh.model", 1)):
        if values[name] != usual:
            raise ValueError(
                f"expected {name} = {usual}, got {values[name]}: each seed trains on "
                "one device"
            )
    source = config.attributes.source
    if config.simulated.noise and source not in ("table", "cub"):
        raise ValueError(
            "expected attributes.source table or cub with simulated.noise, got "
            f"{source!r}, which needs the classes of a data set"
        )
    if needs_length(config.optim):
        raise ValueError(
            "expected an optim.schedule of constant or staircase without optim.warmup, "
            f"got {config.optim.schedule!r} and {config.optim.warmup}: validation "
            "decides when training stops"
        )
    config.net.build()
