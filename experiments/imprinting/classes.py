"""Classes and examples of an imprinting study, by seed."""

from typing import NamedTuple

import numpy as np

from experiments.imprinting.config import Config
from experiments.imprinting.members import Imprinted
from experiments.inputs import moments
from jaxfer.data import Images, base_and_novel, few_examples
from jaxfer.models import Pixels


class ClassSplit(NamedTuple):
    """Base and novel classes of one seed.

    Attributes:
        names: base classes, then novel ones; a label is an index into them.
        base: number of base classes.
        train: labels of the training images.
        test: labels of the test images.
        few: `[novel, most]`, indices of the novel examples, nested: those of a smaller
            n come first.
        counts: `[novel]`, number of examples that each class really has.
    """

    names: tuple[str, ...]
    base: int
    train: np.ndarray
    test: np.ndarray
    few: np.ndarray
    counts: np.ndarray

    def owners(self, n: int, first: int) -> np.ndarray:
        """Return `[novel, most]`, the class of each example; -1 after the first n.

        The shape is the same at every n, so one compiled program serves every n.

        Args:
            n: examples per class.
            first: the label of the first novel class.
        """
        novel = np.arange(len(self.few), dtype=np.int32)[:, None]
        real = np.arange(self.few.shape[1]) < np.minimum(self.counts, n)[:, None]
        return np.where(real, first + novel, -1).astype(np.int32)


class TrainSet(NamedTuple):
    """The examples that a network trains on.

    Attributes:
        rows: indices of training images.
        labels: class labels, from 0.
        names: names of the classes.
        counts: number of examples used per class, among those in rows.
    """

    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    counts: np.ndarray


def split_classes(config: Config, train: Images, test: Images, seed: int) -> ClassSplit:
    """Return the base and novel classes of a seed, and the novel examples.

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
                "expected some but not all classes to have at least "
                f"data.base_min_images = {data.base_min_images} training images, got "
                f"{many.sum()} of {len(names)}"
            )
        order = np.argsort(~many, kind="stable")
        base, novel = base_and_novel([names[i] for i in order], int(many.sum()))
    number = {name: i for i, name in enumerate((*base, *novel))}
    new = np.array([number[name] for name in names], np.int32)
    few, counts = few_examples(
        train, novel, most_shots(config), seed, allow_fewer=data.allow_fewer
    )
    labels = new[train.labels], new[test.labels]
    return ClassSplit((*base, *novel), len(base), *labels, few, counts)


def base_pixels(config: Config, train: Images, split: ClassSplit) -> Pixels:
    """Return the preprocessing of the networks of a class split."""
    if config.data.pixels == "moments":
        return moments(train, np.flatnonzero(split.train < split.base))
    _, height, width, _ = train.images.shape
    return Pixels(np.float32(127.5), np.float32(127.5), (height, width))


def most_shots(config: Config) -> int:
    """Return the largest n of a study."""
    shots = [config.shots, config.side_shots]
    for rows in (config.tuned, config.transfer, config.joint):
        shots += [rows.shots] * bool(rows.seeds)
    return max(n for found in shots for n in found)


def train_set(split: ClassSplit, network: Imprinted) -> TrainSet:
    """Return the examples of a network.

    The rows hold all novel examples at every n, and the counts say how many of each
    class are used. One compiled step therefore serves every n.
    """
    novel, most = split.few.shape
    rows, labels = split.few.reshape(-1), np.repeat(np.arange(novel), most)
    counts = np.minimum(split.counts, network.n)
    names = split.names[split.base :]
    if not network.novel_only:
        known = np.flatnonzero(split.train < split.base)
        own = split.train[known]
        names = split.names[: split.base]
        known_counts = np.bincount(own, minlength=split.base)
        if network.n:
            names = split.names
            rows = np.concatenate([known, rows])
            labels = np.concatenate([own, labels + split.base])
            counts = np.concatenate([known_counts, counts])
        else:
            rows, labels, counts = known, own, known_counts
    return TrainSet(
        rows.astype(np.int32), labels.astype(np.int32), names, counts.astype(np.int32)
    )
