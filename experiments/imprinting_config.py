"""What `experiments.imprinting` can be told, and what it refuses."""

from dataclasses import dataclass, field
from typing import Literal

from experiments import backbone
from experiments.backbone import Network
from jaxfer.config import check_at_least, how, to_json
from jaxfer.data import Crop

# Losses that train an embedding: with a head of trained rows, or without.
Loss = Literal["softmax", "proxy_nca", "nca", "lifted"]


@dataclass(frozen=True)
class Data(backbone.Data):
    """Images with their classes, some of which are novel.

    Of base classes all of the training part is trained on, of novel ones a few
    examples. To choose by, there is `val` beside `train`.
    """

    base: int = 80
    """Base classes; the others are novel."""
    shuffled: bool = True
    """Which classes are novel hangs on the seed; else they are the last ones."""
    base_min_images: int | None = None
    """In place of these two: base classes are those with at least so many training
    images."""
    pixels: Literal["moments", "range"] = "moments"
    """Less the mean image of base classes and over their standard deviation, or scaled
    to [-1, 1]."""


@dataclass(frozen=True)
class Optim:
    """SGD, or RMSProp with TensorFlow-slim's customary values."""

    name: Literal["rmsprop", "sgd"] = "sgd"
    learning_rate: float = 0.05
    head_rate: float = 1.0
    """Times that rate for the rows and the scale of the head (the paper: 10 for what is
    new)."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """Of the network's kernels, coupled to the gradient."""
    rms_decay: float = 0.9
    """Of RMSProp's second moment, which begins at 1."""
    rms_eps: float = 1.0
    """Added to it, inside the root."""
    schedule: Literal["cosine", "stairs"] = "cosine"
    """To 0 along a cosine, or times .94 every 4 epochs."""
    warmup: float = 0.1
    """Share of the training over which the rate rises from 0."""


@dataclass(frozen=True)
class Rows:
    """For which numbers of examples, and which seeds, a kind of network is trained."""

    shots: tuple[int, ...] = (1, 5, 20)
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Config:
    """A study: what it is, and how it is run."""

    data: Data = field(default_factory=Data)
    net: Network = field(default_factory=Network)
    augment: Crop = field(default_factory=Crop)
    copies: int = 5
    """Augmented copies that are averaged for the row Imprinting + Aug."""
    dim: int = 64
    """Of the embedding, the network's last and linear layer."""
    scale: float = 10.0
    """s of the cosine head, at first."""
    scale_per_class: bool = False
    """Each class with a scale of its own; novel ones begin with the mean of the base
    classes'."""
    batch: int = 128
    optim: Optim = field(default_factory=Optim)
    """Of base networks and joint ones."""
    epochs: int = 12
    """Of base networks."""
    finetune: Optim = field(default_factory=Optim)
    finetune_epochs: int = 8
    """Each as many examples as base classes have; joint networks train for the epochs
    of a base network and these."""
    transfer_steps: int = 300
    """Of fine-tuning on novel classes alone."""
    shots: tuple[int, ...] = (1, 2, 5, 10, 20)
    """n, novel examples a class, of all that is done without training."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each draws examples and networks of its own, and base and novel classes where
    these are shuffled."""
    tuned: Rows = field(default_factory=Rows)
    """Rand + FT and Imprinting + FT."""
    transfer: Rows = field(default_factory=Rows)
    """The same on novel classes alone (Table 3)."""
    joint: Rows = field(default_factory=Rows)
    """AllClassJoint, as the paper has it and with the cosine head."""
    dims: tuple[int, ...] = ()
    """More dimensions of the embedding, each with a base network (Figure 7)."""
    losses: tuple[Loss, ...] = ()
    """More losses that train an embedding, each a base network (Figure 6)."""
    side_seeds: tuple[int, ...] = (0,)
    """The seeds of these two."""
    side_shots: tuple[int, ...] = ()
    """For which n AllClassJoint is trained at these dimensions too."""
    group: int = 4
    """Examples of a class in the batches of losses over pairs."""
    margin: float = 1.0
    """Of the lifted structured loss."""
    steps_per_call: int = how(1)
    """Steps in one compiled call: more of them where calls are what takes time. Of
    images that are streamed, one."""
    save_every: int = how(1000)
    """Steps between checkpoints within a network's training."""
    log_every: int = how(50)
    """Steps averaged to one line of metrics.jsonl."""
    figures: bool = how(True)
    """Draw figures, where matplotlib is installed."""


def check(config: Config) -> None:
    """Refuse numbers and names that make no study."""
    values = to_json(config)
    positive = (
        "batch",
        "copies",
        "augment.side",
        "data.base_min_images",
        "data.classes",
        "data.min_images",
        "data.side",
        "data.workers",
        "dim",
        "epochs",
        "finetune_epochs",
        "group",
        "log_every",
        "save_every",
        "steps_per_call",
        "transfer_steps",
    )
    check_at_least(1, values, positive)
    check_at_least(0, values, ["augment.shift", "data.limit"])
    for name in ("net.dropout", "optim.warmup", "finetune.warmup"):
        if not 0 <= values[name] < 1:
            raise ValueError(
                f"found {name} = {values[name]}, needed 0 up to, not with, 1"
            )
    for name in ("shots", "seeds", "dims", "losses", "side_seeds", "side_shots"):
        _check_different(name, values[name], needed=name in ("shots", "seeds"))
    for name in ("tuned", "transfer", "joint"):
        for part in ("shots", "seeds"):
            _check_different(f"{name}.{part}", values[f"{name}.{part}"])
        _check_within(f"{name}.seeds", values[f"{name}.seeds"], config.seeds)
    _check_within("side_seeds", values["side_seeds"], config.seeds)
    for name in (
        "shots",
        "side_shots",
        "tuned.shots",
        "transfer.shots",
        "joint.shots",
    ):
        if min(values[name], default=1) < 1:
            raise ValueError(f"found {name} = {values[name]}, needed at least 1")
    if config.dim in config.dims:
        raise ValueError(
            f"found {config.dim} in dims, needed others than dim = {config.dim}, "
            "which is there anyway"
        )
    if config.side_shots and not config.dims:
        raise ValueError(
            f"found side_shots = {list(config.side_shots)} and no dims, needed the "
            "dimensions at which these are trained"
        )
    if "softmax" in config.losses:
        raise ValueError(
            "found 'softmax' in losses, needed others: base networks have it anyway"
        )
    if config.losses and config.batch % config.group:
        raise ValueError(
            f"found batch = {config.batch}, needed a multiple of group = {config.group}"
        )


def check_streamed(config: Config) -> None:
    """Refuse what images cannot be that are read batch by batch."""
    needed = {"data.pixels": "range", "augment.shift": 0}
    values = to_json(config)
    for name, wanted in needed.items():
        if values[name] != wanted:
            raise ValueError(
                f"found {name} = {values[name]!r}, needed {wanted!r} for images that "
                "are streamed (see data.limit)"
            )


def _check_different(name: str, found: list, *, needed: bool = False) -> None:
    if len(set(found)) < len(found) or (needed and not found):
        raise ValueError(f"found {name} = {found}, needed different ones")


def _check_within(name: str, found: list, seeds: tuple[int, ...]) -> None:
    if lost := sorted(set(found) - set(seeds)):
        raise ValueError(
            f"found {lost} in {name}, needed some of seeds = {list(seeds)}, whose base "
            "networks they start from"
        )
