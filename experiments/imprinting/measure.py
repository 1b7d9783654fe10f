"""What a classifier knows of base and novel classes, and a gallery of examples."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from experiments.imprinting.classes import ClassSplit
from experiments.imprinting.members import ALONE, Imprinted
from experiments.imprinting.rows import heads_with_novel, metric_heads
from jaxfer import heads, stats
from jaxfer.data import Images, View
from jaxfer.keys import HEAD, key_of
from jaxfer.models import predict_labels
from jaxfer.types import Head

# Of the gallery, at most: right images, as many wrong ones, and other exemplars.
_SHOWN = 10
_EXEMPLARS = 60

# Accuracies in percent by name.
Scores = dict[str, float]


class Embedded(NamedTuple):
    """Images as a base network embeds them.

    Attributes:
        test: `[n, dim]`, all test images.
        few: `[novel, most, dim]`, the novel examples.
        copies: `[novel, most, copies, dim]`, augmented copies of them; None for a
            network without a classifier.
    """

    test: Array
    few: Array
    copies: Array | None


def score(
    predicted: np.ndarray, labels: np.ndarray, base: int, num_classes: int
) -> tuple[Scores, list[float]]:
    """Accuracies on test images of base, novel and all classes; recalls.

    Args:
        predicted: class of each image, among all of those the classifier has.
        labels: true classes; base classes come first.
        base: number of base classes.
        num_classes: number of all classes.

    Returns:
        "base" and "novel", where there are images of both also "all" and "harmonic",
        the mean 2bn / (b + n), as means over images in percent; the same with
        "_balanced" as means over classes; and the share of each class's images that are
        recognised.
    """
    hits = predicted == labels
    counts = np.bincount(labels, minlength=num_classes)
    recall = 100 * np.bincount(labels, hits, num_classes) / np.maximum(counts, 1)
    known = labels < base
    scores: Scores = {}
    parts = (("base", known), ("novel", ~known), ("all", np.ones_like(known)))
    for name, chosen in parts:
        if chosen.any() and (name != "all" or len(scores) == 4):
            found = stats.accuracies(predicted[chosen], labels[chosen], num_classes)
            scores[name] = found["accuracy"]
            scores[f"{name}_balanced"] = found["balanced_accuracy"]
    if "all" in scores:
        b, n = scores["base"], scores["novel"]
        scores["harmonic"] = 2 * b * n / (b + n) if b + n else 0.0
    return scores, recall.tolist()


def measure(
    network: Imprinted, split: ClassSplit, known: Head | None, embedded: Embedded
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The scores of every row without training, at the n of a measurement.

    Args:
        network: the measurement.
        split: the classes of its seed.
        known: the base network's classifier; None for a loss that leaves none for new
            classes to join.
        embedded: images, by the base network.

    Returns:
        The record; and, with a classifier, the classes that it finds in the test images
        once novel ones are imprinted.
    """
    labels, n = split.test, network.n
    unknown = labels >= split.base
    few = embedded.few
    rows: dict[str, Scores] = {}
    recalls: dict[str, list[float]] = {}

    def say(row: str, head: Head, *, alone: bool) -> np.ndarray:
        chosen = unknown if alone else np.ones_like(unknown)
        predicted = predict_labels(head, embedded.test[chosen])
        predicted = np.where(predicted < 0, -1, predicted + split.base * alone)
        scores, recalls[row] = score(
            predicted, labels[chosen], split.base, len(split.names)
        )
        rows[row] = scores
        return predicted

    for row, head in metric_heads(few, split.owners(n, 0)):
        say(f"{network.loss}_{row}", head, alone=True)
    first, predicted = f"{network.loss}_average", None
    if known is not None and embedded.copies is not None:
        first, base = "imprinting", network._replace(row="base", n=0)
        key = jax.random.fold_in(key_of(base.name), HEAD)
        dim, novel = known.weight.shape[1], len(few)
        for alone, prefix in ((False, ""), (True, ALONE)):
            classes = novel if alone else split.base + novel
            drawn = heads.cosine_head(key, dim, classes).weight[-novel:]
            owners = split.owners(n, 0 if alone else split.base)
            found = heads_with_novel(
                known, drawn, few, embedded.copies, owners, alone=alone
            )
            for row, head in found:
                given = say(prefix + row, head, alone=alone)
                if (row, alone) == ("imprinting", False):
                    predicted = given
    headline = f"{first} {rows[first]['novel']:.2f}%"
    return {"rows": rows, "recalls": recalls, "headline": headline}, predicted


def gallery_images(
    split: ClassSplit, seed: int, predicted: np.ndarray, train: Images, test: Images
) -> dict[str, np.ndarray]:
    """Exemplars of novel classes, and some images taken for one of them (Figure 5).

    Args:
        split: the classes of the seed.
        seed: of the choice.
        predicted: class of each test image.
        train: where exemplars are, the first examples of their classes.
        test: the images.

    Returns:
        "classes", numbers of novel classes, with their "exemplars"; "images", whether
        they are "right", and the place of each one's "predicted" class among these.
    """
    labels, rng = split.test, np.random.default_rng(seed)
    met = (labels >= split.base) & (predicted >= split.base)
    right = predicted == labels
    parts: Sequence[np.ndarray] = [
        np.flatnonzero(met & right),
        np.flatnonzero(met & ~right),
    ]
    rows = np.concatenate([rng.permutation(part)[:_SHOWN] for part in parts])
    given = predicted[rows] - split.base
    some = rng.permutation(len(split.few))[:_EXEMPLARS]
    shown = np.union1d(some, given).astype(int)
    return {
        "classes": shown,
        "exemplars": View.of(train.images)[split.few[shown, 0]],
        "images": View.of(test.images)[rows],
        "right": right[rows],
        "predicted": np.searchsorted(shown, given),
    }
