"""Options that experiments share: the data, the network and how a study runs."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np

from jaxfer import models, nets, pretrained
from jaxfer.config import how
from jaxfer.data import (
    Images,
    View,
    at_most_per_class,
    class_lists,
    load,
    random_class_split,
    read_images,
)
from jaxfer.data.splits import Split
from jaxfer.memo import memoised
from jaxfer.models import Options, Pixels
from jaxfer.ranges import Count, Positive, Range, Seed, Share
from jaxfer.trees import Rules

# Network names of earlier versions, and their replacements.
_RENAMED = {
    "eight": "AlexNetSmall",
    "eight_batch_norm": "AlexNetSmall with --net.normalize True",
    "inception_v1": "InceptionV1",
    "resnet20": "ResNet20",
    "linear": "Flatten",
}
_NEW_RATE = 10.0
# What the parts of a data set consist of.
_PARTS = {
    **{name: {name} for name in ("train", "val", "test")},
    "trainval": {"train", "val"},
}
# A share of the classes, which may be none or all of them.
Part = Annotated[float, Range(0, 1)]
# Classes of an episode, and episodes to test.
Way = Annotated[int, Range(2, 65_536)]
Episodes = Annotated[int, Range(1, 10_000_000)]
# Channels or units of a layer: wider ones fit into no memory.
Width = Annotated[int, Range(1, 65_536)]
# Options of a network that are no fields of an architecture.
_NOT_NET = ("name", "pretrained", "new_rate", "batch_norm")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set, and what is left out of it."""

    name: str = field(default="cifar100", kw_only=False)
    """Data set: bank (embeddings of images), caltech_birds2011, cifar100, cifar_fs,
    cub_fewshot, fc100, folder, glyphs, i_naturalist2017, miniimagenet, omniglot,
    omniglot_background or tieredimagenet."""
    side: Annotated[int, Range(1, 4096)] | None = None
    """Image side in pixels: images are shrunk and photographs are resized to it;
    default: unchanged, 84 for few-shot benchmarks, 256 for other photographs. A cache
    of photographs keeps the side that it was written with."""
    max_images: Count | None = None
    """Use at most this many images of each class in each part, at least 1; they are
    chosen by the name of the class. Default: all."""
    exclude: str | None = None
    """Path of a text file that lists photographs to leave out; default: none."""
    exclude_classes: tuple[str, ...] | None = None
    """Classes to leave out: names, or paths of lists that end in .txt or .json;
    default: none."""
    dir: str | None = how(None)
    """Path of the data directory; default: $JAXFER_DATA, or else that of TFDS. For
    folder, the directory of the images, in any layout of `jaxfer.data.image_folder`;
    for bank, the path of its file."""


@dataclass(frozen=True, kw_only=True)
class ClassData(DataSet):
    """A data set whose parts have different classes, and how its classes are split."""

    class_lists: str | None = None
    """Path of a folder with the lists train.txt, val.txt and test.txt (or .json) of
    class names, or with trainval.txt in place of the first two; default: the parts of
    the data set, or a random split of a folder."""
    class_shares: tuple[Part, Part, Part] | None = None
    """Shares of the classes to train, validate and test on, in a random split; default:
    0.64, 0.16 and 0.2."""
    class_seed: Seed | None = None
    """Seed of a random split of the classes, or of a list of train and val together, in
    [0, 2^32); default: the number of classes alone determines the split."""

    def rule(self) -> Split | None:
        """Return the rule that splits the classes; None for that of the data set.

        Raises:
            ValueError: lists with shares, lists of all parts with a seed, or lists that
                do not exist.
        """
        how = {"shares": self.class_shares, "seed": self.class_seed}
        how = {name: value for name, value in how.items() if value is not None}
        if self.class_lists is None:
            return partial(random_class_split, **how) if how else None
        if self.class_shares is not None:
            raise ValueError(
                "expected data.class_lists without data.class_shares, got "
                f"{self.class_shares}"
            )
        try:
            return class_lists(self.class_lists, seed=self.class_seed)
        except ValueError as e:
            if self.class_seed is None:
                raise
            raise ValueError(f"{e} (--data.class-seed None sets no seed)") from e


@dataclass(frozen=True)
class Data(DataSet):
    """A data set whose training and test parts share classes but no examples."""

    train: str = "trainval"
    """Part to train on: train, or trainval for train and val together."""
    test: str = "test"
    """Part to test on: test, or val while choosing options."""
    classes: Count | None = None
    """Number of classes to use, at least 1, from the start of their list; default:
    all."""
    min_images: Count = 1
    """Leave out classes with fewer training images than this (at least 1)."""


