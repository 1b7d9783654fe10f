"""Accuracy of classifiers on base and novel classes, and a gallery of examples."""

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

# Limits of the gallery: right images, as many wrong ones, and random exemplars.
_SHOWN = 10
_EXEMPLARS = 60

# Accuracies in percent by name.
Scores = dict[str, float]


class Embedded(NamedTuple):
    """Embeddings of images by a base network.

    Attributes:
        test: `[n, dim]`, all test images.
        few: `[novel, most, dim]`, the novel examples.
        copies: `[novel, most, copies, dim]`, augmented copies of the novel examples;
            None for a network without a softmax classifier.
    """

    test: Array
    few: Array
    copies: Array | None


def score(
    predicted: np.ndarray, labels: np.ndarray, base: int, num_classes: int
) -> tuple[Scores, list[float]]:
    """Return accuracies on base, novel and all classes, and the recall of each class.

    Args:
        predicted: predicted class of each image, among all classes of the classifier.
        labels: true classes; base classes come first.
        base: number of base classes.
        num_classes: number of all classes.

    Returns:
        Accuracies in percent: "base" and "novel" and, if there are images of both,
        "all" and "harmonic", the harmonic mean of "base" and "novel". Accuracies are
        means over images; those whose names end with "_balanced" are means over
        classes. The recalls are in percent too.
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
    """Measure every row that needs no training, at the n of a measurement.

    Args:
        network: the measurement.
        split: the classes of its seed.
        known: the base network's classifier; None for a loss that trains no classifier
            to which novel classes can be added.
        embedded: embeddings of images by the base network.

    Returns:
        The record; and, with a classifier, the classes that it predicts for the test
        images after novel classes are imprinted.
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
    headline = f"accuracy novel {rows[first]['novel']:.2f}% ({first})"
    return {"rows": rows, "recalls": recalls, "headline": headline}, predicted


def gallery_images(
    split: ClassSplit, seed: int, predicted: np.ndarray, train: Images, test: Images
) -> dict[str, np.ndarray]:
    """Return exemplars of novel classes, and images predicted as novel (Figure 5).

    Args:
        split: the classes of the seed.
        seed: seed of the choice of images.
        predicted: predicted class of each test image.
        train: training images; an exemplar is the first novel example of its class.
        test: test images.

    Returns:
        A dictionary of arrays: "classes", indices of novel classes, from 0;
        "exemplars", one image per class; "images", test images; and for each of these
        its "labels" entry, "right", whether its prediction is correct, and "predicted",
        the position of its predicted class in "classes". Labels are indices of novel
        classes too.
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
        "labels": labels[rows] - split.base,
        "right": right[rows],
        "predicted": np.searchsorted(shown, given),
    }
