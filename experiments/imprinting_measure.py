"""What a base network makes of novel classes without training."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.imprinting_classes import Classes
from experiments.imprinting_members import Member
from experiments.imprinting_result import ALONE, Scores, score
from experiments.imprinting_rows import metric_heads, predict, with_examples
from experiments.imprinting_step import HEAD
from jaxfer import heads
from jaxfer.data import Images, View
from jaxfer.types import Head

# Of the gallery, at most: right images, as many wrong ones, and other exemplars.
_SHOWN = 10
_EXEMPLARS = 60


class Embedded(NamedTuple):
    """Images as a base network embeds them.

    Attributes:
        test: `[n, dim]`, all test images.
        few: `[novel, most, dim]`, the novel examples, nested.
        copies: of these, augmented; none where there is no classifier for them.
    """

    test: Array
    few: Array
    copies: Sequence[Array]


def measure(
    member: Member,
    classes: Classes,
    known: Head | None,
    embedded: Embedded,
    shots: tuple[int, ...],
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The scores of every row without training.

    Args:
        member: a base network.
        classes: of its seed.
        known: its classifier; None for a loss that leaves none for new classes to join.
        embedded: images, by it.
        shots: the values of n.

    Returns:
        The record; and of a network with a classifier the classes that it finds in the
        test images once novel ones are imprinted from the fewest examples.
    """
    labels = classes.test
    unknown = labels >= classes.base
    rows: dict[str, dict[int, Scores]] = {}
    recalls: dict[str, dict[int, list[float]]] = {}

    def say(row: str, n: int, head: Head, *, alone: bool) -> np.ndarray:
        chosen = unknown if alone else np.ones_like(unknown)
        predicted = predict(head, embedded.test[chosen]) + classes.base * alone
        scores, recall = score(predicted, labels[chosen], classes.base, classes.names)
        rows.setdefault(row, {})[n] = scores
        recalls.setdefault(row, {})[n] = recall
        return predicted

    for row, n, head in metric_heads(embedded.few, shots):
        say(f"{member.loss}_{row}", n, head, alone=True)
    first = f"{member.loss}_average"
    headline, imprinted = "", None
    if known is not None:
        first = "imprinting"
        predicted = predict(known, embedded.test[~unknown])
        before = 100 * float((predicted == labels[~unknown]).mean())
        rows["base_classifier"] = {0: {"base": before}}
        headline = f"base {before:.2f}, "
        key = jax.random.fold_in(member.key(), HEAD)
        moved = jnp.stack(embedded.copies, axis=2)
        novel = len(classes.few)
        for alone, prefix in ((False, ""), (True, ALONE)):
            num_classes = novel if alone else classes.base + novel
            drawn = heads.cosine_head(key, member.dim, num_classes)
            for row, n, head in with_examples(
                known, drawn, embedded.few, moved, shots, alone=alone
            ):
                predicted = say(prefix + row, n, head, alone=alone)
                if (row, n, alone) == ("imprinting", min(shots), False):
                    imprinted = predicted
    n = min(shots)
    headline += f"{first} at n = {n} {rows[first][n]['novel']:.2f}"
    return {"rows": rows, "recalls": recalls, "headline": headline}, imprinted


def gallery(
    classes: Classes, seed: int, predicted: np.ndarray, train: Images, test: Images
) -> dict[str, np.ndarray]:
    """Exemplars of novel classes, and some images taken for one of them (Figure 5).

    Args:
        classes: of the seed.
        seed: of the choice.
        predicted: class of each test image.
        train: where exemplars are, the first examples of their classes.
        test: the images.

    Returns:
        "classes", numbers of novel classes, with their "exemplars"; "images", whether
        they are "right", and the place of each one's "predicted" class among these.
    """
    labels, rng = classes.test, np.random.default_rng(seed)
    met = (labels >= classes.base) & (predicted >= classes.base)
    right = predicted == labels
    parts = [np.flatnonzero(met & right), np.flatnonzero(met & ~right)]
    rows = np.concatenate([rng.permutation(part)[:_SHOWN] for part in parts])
    given = predicted[rows] - classes.base
    some = rng.permutation(len(classes.few))[:_EXEMPLARS]
    shown = np.union1d(some, given)
    return {
        "classes": shown,
        "exemplars": View.of(train.images)[classes.few[shown, 0]],
        "images": View.of(test.images)[rows],
        "right": right[rows],
        "predicted": np.searchsorted(shown, given),
    }
