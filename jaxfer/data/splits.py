"""Rules that split data sets into training, validation and test parts.

Few-shot splits are by class: no class of one part is in another. Splits by example have
every class in every part. Model selection uses the validation part only.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from jaxfer.data.images import Images, rotations
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
SPLITS = ("train", "val", "trainval", "test")


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
    _check_split(split, data.name)
    names = data.class_names
    if len(names) != 1623:
        raise ValueError(f"expected 1623 characters in {data.name}, got {len(names)}")
    trainval, test = names[:_OMNIGLOT_TRAINVAL], names[_OMNIGLOT_TRAINVAL:]
    val = [c for c in trainval if c.split("/")[0] in _OMNIGLOT_VAL]
    train = [c for c in trainval if c.split("/")[0] not in _OMNIGLOT_VAL]
    parts = {"train": train, "val": val, "trainval": trainval, "test": test}
    part = rotations(data.take_classes(parts[split], name=f"{data.name} {split}"))
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
    _check_split(split, data.name)
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


def random_class_split(data: Images, split: str) -> Images:
    """A part of a random split by class: 64% train, 16% validation, 20% test.

    The shares are those of miniImageNet (Ravi and Larochelle 2017), with at least one
    class each. The number of classes alone determines which class is in which part.

    Args:
        data: data set with at least three classes.
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: the split is unknown, or there are fewer than three classes.
    """
    _check_split(split, data.name)
    n = data.num_classes
    if n < 3:
        raise ValueError(
            f"expected at least 3 classes in {data.name}, one each to train, validate "
            f"and test, got {n}"
        )
    test, val = max(1, round(0.2 * n)), max(1, round(0.16 * n))
    order = np.random.RandomState([n]).permutation(n)  # noqa: NPY002
    rows = {
        "test": order[:test],
        "val": order[test : test + val],
        "trainval": order[test:],
        "train": order[test + val :],
    }[split]
    chosen = [data.class_names[i] for i in sorted(rows)]
    return data.take_classes(chosen, name=f"{data.name} {split}")


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
    _check_split(split, data.name)
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


# The rule of each data set.
Split = Callable[[Images, str], Images]
BY_CLASS: dict[str, Split] = {
    "folder": random_class_split,
    "glyphs": glyphs_split,
    "omniglot": omniglot_split,
}
BY_EXAMPLE: dict[str, Split] = {
    "caltech_birds2011": official_split,
    "cifar100": official_split,
    "folder": official_split,
    "glyphs": split_by_drawer,
    "i_naturalist2017": official_split,
    "omniglot": split_by_drawer,
}


def _check_split(split: str, where: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"expected one of {SPLITS}, got split {split!r} of {where}")
