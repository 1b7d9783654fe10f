"""Splits by example, which have every class in every part, and few examples.

Model selection uses the validation part only.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from jaxfer.data.images import Images

# Share of each class used for testing if a source has no parts.
_TESTED = 0.2
SPLITS = ("train", "val", "trainval", "test")
# A rule: a function of a whole data set and the name of a part.
Split = Callable[[Images, str], Images]


def official_split(data: Images, split: str) -> Images:
    """A part by example: trainval and test are those of the source.

    Validation is the last tenth of each class in trainval, and at least one example if
    the class has two. For CIFAR-100 it is the last 50 of 500.

    Args:
        data: data set whose source has these parts (see `Images.num_train`).
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown, or the source has no such parts.
    """
    if data.num_train is None:
        raise ValueError(
            "expected a data set whose source has training and test images, got "
            f"{data.name}, whose num_train is None"
        )
    is_test = np.arange(len(data.labels)) >= data.num_train
    count = np.bincount(data.labels[: data.num_train], minlength=data.num_classes)
    held = np.where(count > 1, np.maximum(count // 10, 1), 0)
    # Test images come after all of trainval.
    place = _place_in_class(data.labels)
    return _by_example(
        data, split, is_test, ~is_test & (place >= (count - held)[data.labels])
    )


def bank_split(data: Images, split: str) -> Images:
    """A part by example of a feature bank: its own parts, or a fifth of each class.

    Without parts, the name of a class seeds the selection of its test examples, at
    least one.

    Args:
        data: labelled embeddings.
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown, or a class has a single example.
    """
    if data.num_train is not None:
        return official_split(data, split)
    order = np.argsort(data.labels, kind="stable")
    ends = np.cumsum(np.bincount(data.labels, minlength=data.num_classes))
    train, test = [], []
    for name, own in zip(data.class_names, np.split(order, ends[:-1]), strict=True):
        known, tested = divide(name, len(own))
        train.append(own[known])
        test.append(own[tested])
    rows = np.concatenate([*train, *test])
    divided = data.take(rows, name=data.name)
    first = sum(map(len, train))
    return official_split(replace(divided, num_train=first), split)


def divide(name: str, n: int) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """The positions to train on and to test on among the n examples of a class.

    A fifth is for testing, at least one. The name of the class seeds the selection.

    Raises:
        ValueError: a single example.

    Example:
        >>> train, test = divide("wren", 5)
        >>> len(train), len(test)
        (4, 1)
    """
    if n < 2:
        raise ValueError(
            f"expected at least two examples of {name}, one of them to test on, got {n}"
        )
    seed = zlib.crc32(name.encode())
    order = np.random.RandomState(seed).permutation(n)  # noqa: NPY002
    cut = n - max(1, int(_TESTED * n))
    return order[:cut], order[cut:]


def split_by_drawer(data: Images, split: str) -> Images:
    """A part of handwriting with 20 examples per character: the last 5 are for testing.

    The 3 before them are for validation. In `glyphs`, each example of a character is by
    another drawer, in the same order for all characters. TFDS does not say who drew an
    example of Omniglot.

    Args:
        data: data set with 20 examples per class, such as `glyphs` or `omniglot`.
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown.
    """
    place = _place_in_class(data.labels)
    return _by_example(data, split, place >= 15, (place >= 12) & (place < 15))


def _by_example(
    data: Images,
    split: str,
    is_test: Bool[np.ndarray, " n"],
    is_val: Bool[np.ndarray, " n"],
) -> Images:
    check_split(split, data.name)
    chosen = {
        "train": ~is_test & ~is_val,
        "val": is_val,
        "trainval": ~is_test,
        "test": is_test,
    }[split]
    return data.take(np.flatnonzero(chosen), name=f"{data.name} {split}")


def _place_in_class(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For each example, the number of earlier examples of its class."""
    order = np.argsort(labels, kind="stable")
    _, count = np.unique(labels, return_counts=True)
    starts = np.repeat(np.cumsum(count) - count, count)
    place = np.empty(len(labels), int)
    place[order] = np.arange(len(labels)) - starts
    return place


