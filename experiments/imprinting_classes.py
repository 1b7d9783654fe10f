"""What a seed of an imprinting study makes of a data set: classes and examples."""

from typing import NamedTuple

import numpy as np

from experiments.backbone import moments
from experiments.imprinting_config import Config
from experiments.imprinting_members import Member
from jaxfer.data import Images, base_and_novel, few_examples
from jaxfer.episodes import ClassTable, class_table


class Classes(NamedTuple):
    """What a seed makes of the data set.

    Attributes:
        names: base classes, then novel ones; a label is a place among them.
        base: how many are base classes.
        train: labels of the training images.
        test: labels of the test images.
        few: `[novel, n]`, rows of the novel examples, nested.
        centre: what is taken from pixels, such as the mean image of base classes.
        scale: what they are multiplied with then.
    """

    names: tuple[str, ...]
    base: int
    train: np.ndarray
    test: np.ndarray
    few: np.ndarray
    centre: np.ndarray
    scale: np.float32


def draw_classes(config: Config, train: Images, test: Images, seed: int) -> Classes:
    """The base and novel classes of a seed, and the novel examples.

    Raises:
        ValueError: no base class or no novel one, or a novel class with fewer examples
            than the largest n.
    """
    data, names = config.data, train.class_names
    if data.base_min_images is None:
        base, novel = base_and_novel(names, data.base, seed if data.shuffled else None)
    else:
        counts = np.bincount(train.labels, minlength=len(names))
        many = counts >= data.base_min_images
        if many.all() or not many.any():
            raise ValueError(
                f"found {many.sum()} of {len(names)} classes with data.base_min_images "
                f"= {data.base_min_images} training images, needed some and not all"
            )
        order = np.argsort(~many, kind="stable")
        base, novel = base_and_novel([names[i] for i in order], int(many.sum()))
    number = {name: i for i, name in enumerate((*base, *novel))}
    new = np.array([number[name] for name in train.class_names], np.int32)
    shots = [config.shots, config.side_shots]
    for rows in (config.tuned, config.transfer, config.joint):
        shots += [rows.shots] * bool(rows.seeds)
    most = max(n for found in shots for n in found)
    labels = new[train.labels]
    known = np.flatnonzero(labels < len(base))
    return Classes(
        (*base, *novel),
        len(base),
        labels,
        new[test.labels],
        few_examples(train, novel, most, seed).astype(np.int32),
        *(
            moments(np.asarray(train.images), known)
            if data.pixels == "moments"
            else (np.full((1, 1, 1), 127.5, np.float32), np.float32(1 / 127.5))
        ),
    )


def examples(
    classes: Classes, member: Member
) -> tuple[np.ndarray, np.ndarray, ClassTable]:
    """Rows that a network trains on, their labels, and which of them a class has.

    All novel examples are among the rows whatever n, of which the table counts in the
    first n: so one compiled step serves every n.
    """
    novel, most = classes.few.shape
    rows, labels = classes.few.reshape(-1), np.repeat(np.arange(novel), most)
    first = 0
    if not member.novel_only:
        known = np.flatnonzero(classes.train < classes.base)
        first, own = classes.base, classes.train[known]
        if member.n:
            rows = np.concatenate([known, rows])
            labels = np.concatenate([own, labels + first])
        else:
            rows, labels, novel = known, own, 0
    table = class_table(labels, num_classes=first + novel)
    table.counts[first:] = member.n
    return rows.astype(np.int32), labels.astype(np.int32), table
