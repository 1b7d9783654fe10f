"""Two halves of the classes of a data set: at random, by a rule, or from files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxfer.data.lists import class_after_number, class_in, look_up, read_names

# Superclasses of CIFAR-100: man-made things, and animals (including people).
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
# Each rule: its data set, and the prefixes of the class names of half A.
RULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "made": ("cifar100", _MADE),
    "animals": ("cifar100", _ANIMALS),
    "family": ("glyphs", ("angular",)),
}


class Halves(NamedTuple):
    """The class names of two halves, each in the order of the data set."""

    a: tuple[str, ...]
    b: tuple[str, ...]


def halve(class_names: Sequence[str], by: str, split: int = 0) -> Halves:
    """Split classes into two halves.

    Args:
        class_names: all class names.
        by: 'random'; 'made' (30 man-made classes of CIFAR-100 against 70 natural ones),
            'animals' (50 of animals and people against 50 of plants, scenes and
            things), 'family' (angular against curved glyphs); or the path of two lists
            without their endings "A.txt" and "B.txt" (see `read_halves`).
        split: number of a random split; other rules ignore it.

    Raises:
        ValueError: the rule or the lists do not split these classes into two halves.

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
            f"expected the rule {by!r} to put some but not all classes in half A, got "
            f"{len(a)} of {len(class_names)} (the first classes are "
            f"{list(class_names[:2])}): it is a rule for {data}"
        )
    return Halves(a, b)


def random_halves(class_names: Sequence[str], split: int) -> Halves:
    """Two random halves of the classes (Yosinski et al. 2014, section 3).

    For 1000 classes, split s equals the paper's released lists. It comes from NumPy's
    legacy generator, seeded with the list [s], whose stream differs from that of s.

    Args:
        class_names: all class names; half A is the smaller one of an odd number.
        split: number of the split, from 0.

    Raises:
        ValueError: there are fewer than 2 classes, or `split` is negative.

    Example:
        >>> names = [str(i) for i in range(1000)]
        >>> random_halves(names, 0).a[:8]
        ('0', '1', '2', '5', '9', '10', '15', '16')
    """
    n = len(class_names)
    if n < 2 or split < 0:
        raise ValueError(
            "expected at least 2 classes and a split of at least 0, got "
            f"{n} classes and split {split}"
        )
    # The published lists come from the legacy generator.
    legacy = np.random.RandomState([split])  # noqa: NPY002
    chosen = set(legacy.choice(np.arange(n), n // 2, replace=False).tolist())
    return Halves(
        tuple(c for i, c in enumerate(class_names) if i in chosen),
        tuple(c for i, c in enumerate(class_names) if i not in chosen),
    )


def read_halves(class_names: Sequence[str], prefix: str | Path) -> Halves:
    """Read halves from two lists, `<prefix>A.txt` and `<prefix>B.txt`.

    A line names a class, perhaps with words after it, or gives its number first; lines
    that begin with "#" are ignored. In lists of numbered classes, such as the released
    lists of Yosinski et al. 2014 ("0 0 n01440764"), the name counts, if some line has
    one, and else the number. Names of other classes are ignored, and counted in a
    printed line.

    Args:
        class_names: all class names.
        prefix: common prefix of both paths.

    Raises:
        ValueError: a list is missing or names no class; a number is too high; or a
            class is in both lists, twice in one, or in neither.
    """
    paths = [Path(f"{prefix}{letter}.txt") for letter in "AB"]
    for path in paths:
        if not path.is_file():
            raise ValueError(
                f"expected 'random', one of {[*RULES]}, or the path of two class lists "
                f"without A.txt and B.txt, got {prefix}: there is no {path}"
            )
    names = dict.fromkeys(class_names)
    lists = [read_names(path) for path in paths]
    named = any(class_after_number(line, names) for lines in lists for line in lines)

    def find(line: str) -> str | None:
        first = line.split()[0]
        name = class_in(line, names) or class_in(first, names)
        if named:
            return class_after_number(line, names) or name
        if name is None and first.isdigit():
            if int(first) >= len(class_names):
                raise ValueError(
                    f"expected class names, such as {list(class_names[:2])}, or "
                    f"numbers below {len(class_names)} in the lists {prefix}, got "
                    f"{first}"
                )
            return class_names[int(first)]
        return name

    what = f"classes, such as {class_names[0]!r}"
    halves = [
        look_up(lines, find, what=what, where=path.name)
        for lines, path in zip(lists, paths, strict=True)
    ]
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
            f"the halves {prefix} miss {len(neither)} classes, such as {neither[:3]}: "
            "add them to a list, or exclude them"
        )
    return Halves(*(tuple(c for c in class_names if c in half) for half in (a, b)))
