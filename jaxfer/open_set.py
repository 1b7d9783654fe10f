"""How well a score tells images of known classes from others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class OpenSet(NamedTuple):
    """Measures of open-set recognition, each from 0 to 1.

    Attributes:
        auroc: the area under the ROC curve: the probability that a known image has a
            higher score than an unknown one; ties count half.
        fpr95: the share of unknown images that are accepted at the threshold that
            accepts at least 95% of the known ones.
        oscr: the area under the curve of the correct classification rate of known
            images over the false positive rate (Dhamija et al. 2018).
        threshold: the threshold of `fpr95`.
    """

    auroc: float
    fpr95: float
    oscr: float
    threshold: float


def measure_open_set(
    known: Float[np.ndarray, " n"],
    unknown: Float[np.ndarray, " m"],
    correct: Bool[np.ndarray, " n"] | None = None,
) -> OpenSet:
    """The AUROC, FPR at 95% and OSCR of scores that are higher for known images.

    Args:
        known: `[n]`, scores of images of known classes.
        unknown: `[m]`, scores of images of other classes.
        correct: `[n]`, whether each known image gets its class; default: all.

    Raises:
        ValueError: no score of either kind, scores that are NaN, or other lengths.

    Example:
        >>> known, unknown = np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.1])
        >>> [round(x, 3) for x in measure_open_set(known, unknown)]
        [0.833, 0.5, 0.833, 0.4]
    """
    known, unknown = (np.asarray(x, np.float64).ravel() for x in (known, unknown))
    right = np.ones(len(known), bool) if correct is None else np.asarray(correct, bool)
    if not len(known) or not len(unknown) or len(right) != len(known):
        raise ValueError(
            "expected scores of known and unknown images, and one `correct` per known "
            f"image, got {len(known)}, {len(unknown)} and {len(right)}"
        )
    if np.isnan(known).any() or np.isnan(unknown).any():
        raise ValueError("expected scores that are numbers, got NaN")
    ordered, outside = np.sort(known), np.sort(unknown)
    # The smallest known score such that 95% are at least as large.
    threshold = ordered[len(ordered) - int(np.ceil(0.95 * len(ordered)))]
    return OpenSet(
        auroc=float(_below(outside, known).mean()),
        fpr95=float((unknown >= threshold).mean()),
        # An unknown image counts the known ones above it that get their class.
        oscr=float((_below(outside, known) * right).mean()),
        threshold=float(threshold),
    )


def _below(ordered: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The share of ordered values below each score; ties count half."""
    low = np.searchsorted(ordered, scores, "left")
    high = np.searchsorted(ordered, scores, "right")
    return (low + high) / 2 / len(ordered)
