"""The known data sets, one entry of `SOURCES` each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxfer.data.bank import load_bank
from jaxfer.data.cifar import cifar100
from jaxfer.data.class_splits import (
    background_split,
    glyphs_split,
    listed_parts,
    omniglot_split,
    random_class_split,
    split_by_parts,
    split_or_random,
)
from jaxfer.data.folders import image_folder
from jaxfer.data.glyphs import glyphs
from jaxfer.data.images import Images
from jaxfer.data.lists import counted, find_lists, without_classes
from jaxfer.data.omniglot import omniglot
from jaxfer.data.photos import SIDE, tfds_photos
from jaxfer.data.splits import Split, bank_split, official_split, split_by_drawer


class Wanted(NamedTuple):
    """What to read from a source.

    Attributes:
        directory: the data directory, or the folder or file of the data set.
        side: side in pixels of photographs.
        exclude: names of files to leave out.
        exclude_classes: names of classes to leave out.
        lists: the directory with the lists of each part; None for none.
    """

    directory: Path
    side: int
    exclude: frozenset[str] = frozenset()
    exclude_classes: Sequence[str] = ()
    lists: Path | None = None


@dataclass(frozen=True)
class Source:
    """How a data set is read and divided.

    Attributes:
        read: function that reads the whole data set.
        by_class: the rule that divides its classes; None if it has none.
        by_example: the rule that divides the examples of each class.
        side: default side of photographs in pixels; None if the size is fixed.
        tfds: its name in TFDS; None if TFDS does not have it.
        listed: the numbers of classes and of images of each part, for a benchmark whose
            classes are divided by lists; None for other data sets.
        cache: the name of its array cache; default: its own.
    """

    read: Callable[[Wanted], Images]
    by_class: Split | None = None
    by_example: Split = official_split
    side: int | None = None
    tfds: str | None = None
    listed: Mapping[str, tuple[int, int | None]] | None = None
    cache: str | None = None


def _whole(read: Callable[[Wanted], Images]) -> Callable[[Wanted], Images]:
    """A reader of a whole data set, from which classes are left out afterwards."""
    return lambda wanted: leave_out(read(wanted), wanted.exclude_classes)


def _photos_of(name: str) -> Callable[[Wanted], Images]:
    return _whole(lambda x: tfds_photos(name, x.directory, x.side, x.exclude))


def _listed(read: Callable[[Wanted], Images]) -> Callable[[Wanted], Images]:
    """A reader of a data set whose classes are divided by lists of classes."""

    def listed(wanted: Wanted) -> Images:
        if wanted.lists is None:
            raise ValueError(
                "expected lists of the classes in each part, got none: pass --lists "
                "with the folder of train.txt, val.txt and test.txt (or .json or .csv)"
            )
        data, strict = read(wanted), not wanted.exclude_classes
        names, lists = data.class_names, find_lists(wanted.lists)
        parts = listed_parts(lists, names, data=data.name, strict=strict)
        return replace(data, class_parts=parts)

    return listed


def _folder(wanted: Wanted) -> Images:
    return image_folder(
        wanted.directory,
        wanted.side,
        wanted.exclude,
        wanted.exclude_classes,
        wanted.lists,
    )


def check_parts(name: str, data: Images, *, exact: bool = True) -> Images:
    """The data set under its own name, if its parts are as large as published.

    Nothing is decoded.

    Args:
        name: its name in `SOURCES`.
        data: the whole data set.
        exact: whether to compare the numbers.

    Raises:
        ValueError: other numbers, or no parts.
    """
    listed, parts = SOURCES[name].listed, data.class_parts
    if listed is None:
        return data
    if parts is None:
        raise ValueError(
            f"expected train, val and test classes of {name}, got images that are not "
            "divided by class: pass --lists with the folder of train.csv, val.csv and "
            "test.csv"
        )
    counts = np.bincount(data.labels, minlength=data.num_classes)
    per_class = dict(zip(data.class_names, counts.tolist(), strict=True))
    for part, (classes, images) in listed.items() if exact else ():
        own = parts.get(part, ())
        found = sum(per_class[c] for c in own)
        if len(own) != classes or (images is not None and found != images):
            wanted = counted(classes, "class", "es")
            if images is not None:
                wanted += f" and {counted(images, 'image')}"
            raise ValueError(
                f"expected {wanted} in {part} of {name}, got "
                f"{len(own):,} classes and {found:,} images"
            )
    return replace(data, name=name)


def leave_out(data: Images, names: Sequence[str]) -> Images:
    """The data set without some classes, with its training images still first."""
    if not names:
        return data
    kept = without_classes(data.class_names, names, data=data.name)
    first, parts = None, data.class_parts
    if data.num_train is not None:
        kept_first = np.isin(data.class_names, kept)[data.labels[: data.num_train]]
        first = int(kept_first.sum())
    if parts is not None:
        out = {*data.class_names} - {*kept}
        parts = {p: tuple(c for c in own if c not in out) for p, own in parts.items()}
    rest = data.take_classes(kept, name=data.name)
    return replace(rest, num_train=first, class_parts=parts)


# Classes and images of each part of the benchmarks: Ravi and Larochelle 2017 (also
# Bertinetto et al. 2019), Oreshkin et al. 2018, Ren et al. 2018, Chen et al. 2019.
_MINI = {"train": (64, 38_400), "val": (16, 9600), "test": (20, 12_000)}
_FC100 = {"train": (60, 36_000), "val": (20, 12_000), "test": (20, 12_000)}
_TIERED = {"train": (351, 448_695), "val": (97, 124_261), "test": (160, 206_209)}
_CUB = {"train": (100, None), "val": (50, None), "test": (50, None)}
_BIRDS, _ANIMALS = "caltech_birds2011", "i_naturalist2017"

_cifar = _whole(lambda wanted: cifar100(wanted.directory))
_omniglot = _whole(lambda wanted: omniglot(wanted.directory))

SOURCES: dict[str, Source] = {
    "bank": Source(
        _whole(lambda x: load_bank(x.directory).images(x.directory.stem)),
        by_class=random_class_split,
        by_example=bank_split,
    ),
    _BIRDS: Source(_photos_of(_BIRDS), side=SIDE, tfds=_BIRDS),
    "cifar100": Source(_cifar, tfds="cifar100"),
    "cifar_fs": Source(
        _listed(_cifar), by_class=split_by_parts, tfds="cifar100", listed=_MINI
    ),
    "cub_fewshot": Source(
        _listed(_photos_of(_BIRDS)),
        by_class=split_by_parts,
        side=84,
        tfds=_BIRDS,
        listed=_CUB,
    ),
    "fc100": Source(
        _listed(_cifar), by_class=split_by_parts, tfds="cifar100", listed=_FC100
    ),
    "folder": Source(_folder, by_class=split_or_random, side=SIDE),
    "glyphs": Source(
        _whole(lambda wanted: glyphs()),
        by_class=glyphs_split,
        by_example=split_by_drawer,
    ),
    _ANIMALS: Source(_photos_of(_ANIMALS), side=SIDE, tfds=_ANIMALS),
    "miniimagenet": Source(_folder, by_class=split_by_parts, side=84, listed=_MINI),
    "omniglot": Source(
        _omniglot,
        by_class=omniglot_split,
        by_example=split_by_drawer,
        tfds="omniglot",
    ),
    "omniglot_background": Source(
        _omniglot,
        by_class=background_split,
        by_example=split_by_drawer,
        tfds="omniglot",
        cache="omniglot",
    ),
    "tieredimagenet": Source(_folder, by_class=split_by_parts, side=84, listed=_TIERED),
}