@dataclass(frozen=True)
class Network:
    """The backbone. An option that is None takes the default of the architecture."""

    name: str = "AlexNetSmall"
    """AlexNetSmall, Conv4, EfficientNetLite, Flatten, InceptionResNetV2, InceptionV1,
    MobileNetV2, ResNet, ResNet12, ResNet20, ViT, or an import path such as
    my_package:make_net of a function that returns a network."""
    width: Width | None = None
    """Channels of the first convolution of AlexNetSmall, Conv4, InceptionV1, ResNet12
    or ResNet20, at least 1. Default: 32 for AlexNetSmall, 16 for ResNet20, 64 for the
    others."""
    depth: Count | None = None
    """Layers of ResNet: 18, 34 or 50; default: 18."""
    dense: Width | None = None
    """Units of each dense layer of AlexNetSmall, at least 1; default: 256."""
    dropout: Share | None = None
    """Dropout rate of AlexNetSmall, EfficientNetLite, InceptionV1, MobileNetV2 or
    ResNet12, in [0, 1). Default: 0.5 for AlexNetSmall, 0.1 for ResNet12, 0.2 for the
    others."""
    normalize: bool | None = None
    """True to use BatchNorm in AlexNetSmall; default: False."""
    bn_scale_init: Literal["ones", "uniform"] | None = None
    """Initial BatchNorm scales of Conv4: ones, or uniform to sample from U(0, 1);
    default: uniform."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Precision of activations: float32 (default) or bfloat16; parameters and
    statistics are always float32. Flatten does not accept it."""
    pretrained: str | None = None
    """Weights to start from, in place of name and the options above: the name of an
    installed set, such as efficientnet_lite0 (`python -m jaxfer nets` lists them), or
    the path of a model.safetensors; default: random weights."""
    new_rate: Positive | None = None
    """Multiplier of the learning rate of layers and heads that have no pretrained
    weights, above 0; default: 10."""
    batch_norm: Literal["batch", "running"] | None = None
    """Statistics that BatchNorm uses in training: batch (default), or the running ones
    that are stored with the weights, which then do not change."""

    def start(
        self, image_shape: Sequence[int] | None, *, dim: int | None = None
    ) -> models.Model | None:
        """Return the pretrained model for images of a shape; None without weights.

        If the shape is None, it is that of the weights.

        Raises:
            ValueError: weights that are missing or do not fit the images.
        """
        if self.pretrained is None:
            return None
        shape = None if image_shape is None else tuple(image_shape)
        return _pretrained(self.pretrained, shape, dim)

    def rates(self, layers: Sequence[str], places: Sequence[str] = ("net",)) -> Rules:
        """Return rules for the learning rates, given the layers with trained weights.

        Without pretrained weights all rates are equal, and there are no rules.

        Args:
            layers: the layers.
            places: the paths of the networks among the parameters.
        """
        if self.pretrained is None:
            return ()
        rate = _NEW_RATE if self.new_rate is None else self.new_rate
        known = [f"{place}/{name}/**" for place in places for name in layers]
        return *((pattern, 1.0) for pattern in known), ("**", rate)

    def build(
        self, image_shape: Sequence[int] | None = None, *, dim: int | None = None
    ) -> "nets.AnyNet":
        """Return the network, with a linear layer `embedding` on top if `dim` is given.

        Raises:
            ValueError: an unknown name, or an option that the architecture lacks.
        """
        if self.name in _RENAMED:
            raise ValueError(
                f"the network {self.name!r} is now called {_RENAMED[self.name]}"
            )
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        set_ = {k: v for k, v in every.items() if v is not None and k not in _NOT_NET}
        if self.new_rate is not None and not self.new_rate > 0:
            raise ValueError(f"expected net.new_rate above 0, got {self.new_rate}")
        if self.pretrained is not None and set_:
            raise ValueError(
                f"expected net.pretrained without options of a network, got {set_}"
            )
        if (start := self.start(image_shape, dim=dim)) is not None:
            return start.net
        if not 0 <= set_.get("dropout", 0) < 1:
            raise ValueError(f"expected net.dropout in [0, 1), got {set_['dropout']}")
        for name in ("width", "dense"):
            if not set_.get(name, 1) > 0:
                raise ValueError(f"expected net.{name} of at least 1, got {set_[name]}")
        if dim is not None:
            set_["dim"] = dim
        return nets.by_name(self.name, **set_)