def base_and_novel(
    class_names: Sequence[str], base: int, seed: int | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Base classes, which a classifier is trained on, and novel ones, added later.

    Args:
        class_names: class names of the data set.
        base: number of base classes; the others are novel.
        seed: seed of a random order of the classes; default: the order of the data set
            (the first 100 classes of CUB-200-2011 are base classes in Qi et al. 2018,
            section 5.1).

    Raises:
        ValueError: there is no base class, or no novel one.

    Example:
        >>> base_and_novel(["wren", "robin", "kite"], 2)
        (('wren', 'robin'), ('kite',))
    """
    if len(class_names) < 2:
        raise ValueError(
            f"expected at least 2 classes, a base class and a novel one, got "
            f"{list(class_names)}"
        )
    if not 0 < base < len(class_names):
        raise ValueError(
            f"expected 1 to {len(class_names) - 1} base classes out of "
            f"{len(class_names)} classes, got {base}"
        )
    order = np.arange(len(class_names))
    if seed is not None:
        # The legacy generator, whose numbers are the same in every NumPy release.
        order = np.random.RandomState([seed]).permutation(order)  # noqa: NPY002
    names = tuple(class_names[int(i)] for i in order)
    return names[:base], names[base:]


def few_examples(
    data: Images,
    chosen: Sequence[str],
    n: int,
    seed: int,
    *,
    allow_fewer: bool = False,
) -> tuple[Int[np.ndarray, "classes n"], Int[np.ndarray, " classes"]]:
    """Sample n examples per class; a smaller n gives the first ones of the same sample.

    Args:
        data: data set to sample from.
        chosen: class names.
        n: examples per class.
        seed: seed of the sample, which depends only on it and the number of the class.
        allow_fewer: accept classes with fewer than n examples, but at least one; their
            rows are padded with their first row.

    Returns:
        The rows, and the number of rows per class that are not padding.

    Raises:
        ValueError: a class does not exist, or has too few examples.

    Example:
        >>> images, labels = np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 0, 0])
        >>> data = Images("two", images, labels.astype(np.int32), ("a", "b"))
        >>> rows, counts = few_examples(data, ["b"], 2, 0, allow_fewer=True)
        >>> rows.tolist(), counts.tolist()
        ([[1, 1]], [1])
    """
    if unknown := sorted(set(chosen) - set(data.class_names)):
        raise ValueError(f"expected classes of {data.name}, got {unknown}")
    number = {name: i for i, name in enumerate(data.class_names)}
    rows = np.zeros((len(chosen), n), np.int32)
    counts = np.zeros(len(chosen), np.int32)
    for place, name in enumerate(chosen):
        own = np.flatnonzero(data.labels == number[name])
        least = 1 if allow_fewer else n
        if not 1 <= least <= len(own):
            raise ValueError(
                f"expected at least n = {least} examples of class {name!r} of "
                f"{data.name}, got {len(own)}"
            )
        draw = np.random.RandomState([seed, number[name]])  # noqa: NPY002
        mine = draw.permutation(own)[:n]
        rows[place], counts[place] = mine[0], len(mine)
        rows[place, : len(mine)] = mine
    return rows, counts


def at_most_per_class(data: Images, most: int) -> Images:
    """At most some images of each class, in the order of the data set.

    The name of a class seeds its selection, which does not depend on other classes and
    contains the selection of a smaller number.

    Args:
        data: data set or part of one.
        most: largest number of images per class, at least 1.

    Raises:
        ValueError: `most` is below 1.

    Example:
        >>> images, labels = np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 0, 0])
        >>> data = Images("two", images, labels.astype(np.int32), ("a", "b"))
        >>> at_most_per_class(data, 2).labels.tolist()
        [0, 1, 0]
    """
    if most < 1:
        raise ValueError(f"expected at least 1 image per class, got {most}")
    order = np.argsort(data.labels, kind="stable")
    ends = np.cumsum(np.bincount(data.labels, minlength=data.num_classes))
    kept = []
    for name, own in zip(data.class_names, np.split(order, ends[:-1]), strict=True):
        draw = np.random.RandomState(zlib.crc32(name.encode()))  # noqa: NPY002
        kept.append(draw.permutation(own)[:most])
    return data.take(np.sort(np.concatenate(kept)), name=data.name)


def check_split(split: str, where: str) -> None:
    """Refuse the name of a part that does not exist."""
    if split not in SPLITS:
        raise ValueError(f"expected one of {SPLITS}, got split {split!r} of {where}")
