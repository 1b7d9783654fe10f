"""The options of `experiments.imprinting`, and what it refuses."""

from dataclasses import dataclass, field
from typing import Literal

from experiments import inputs
from experiments.inputs import Network, StudyOptions, check_different, check_study
from jaxfer.config import to_json, which
from jaxfer.data import Crop
from jaxfer.optim import Optim, check_optim

# Losses that train an embedding: with a head of trained rows, or without.
Loss = Literal["softmax", "proxy_nca", "nca", "lifted"]
# Those without: they compare the examples of a batch.
PAIRS = ("nca", "lifted")


@dataclass(frozen=True)
class Data(inputs.Data):
    """Images with their classes, some of which are novel.

    Base classes train on all images of the training part, novel ones on a few. To
    choose options, train on `train` and test on `val`.
    """

    base: int = 80
    """Number of base classes; the others are novel."""
    shuffled: bool = True
    """Draw the base classes by seed; else the first ones are base classes."""
    base_min_images: int | None = None
    """In place of these two: base classes are those with at least so many training
    images."""
    allow_fewer: bool = False
    """Let novel classes with fewer than n images use all they have, as iNaturalist's do
    in Table 4 of the paper; default: refuse them."""
    pixels: Literal["moments", "range"] = "moments"
    """Preprocessing: moments subtracts the mean image of base classes and divides by
    their standard deviation; range scales to [-1, 1]."""


@dataclass(frozen=True)
class Rows:
    """For which n and which seeds a kind of network is trained."""

    shots: tuple[int, ...] = which((1, 5, 20))
    """The values of n, novel examples per class."""
    seeds: tuple[int, ...] = which((0, 1, 2))
    """Seeds, each one of the study's."""


@dataclass(frozen=True)
class Config(StudyOptions):
    """A study of imprinted weights."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=Network)
    augment: Crop = field(default_factory=Crop)
    copies: int = 5
    """Augmented copies of each example in the row Imprinting + Aug."""
    dim: int = 64
    """Dimensions of the embedding, a linear layer on top of the network."""
    scale: float = 10.0
    """Initial scale s of the cosine head."""
    scale_per_class: bool = False
    """Give each class a scale of its own; novel ones start with the mean of the base
    classes'."""
    batch: int = 128
    accumulate: int = 1
    """Micro-batches per step: their gradients are averaged, which needs less memory."""
    optim: Optim = field(
        default_factory=lambda: Optim(
            "sgd", 0.05, schedule="cosine", warmup=0.1, weight_decay=5e-4
        )
    )
    """Training of base networks and joint ones."""
    epochs: int = 12
    """Epochs of base networks."""
    finetune: Optim = field(
        default_factory=lambda: Optim(
            "sgd", 0.05, schedule="cosine", warmup=0.1, weight_decay=5e-4
        )
    )
    """Fine-tuning."""
    finetune_epochs: int = 8
    """Epochs of fine-tuning, each as long as one on base classes; joint networks train
    for the epochs of a base network and these."""
    transfer_steps: int = 300
    """Steps of fine-tuning on novel classes alone."""
    shots: tuple[int, ...] = which((1, 2, 5, 10, 20))
    """The values of n, novel examples per class, for rows without training."""
    seeds: tuple[int, ...] = which((0, 1, 2, 3, 4))
    """Each seed draws its examples and networks, and the base classes if shuffled."""
    tuned: Rows = field(default_factory=Rows)
    """Rand + FT and Imprinting + FT."""
    transfer: Rows = field(default_factory=Rows)
    """The same on novel classes alone (Table 3)."""
    joint: Rows = field(default_factory=Rows)
    """AllClassJoint, as in the paper and with the cosine head."""
    dims: tuple[int, ...] = which(())
    """More dimensions of the embedding, each with a base network (Figure 7)."""
    losses: tuple[Loss, ...] = which(())
    """More losses, each with a base network (Figure 6): proxy_nca, nca, lifted."""
    side_seeds: tuple[int, ...] = which((0,))
    """The seeds of these dimensions and losses."""
    side_shots: tuple[int, ...] = which(())
    """The n for which AllClassJoint is trained at these dimensions."""
    group: int = 4
    """Examples per class in the batches of nca and lifted."""
    margin: float = 1.0
    """Margin of the lifted structured loss."""


def check(config: Config) -> None:
    """Refuse numbers and names that make no study.

    Raises:
        ValueError: an option with its value and what is allowed.
    """
    values = to_json(config)
    own = ("copies", "data.base_min_images", "dim", "finetune_epochs", "group")
    check_study(config, (*own, "augment.side", "transfer_steps"))
    for name in ("optim", "finetune"):
        check_optim(getattr(config, name), name)
    if not config.scale > 0:
        raise ValueError(f"expected a positive scale, got {config.scale}")
    for name in ("shots", "seeds", "dims", "losses", "side_seeds", "side_shots"):
        check_different(name, values[name], needed=name in ("shots", "seeds"))
    for name in ("tuned", "transfer", "joint"):
        for part in ("shots", "seeds"):
            check_different(f"{name}.{part}", values[f"{name}.{part}"])
        _check_within(f"{name}.seeds", values[f"{name}.seeds"], config.seeds)
    _check_within("side_seeds", values["side_seeds"], config.seeds)
    rows = [f"{name}.shots" for name in ("tuned", "transfer", "joint")]
    for name in ("shots", "side_shots", "dims", *rows):
        if min(values[name], default=1) < 1:
            raise ValueError(f"expected {name} of at least 1, got {values[name]}")
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
            "expected losses other than 'softmax', which base networks have anyway"
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
            f"expected {name} among seeds = {list(seeds)}, whose base networks they "
            f"start from, got {lost}"
        )