@memoised(2)
def _pretrained(
    name: str, image_shape: tuple[int, ...] | None, dim: int | None
) -> models.Model:
    """Return pretrained weights, which are read once for all networks of a study."""
    side = None if image_shape is None else (image_shape[0], image_shape[1])
    start = pretrained.load_pretrained(name, side=side, dim=dim)
    known = tuple(start.about.get("image_shape", image_shape or ()))
    if image_shape not in (None, known):
        raise ValueError(
            f"expected images of the shape {known} that {name} was trained on, got "
            f"{image_shape}: set --data.side, or choose other weights"
        )
    # Images may be larger than the window that the network gets.
    anywhere = dataclasses.replace(start.pixels, size=None)
    return dataclasses.replace(start, pixels=anywhere)


def load_images(
    data: DataSet,
    splits: Sequence[str],
    by: Literal["class", "example"],
    rule: Split | None = None,
) -> dict[str, Images]:
    """Return parts of a data set, whose images are decoded by `read_images` later.

    Args:
        data: the data set.
        splits: names of the parts.
        by: see `jaxfer.data.load`.
        rule: see `jaxfer.data.load`.

    Raises:
        ValueError: missing data, or names to leave out of which none exists.
    """
    out = {"exclude": data.exclude, "exclude_classes": data.exclude_classes or ()}
    kind: Any = {"by": by, "rule": rule, "side": data.side, **out}
    parts = load(data.name, splits, data.dir, limit=0.0, **kind)
    if data.max_images is not None:
        most = data.max_images
        parts = {name: at_most_per_class(part, most) for name, part in parts.items()}
    return parts


def load_parts(data: Data) -> tuple[Images, Images]:
    """Return the training and test images of the chosen classes, without decoding them.

    Raises:
        ValueError: missing data, or no class with enough images.
    """
    parts = load_images(data, (data.train, data.test), "example")
    train, test = parts[data.train], parts[data.test]
    counts = np.bincount(train.labels, minlength=train.num_classes)
    chosen = [
        name
        for name, count in zip(train.class_names, counts, strict=True)
        if count >= data.min_images
    ]
    chosen = chosen[: data.classes]
    if not chosen:
        raise ValueError(
            f"expected classes with data.min_images = {data.min_images} training "
            f"images, got at most {counts.max()} in {train.name}"
        )
    if len(chosen) < train.num_classes:
        train, test = (x.take_classes(chosen, name=x.name) for x in (train, test))
    return train, test


def read_parts(train: Images, test: Images, run: Options) -> tuple[Images, Images]:
    """Return both parts in memory, or unchanged above `run.limit` gigabytes."""
    parts = {"train": train, "test": test}
    read = read_images(parts, limit=run.limit * 1e9, workers=run.workers)
    return read["train"], read["test"]


def moments(images: Images, rows: np.ndarray, block: int = 1000) -> Pixels:
    """Return preprocessing by the mean image and standard deviation of some images.

    Args:
        images: all images.
        rows: indices of the images that the statistics are computed from.
        block: number of images read at a time.
    """
    shape = images.images.shape[1:]
    total, squares, view = np.zeros(shape), 0.0, View.of(images.images)
    for start in range(0, len(rows), block):
        part = view.take(rows[start : start + block]).read().astype(np.float64)
        total += part.sum(axis=0)
        squares += float((part * part).sum())
    mean = total / len(rows)
    variance = max(squares / (len(rows) * mean.size) - mean.mean() ** 2, 1e-12)
    return Pixels(
        mean.astype(np.float32), np.float32(variance**0.5), (shape[0], shape[1])
    )


def check_apart(**parts: str | None) -> None:
    """Refuse parts of a data set that share classes or images.

    Args:
        parts: the parts by the names of their options, without `data.`; None for one
            that is not used.

    Raises:
        ValueError: two such parts.
    """
    for (name, first), (other, part) in itertools.combinations(parts.items(), 2):
        common = _PARTS.get(first or "", set()) & _PARTS.get(part or "", set())
        if common:
            raise ValueError(
                f"expected data.{name} and data.{other} with nothing in common, got "
                f"{first!r} and {part!r}"
            )


def check_different(name: str, found: Sequence[Any], *, needed: bool = False) -> None:
    """Check that an option lists different values, and at least one if needed.

    Raises:
        ValueError: a repeated value, or an empty list where a value is needed.
    """
    if len(set(found)) < len(found) or (needed and not found):
        some = "one or more different values" if needed else "different values"
        raise ValueError(f"expected {some} for {name}, got {list(found)}")
