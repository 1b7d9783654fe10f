"""Splits by class: no class of one part is in another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from jaxfer.data.images import Images, rotations
from jaxfer.data.lists import find_lists, look_up_classes, read_names
from jaxfer.data.splits import Split, check_split
from jaxfer.data.view import View

# Snell's "vinyals" split holds out five whole alphabets of the first 1200 characters.
_OMNIGLOT_VAL = (
    "Armenian",
    "Bengali",
    "Early_Aramaic",
    "Hebrew",
    "Mkhedruli_(Georgian)",
)
_OMNIGLOT_TRAINVAL = 1200
# Characters of the background alphabets, which come first.
_BACKGROUND = 964


def omniglot_split(data: Images, split: str) -> Images:
    """A part of Omniglot by the "vinyals" rule, with rotations as classes.

    The first 1200 of the 1623 characters (background alphabets, then the evaluation
    alphabets, each in alphabetical order) are trainval, the rest are test. Validation
    is five whole alphabets of trainval. With rotations there are 4112 + 688 = 4800 and
    1692 classes (Vinyals et al. 2016 as Snell et al. 2017 released it).

    Args:
        data: all of Omniglot (see `omniglot`), with classes in the order above.
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown, or the number of characters is not 1623.
    """
    _check_omniglot(data, split)
    names = data.class_names
    known, test = names[:_OMNIGLOT_TRAINVAL], names[_OMNIGLOT_TRAINVAL:]
    return _characters(data, test if split == "test" else known, split)


def _check_omniglot(data: Images, split: str) -> None:
    check_split(split, data.name)
    if data.num_classes != 1623:
        raise ValueError(
            f"expected 1623 characters in {data.name}, got {data.num_classes}"
        )


def _characters(data: Images, names: Sequence[str], split: str) -> Images:
    """Characters with their rotations; train and val are divided by alphabet."""
    if split in ("train", "val"):
        held = split == "val"
        names = [c for c in names if (c.split("/")[0] in _OMNIGLOT_VAL) == held]
    part = rotations(data.take_classes(names, name=f"{data.name} {split}"))
    # The released code transposes last, which determines what it calls rot090.
    return replace(part, images=View.of(part.images).transpose())


def glyphs_split(data: Images, split: str) -> Images:
    """A part of glyphs by alphabet: 70% train, 10% validation, 20% test.

    Both families are in every part. Characters are not rotated.

    Args:
        data: glyphs, with classes named "alphabet/character".
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown, or there are fewer than 20 alphabets.
    """
    check_split(split, data.name)
    alphabets = list(dict.fromkeys(c.split("/")[0] for c in data.class_names))
    if len(alphabets) < 20:
        raise ValueError(
            f"expected at least 20 alphabets in {data.name}, so that both families are "
            f"in every part, got {len(alphabets)}"
        )
    # Families alternate, so alphabets are assigned to parts in pairs.
    part = {a: _GLYPHS_PARTS[i // 2 % 10] for i, a in enumerate(alphabets)}
    wanted = ("train", "val") if split == "trainval" else (split,)
    chosen = [c for c in data.class_names if part[c.split("/")[0]] in wanted]
    return data.take_classes(chosen, name=f"{data.name} {split}")


_GLYPHS_PARTS = ("train",) * 7 + ("val",) + ("test",) * 2


def random_class_split(
    data: Images,
    split: str,
    *,
    shares: Sequence[float] = (0.64, 0.16, 0.2),
    seed: int | None = None,
) -> Images:
    """A part of a random split by class: 64% train, 16% validation, 20% test.

    The shares are those of miniImageNet (Ravi and Larochelle 2017), with at least one
    class each. Which class is in which part depends on the number of classes, the
    shares and the seed.

    Args:
        data: data set with at least one class per part.
        split: 'train', 'val', 'trainval' or 'test'.
        shares: shares of the classes to train, validate and test on; their sum is 1. A
            share may be 0, except the first one.
        seed: seed of the order of the classes; default: the number of classes alone.

    Raises:
        ValueError: the split is unknown or has a share of 0, the shares are not as
            above, or there are fewer classes than parts.

    Example:
        >>> from jaxfer.data import from_arrays
        >>> data = from_arrays(np.zeros((10, 2, 2)), np.arange(10))
        >>> random_class_split(data, "test", shares=(0.7, 0.0, 0.3), seed=1).class_names
        ('0', '3', '4')
    """
    check_split(split, data.name)
    if len(shares) != 3 or min(shares) < 0 or not shares[0]:
        raise ValueError(
            "expected three class shares, to train (above 0), validate and test, got "
            f"{list(shares)}"
        )
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"expected class shares whose sum is 1, got {list(shares)}")
    n, least = data.num_classes, sum(share > 0 for share in shares)
    if n < least:
        raise ValueError(
            f"expected at least {least} classes in {data.name}, one each to train, "
            f"validate and test, got {n}"
        )
    val, test = (max(share > 0, round(share * n)) for share in shares[1:])
    seeds = [n] if seed is None else [n, seed]
    order = np.random.RandomState(seeds).permutation(n)  # noqa: NPY002
    rows = {
        "test": order[:test],
        "val": order[test : test + val],
        "trainval": order[test:],
        "train": order[test + val :],
    }[split]
    if not len(rows):
        raise ValueError(
            f"expected a share of classes above 0 for split {split!r}, got "
            f"{list(shares)}"
        )
    chosen = [data.class_names[i] for i in sorted(rows)]
    return data.take_classes(chosen, name=f"{data.name} {split}")


def class_lists(directory: str | Path, *, seed: int | None = None) -> Split:
    """A split by class from lists, as a function like `random_class_split`.

    Args:
        directory: directory with a list per part, such as `train.txt`, `train.json` or
            `train.csv` (see `read_names`); `trainval` is `train` and `val` together. A
            superclass stands for its classes. Names of other classes are ignored, and
            counted in a printed line. If there is a list of `trainval` only, a third of
            its classes, chosen at random, is `val`, as in Reed et al. 2016, who divide
            150 classes of CUB into 100 and 50.
        seed: seed of that choice (default: 0); None if there is a list of `train`.

    Returns:
        A function of a data set and a split. It raises a ValueError if the list is
        missing or names no class of the data set, or if a class is in two lists.

    Raises:
        ValueError: there is no list to train on, or a seed where there is no choice.
    """
    lists = find_lists(directory, together=True)
    if seed is not None and "trainval" not in lists:
        raise ValueError(
            f"expected no seed for the lists of {directory}, which divide train and "
            f"val, got {seed}"
        )

    @cache
    def parts(names: tuple[str, ...], name: str) -> dict[str, tuple[str, ...]]:
        found = listed_parts(lists, names, data=name)
        if (both := found.pop("trainval", None)) is not None:
            seeds = [len(both), seed or 0]
            order = np.random.RandomState(seeds).permutation(len(both))  # noqa: NPY002
            held = {both[i] for i in order[: len(both) // 3]}
            found["val"] = tuple(c for c in both if c in held)
            found["train"] = tuple(c for c in both if c not in held)
        return found

    def split_by_lists(data: Images, split: str) -> Images:
        found = parts(data.class_names, data.name)
        return split_by_parts(replace(data, class_parts=found), split)

    return split_by_lists


def listed_parts(
    lists: Mapping[str, Path],
    class_names: Sequence[str],
    *,
    data: str,
    strict: bool = False,
) -> dict[str, tuple[str, ...]]:
    """The classes of each part that has a list; see `class_lists`.

    Args:
        lists: the list of each part, see `find_lists`.
        class_names: names of all classes.
        data: name of the data set, for messages.
        strict: whether every name has to stand for a class.

    Raises:
        ValueError: a list names no class, with `strict` a name stands for none, or a
            class is in two lists.
    """
    found = {
        part: tuple(
            look_up_classes(
                read_names(path),
                class_names,
                data=data,
                where=path.name,
                header=path.suffix == ".csv",
                strict=strict,
            )
        )
        for part, path in lists.items()
    }
    every = Counter(c for own in found.values() for c in own)
    if twice := sorted(c for c, count in every.items() if count > 1):
        raise ValueError(
            f"expected different classes in the lists {[*map(str, lists.values())]}, "
            f"got {twice[:3]} in two lists"
        )
    return found


def split_by_parts(data: Images, split: str) -> Images:
    """A part by class: the classes that the source has in it.

    Args:
        data: data set whose source divides its classes (see `Images.class_parts`).
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown, or the source has no such part.

    Example:
        >>> from jaxfer.data import from_arrays
        >>> data = from_arrays(np.zeros((3, 2, 2)), np.arange(3))
        >>> data = replace(data, class_parts={"train": ("0", "2"), "test": ("1",)})
        >>> split_by_parts(data, "train").class_names
        ('0', '2')
    """
    check_split(split, data.name)
    parts = data.class_parts or {}
    own = ("train", "val") if split == "trainval" else (split,)
    if lost := [part for part in own if part not in parts]:
        raise ValueError(
            f"expected classes for {lost[0]} of {data.name}, which split {split!r} "
            f"needs, got classes for {[*parts]}: add a list for it"
        )
    chosen = {c for part in own for c in parts[part]}
    names = [c for c in data.class_names if c in chosen]
    return data.take_classes(names, name=f"{data.name} {split}")


def split_or_random(data: Images, split: str) -> Images:
    """The parts of the source, or else a random split; see `random_class_split`."""
    rule = random_class_split if data.class_parts is None else split_by_parts
    return rule(data, split)


def background_split(data: Images, split: str) -> Images:
    """A part of Omniglot by its two sets of alphabets, as Lake et al. 2015 divide it.

    The 30 background alphabets are trainval, with rotations as classes: 3,856 classes.
    Validation is five of them, as in `omniglot_split`. The 20 evaluation alphabets are
    test, without rotations: 659 classes.

    Args:
        data: all of Omniglot (see `omniglot`), background alphabets first.
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown, or the number of characters is not 1623.
    """
    _check_omniglot(data, split)
    known, test = data.class_names[:_BACKGROUND], data.class_names[_BACKGROUND:]
    if split == "test":
        return data.take_classes(test, name=f"{data.name} test")
    return _characters(data, known, split)
