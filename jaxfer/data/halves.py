"""Two halves of the classes of a data set: at random, by what they show, by file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Superclasses of CIFAR-100: what people make, and the animals (people among them).
_MADE = (
    "food_containers",
    "household_electrical_devices",
    "household_furniture",
    "large_man-made_outdoor_things",
    "vehicles_1",
    "vehicles_2",
)
_ANIMALS = (
    "aquatic_mammals",
    "fish",
    "insects",
    "large_carnivores",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
)
# A rule: the data set it is for, and what the names of half A's classes begin with.
RULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "made": ("cifar100", _MADE),
    "animals": ("cifar100", _ANIMALS),
    "family": ("glyphs", ("angular",)),
}


class Halves(NamedTuple):
    """The class names of two halves, each in the order of the whole."""

    a: tuple[str, ...]
    b: tuple[str, ...]


def halve(class_names: Sequence[str], by: str, split: int = 0) -> Halves:
    """Two halves of some classes.

    Args:
        class_names: of the whole.
        by: 'random'; 'made' (30 man-made classes of CIFAR-100 against 70 natural ones),
            'animals' (50 of animals and people against 50 of plants, scenes and
            things), 'family' (angular against curved glyphs); or the path before
            "A.txt" and "B.txt" of two lists (see `read_halves`).
        split: number of a random split; without meaning for the others.

    Raises:
        ValueError: a rule that does not part these classes in two, or a list that does
            not.

    Example:
        >>> halve(["a", "b", "c", "d"], "random", 0)
        Halves(a=('a', 'd'), b=('b', 'c'))
    """
    if by == "random":
        return random_halves(class_names, split)
    if by not in RULES:
        return read_halves(class_names, by)
    data, parts = RULES[by]
    a = tuple(c for c in class_names if c.startswith(parts))
    b = tuple(c for c in class_names if not c.startswith(parts))
    if not a or not b:
        raise ValueError(
            f"found {len(a)} of {len(class_names)} classes (such as "
            f"{list(class_names[:2])}) in half A by {by!r}, needed some and not all: "
            f"it is a rule for {data}"
        )
    return Halves(a, b)


def random_halves(class_names: Sequence[str], split: int) -> Halves:
    """Half of the classes at random, and the others (Yosinski et al. 2014, section 3).

    Split s of 1000 classes is that of the paper's released lists: NumPy's legacy
    generator, seeded with the list [s], which is another stream than that of s.

    Args:
        class_names: of the whole; half A has the smaller half of an odd number.
        split: its number.

    Raises:
        ValueError: fewer than 2 classes, or a negative number.

    Example:
        >>> names = [str(i) for i in range(1000)]
        >>> random_halves(names, 0).a[:8]
        ('0', '1', '2', '5', '9', '10', '15', '16')
    """
    n = len(class_names)
    if n < 2 or split < 0:
        raise ValueError(
            f"found {n} classes and split {split}, needed at least 2 and a split from 0"
        )
    # The legacy generator is the point: its lists are published.
    legacy = np.random.RandomState([split])  # noqa: NPY002
    chosen = set(legacy.choice(np.arange(n), n // 2, replace=False).tolist())
    return Halves(
        tuple(c for i, c in enumerate(class_names) if i in chosen),
        tuple(c for i, c in enumerate(class_names) if i not in chosen),
    )


def read_halves(class_names: Sequence[str], prefix: str | Path) -> Halves:
    """Halves from two lists, `<prefix>A.txt` and `<prefix>B.txt`.

    A line's first word is the name or the number of a class; what follows it is not
    read, nor are lines that begin with "#". The released lists of Yosinski et al. 2014
    are such.

    Args:
        class_names: of the whole.
        prefix: of both paths.

    Raises:
        ValueError: a list that is not there, an unknown class, one that is in both or
            twice in one, or classes that are in neither.
    """
    number = {str(i): c for i, c in enumerate(class_names)}
    known = {**number, **{c: c for c in class_names}}
    halves = []
    for letter in "AB":
        path = Path(f"{prefix}{letter}.txt")
        if not path.is_file():
            raise ValueError(
                f"found no {path}, needed 'random', one of {[*RULES]}, or the path of "
                "two class lists up to A.txt and B.txt"
            )
        lines = [line.split() for line in path.read_text().splitlines()]
        words = [line[0] for line in lines if line and not line[0].startswith("#")]
        if unknown := [word for word in words if word not in known]:
            raise ValueError(
                f"{path} names {len(unknown)} unknown classes, such as {unknown[:3]}; "
                f"needed names such as {list(class_names[:2])} or numbers below "
                f"{len(class_names)}"
            )
        halves.append([known[word] for word in words])
    a, b = map(set, halves)
    if both := sorted(a & b):
        raise ValueError(
            f"the halves {prefix} overlap: {len(both)} classes are in both, such as "
            f"{both[:3]}"
        )
    if len(a) + len(b) < sum(map(len, halves)):
        raise ValueError(f"a class is named twice in a list of {prefix}")
    if neither := [c for c in class_names if c not in a | b]:
        raise ValueError(
            f"the halves {prefix} miss {len(neither)} classes, such as {neither[:3]}"
        )
    return Halves(*(tuple(c for c in class_names if c in half) for half in (a, b)))
