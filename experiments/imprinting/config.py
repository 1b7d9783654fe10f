"""Options of `experiments.imprinting`, and their checks."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from experiments import inputs
from experiments.inputs import Network, Width, check_apart, check_different
from experiments.options import StudyOptions, check_study
from jaxfer.config import length, to_json, which
from jaxfer.data import Crop
from jaxfer.optim import Optim
from jaxfer.ranges import Count, NotNegative, Positive, Range, Seed

# Losses that train an embedding, with or without a trained head.
Loss = Literal["softmax", "proxy_nca", "nca", "lifted"]
# The losses without a head: they compare the examples of a batch.
PAIRS = ("nca", "lifted")


@dataclass(frozen=True)
class Data(inputs.Data):
    """A data set whose classes are divided into base and novel classes.

    Networks train on all training images of base classes, and on a few of each novel
    class. To choose options, set `train` to train and `test` to val.
    """

    base: Count = 80
    """Number of base classes, at least 1 and fewer than all; the others are novel."""
    shuffled: bool = True
    """Choose the base classes at random by seed; otherwise the first ones are taken."""
    base_min_images: Count | None = None
    """Use classes with at least this many training images (at least 1) as base classes,
    in place of base and shuffled; default: not used."""
    allow_fewer: bool = False
    """Let novel classes with fewer than n images use all of them, as in Table 4 of the
    paper; default: refuse such classes."""
    pixels: Literal["moments", "range"] = "moments"
    """Preprocessing: moments subtracts the mean image of the base classes and divides
    by the standard deviation of all their pixels; range scales pixels to [-1, 1]."""


@dataclass(frozen=True)
class Rows:
    """The n and the seeds at which one kind of network is trained."""

    shots: tuple[Count, ...] = which((1, 5, 20))
    """Values of n, the novel examples per class, each at least 1; empty to skip."""
    seeds: tuple[Seed, ...] = which((0, 1, 2))
    """Seeds, a subset of the seeds of the study; empty to skip."""


@dataclass(frozen=True)
class Config(StudyOptions):
    """A study of imprinted weights."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=Network)
    augment: Crop = field(default_factory=Crop)
    copies: Count = 5
    """Augmented copies of each example in the row Imprinting + Aug, at least 1."""
    dim: Width = 64
    """Dimensions of the embedding, a linear layer on the backbone; at least 1."""
    scale: Positive = 10.0
    """Initial scale s of the cosine head, above 0."""
    scale_per_class: bool = False
    """Give each class its own scale; novel classes start with the mean scale of the
    base classes."""
    batch: Count = 128
    """Examples per step, at least 1."""
    accumulate: Count = 1
    """Micro-batches per step, a divisor of batch; a larger number needs less memory."""
    optim: Optim = field(
        default_factory=lambda: Optim(
            "sgd", 0.05, schedule="cosine", warmup=0.1, weight_decay=5e-4
        )
    )
    """Optimizer of base and joint networks."""
    epochs: Count = length(12)
    """Epochs of base networks, at least 1."""
    finetune: Optim = field(
        default_factory=lambda: Optim(
            "sgd", 0.05, schedule="cosine", warmup=0.1, weight_decay=5e-4
        )
    )
    """Optimizer of fine-tuning."""
    finetune_epochs: Count = length(8)
    """Epochs of fine-tuning, each as long as an epoch of a base network; joint networks
    train for epochs + finetune_epochs."""
    transfer_steps: Count = length(300)
    """Steps of fine-tuning on novel classes alone, at least 1."""
    shots: tuple[Count, ...] = which((1, 2, 5, 10, 20))
    """Values of n, the novel examples per class, for table rows that need no training:
    one or more, each at least 1."""
    seeds: tuple[Seed, ...] = which((0, 1, 2, 3, 4))
    """Seeds, one or more, in [0, 2^32). A seed determines the novel examples, the
    networks and, with data.shuffled, the base classes."""
    tuned: Rows = field(default_factory=Rows)
    """Values of n and seeds of Rand + FT and Imprinting + FT."""
    transfer: Rows = field(default_factory=Rows)
    """Values of n and seeds of Rand + FT and Imprinting + FT with novel classes only
    (Table 3)."""
    joint: Rows = field(default_factory=Rows)
    """Values of n and seeds of AllClassJoint, with a linear and a cosine head."""
    dims: tuple[Width, ...] = which(())
    """Further embedding dimensions for which base networks are trained (Figure 7), each
    at least 1 and other than dim; empty to skip."""
    losses: tuple[Loss, ...] = which(())
    """Further losses of base networks (Figure 6): proxy_nca, nca or lifted. Base
    networks with softmax are always trained, so softmax is refused here."""
    side_seeds: tuple[Seed, ...] = which((0,))
    """Seeds of the networks for dims and losses, a subset of seeds; empty to skip."""
    side_shots: tuple[Count, ...] = which(())
    """Values of n, each at least 1, at which AllClassJoint is trained for each of dims.
    Needs dims; empty to skip."""
    group: Annotated[int, Range(2, 65_536)] = 4
    """Examples per class in the batches of nca and lifted, a divisor of batch that is
    at least 2."""
    margin: NotNegative = 1.0
    """Margin of the lifted structured loss, at least 0."""


def check(config: Config) -> None:
    """Check the options of a study.

    Raises:
        ValueError: an invalid option; the message states what is allowed.
    """
    values = to_json(config)
    check_study(config)
    check_apart(train=config.data.train, test=config.data.test)
    for name in ("shots", "seeds", "dims", "losses", "side_seeds", "side_shots"):
        check_different(name, values[name], needed=name in ("shots", "seeds"))
    for name in ("tuned", "transfer", "joint"):
        for part in ("shots", "seeds"):
            check_different(f"{name}.{part}", values[f"{name}.{part}"])
        _check_within(f"{name}.seeds", values[f"{name}.seeds"], config.seeds)
    _check_within("side_seeds", values["side_seeds"], config.seeds)
    if config.dim in config.dims:
        raise ValueError(
            f"expected dims other than dim = {config.dim}, got {list(config.dims)}"
        )
    if config.side_shots and not config.dims:
        raise ValueError(
            f"expected dims with side_shots = {list(config.side_shots)}, got none"
        )
    if "softmax" in config.losses:
        raise ValueError(
            "expected losses other than 'softmax', which base networks use anyway, got "
            f"{list(config.losses)}"
        )
    pairs = [loss for loss in config.losses if loss in PAIRS]
    if pairs and config.accumulate > 1:
        raise ValueError(
            f"expected accumulate = 1 for the losses {pairs}, which compare all "
            f"examples of a batch, got {config.accumulate}"
        )
    if pairs and config.batch % config.group:
        raise ValueError(
            f"expected batch to be a multiple of group = {config.group}, got "
            f"{config.batch}"
        )


def _check_within(name: str, found: list, seeds: tuple[int, ...]) -> None:
    if lost := sorted(set(found) - set(seeds)):
        raise ValueError(
            f"expected {name} among seeds = {list(seeds)}, the seeds of the study, got "
            f"{lost}"
        )
