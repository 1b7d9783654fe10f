"""Means that can be merged, and means with their 95% intervals.

Accuracies over episodes, seeds or splits are reported with a 95% interval of the mean
by Student's t distribution, from the standard deviation with ddof 1. The interval
covers only the variation over the values that were averaged.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jaxfer.types import AnyArray

Values = AnyArray | Sequence[float]


class Mean(NamedTuple):
    """A mean as (total, count), so that batches of any size merge exactly."""

    total: float | Float[Array, ""]
    count: float | Float[Array, ""]

    def merge(self, other: "Mean") -> "Mean":
        """The mean of both samples together."""
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float | Float[Array, ""]:
        """The mean; NaN for an empty sample."""
        if isinstance(self.count, (int, float)) and not self.count:
            return math.nan
        return self.total / self.count


class Summary(NamedTuple):
    """A mean, the half-width of its 95% interval, and the number of values.

    `ci95` is None for one value, whose spread is unknown.
    """

    mean: float
    ci95: float | None
    n: int

    def __str__(self) -> str:
        """Return mean and interval with two decimals."""
        half = "" if self.ci95 is None else f" ± {self.ci95:.2f}"
        return f"{self.mean:.2f}{half}"

    def metric(self, *, over: str, unit: str) -> dict[str, Any]:
        """The entry of a result file, with what was averaged over and the unit."""
        return {**self._asdict(), "over": over, "unit": unit}


def summarize(values: Values) -> Summary:
    """Mean and 95% t-interval, `mean ± t(n - 1) sd / sqrt(n)` with ddof 1.

    Args:
        values: the sample, in any unit.

    Raises:
        ValueError: no values, or one that is not finite.

    Example:
        >>> print(summarize([98.0, 99.0, 100.0]))
        99.00 ± 2.48
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not sample.size:
        raise ValueError(
            f"expected a list of at least one value, got shape {sample.shape}"
        )
    if bad := np.flatnonzero(~np.isfinite(sample)).tolist():
        raise ValueError(f"expected finite values, got {sample[bad[0]]} at {bad[0]}")
    n = sample.size
    if n == 1:
        return Summary(float(sample[0]), None, 1)
    half = _quantile(n - 1) * sample.std(ddof=1) / np.sqrt(n)
    return Summary(float(sample.mean()), float(half), n)


def paired(values: Values, baseline: Values) -> Summary:
    """Mean and interval of `values - baseline`, pair by pair.

    Two methods measured on the same episodes share the difficulty of these episodes;
    it cancels in the differences.

    Raises:
        ValueError: lists of different lengths, or values that `summarize` refuses.

    Example:
        >>> print(paired([98.0, 99.0, 100.0], [97.0, 98.1, 98.9]))
        1.00 ± 0.25
    """
    one, other = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    if one.shape != other.shape:
        raise ValueError(
            f"expected two lists of equal length, got {one.shape} and {other.shape}"
        )
    return summarize(one - other)


def unpaired(values: Values, baseline: Values) -> Summary:
    """The difference of two means, and its 95% interval by Welch's t-test.

    `t(v) sqrt(s1^2/n1 + s2^2/n2)`, v by Welch and Satterthwaite, for independent
    samples. `paired` is better for samples measured on the same episodes or seeds.

    Returns:
        The summary; its `n` is the size of the smaller sample.

    Raises:
        ValueError: values that `summarize` refuses.

    Example:
        >>> print(unpaired([98.0, 99.0, 100.0], [97.0, 98.0, 99.0]))
        1.00 ± 2.27
    """
    one, other = summarize(values), summarize(baseline)
    difference, n = one.mean - other.mean, min(one.n, other.n)
    if n == 1:
        return Summary(difference, None, 1)
    parts = [np.asarray(x, np.float64).var(ddof=1) / len(x) for x in (values, baseline)]
    if not sum(parts):
        return Summary(difference, 0.0, n)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (size - 1) for part, size in zip(parts, (one.n, other.n), strict=True)
    )
    half = _quantile(freedom) * np.sqrt(sum(parts))
    return Summary(difference, float(half), n)


def over_seeds(runs: Sequence[Values]) -> Summary:
    """The mean over runs of each run's mean, with the interval over the runs.

    Args:
        runs: one list of values per seed, such as accuracies per episode.

    Raises:
        ValueError: values that `summarize` refuses.

    Example:
        >>> over_seeds([[98.0, 99.0], [97.0, 98.0], [99.0, 100.0]]).n
        3
    """
    return summarize([summarize(run).mean for run in runs])


def accuracies(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> dict[str, float]:
    """Two accuracies in percent: the mean over images, and the mean over classes.

    They differ where classes have different numbers of images: the first is dominated
    by large classes, the second counts each class once.

    Args:
        predicted: `[n]` integers; -1 is always wrong.
        labels: `[n]` integers, 0 to `num_classes` - 1.
        num_classes: number of classes; those without images are left out.

    Raises:
        ValueError: no images, or not one prediction per label.

    Example:
        >>> accuracies(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), 2)
        {'accuracy': 75.0, 'balanced_accuracy': 50.0}
    """
    if predicted.shape != labels.shape or not labels.size:
        raise ValueError(
            f"expected one prediction per label, got {predicted.shape} for "
            f"{labels.shape}"
        )
    hits = predicted == labels
    counts = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels, hits, num_classes)
    seen = counts > 0
    return {
        "accuracy": 100 * float(hits.mean()),
        "balanced_accuracy": 100 * float((right[seen] / counts[seen]).mean()),
    }


class Decoupling(NamedTuple):
    """How much accuracy frozen transfer costs, by cause, in the unit of the accuracies.

    Attributes:
        co_adaptation: base - BnB, lost because co-adapted layers were separated.
        specificity: BnB - AnB, lost because the layers were trained on another task.
        excess: specificity - co_adaptation.
    """

    co_adaptation: Summary
    specificity: Summary
    excess: Summary

    @property
    def dominant(self) -> str | None:
        """The larger loss, if it is above 0 and above the other one; else None.

        'Above' means that the 95% intervals of the loss and of the difference of both
        losses exclude 0.
        """
        name = "specificity" if self.excess.mean > 0 else "co_adaptation"
        for mean, half in (
            (abs(self.excess.mean), self.excess.ci95),
            getattr(self, name)[:2],
        ):
            if half is None or mean <= half:
                return None
        return name


def decouple(base: Values, bnb: Values, anb: Values) -> Decoupling:
    """The two losses of frozen transfer at one n, paired by target.

    Yosinski et al. 2014, section 4.1: base - AnB = (base - BnB) + (BnB - AnB).

    Args:
        base: accuracies of the base networks, one per target.
        bnb: accuracies of the selffer networks BnB, for the same targets.
        anb: accuracies of the transfer networks AnB, for the same targets.

    Raises:
        ValueError: lists of different lengths.

    Example:
        >>> lost = decouple([60.0, 62.0, 61.0], [59.0, 61.1, 60.1], [55.0, 56.9, 56.2])
        >>> print(lost.co_adaptation, "and", lost.specificity, lost.dominant)
        0.93 ± 0.14 and 4.03 ± 0.38 specificity
    """
    of_each = [np.asarray(x, np.float64) for x in (base, bnb, anb)]
    broken, specific = (paired(*of_each[i : i + 2]) for i in (0, 1))
    # (BnB - AnB) - (base - BnB), target by target.
    return Decoupling(broken, specific, paired(2 * of_each[1], of_each[0] + of_each[2]))


def _quantile(freedom: float | int) -> float:
    """The 97.5% quantile of Student's t distribution."""
    # Imported here, since SciPy takes long to load.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
