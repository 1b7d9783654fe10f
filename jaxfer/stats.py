"""Numbers worth reporting: means that merge, and means with their intervals.

Accuracies over episodes, seeds or splits are reported with a 95% interval of the mean
by Student's t distribution, from the standard deviation with one degree of freedom
taken off (ddof 1). The interval speaks of what was averaged over and of nothing else.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float
from scipy.special import stdtrit

from jaxfer.types import AnyArray

Values = AnyArray | Sequence[float]


class Mean(NamedTuple):
    """A mean as (total, count), so that ragged batches and hosts merge exactly."""

    total: float | Float[Array, ""]
    count: float | Float[Array, ""]

    def merge(self, other: "Mean") -> "Mean":
        """The mean of both samples together."""
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float | Float[Array, ""]:
        """The mean itself."""
        return self.total / self.count


class Summary(NamedTuple):
    """A mean, the half-width of its 95% interval, and how many values it is of.

    `ci95` is None where there is only one value: nothing is known of its spread.
    """

    mean: float
    ci95: float | None
    n: int

    def __str__(self) -> str:
        """Mean and interval to two decimals."""
        half = "" if self.ci95 is None else f" ± {self.ci95:.2f}"
        return f"{self.mean:.2f}{half}"

    def metric(self, *, over: str, unit: str) -> dict[str, Any]:
        """The entry of a result file: what was averaged, over what, in which unit."""
        return {**self._asdict(), "over": over, "unit": unit}


def summarize(values: Values) -> Summary:
    """Mean and 95% t-interval, `mean ± t(n - 1) sd / sqrt(n)` with ddof 1.

    Args:
        values: one a member of the sample, any unit.

    Raises:
        ValueError: no values, or one that is not finite.

    Example:
        >>> print(summarize([98.0, 99.0, 100.0]))
        99.00 ± 2.48
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not sample.size:
        raise ValueError(
            f"found values of shape {sample.shape}, needed a list of at least one"
        )
    if bad := np.flatnonzero(~np.isfinite(sample)).tolist():
        raise ValueError(f"value {bad[0]} is {sample[bad[0]]}, needed finite numbers")
    n = sample.size
    if n == 1:
        return Summary(float(sample[0]), None, 1)
    half = stdtrit(n - 1, 0.975) * sample.std(ddof=1) / np.sqrt(n)
    return Summary(float(sample.mean()), float(half), n)


def paired(values: Values, baseline: Values) -> Summary:
    """Mean and interval of `values - baseline`, member by member.

    Two methods measured on the same episodes share the luck of the draw; their
    difference, pair by pair, does not carry it.

    Raises:
        ValueError: lists of different lengths.

    Example:
        >>> print(paired([98.0, 99.0, 100.0], [97.0, 98.1, 98.9]))
        1.00 ± 0.25
    """
    one, other = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    if one.shape != other.shape:
        raise ValueError(
            f"found {one.shape} values against {other.shape}, needed pairs"
        )
    return summarize(one - other)


def unpaired(values: Values, baseline: Values) -> Summary:
    """The difference of two means, and its 95% interval by Welch's t-test.

    `t(v) sqrt(s1^2/n1 + s2^2/n2)`, v by Welch and Satterthwaite: for samples that have
    nothing in common. Those that have are better compared by `paired`.

    Returns:
        The summary, `n` of which is the size of the smaller sample.

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
    half = stdtrit(freedom, 0.975) * np.sqrt(sum(parts))
    return Summary(difference, float(half), n)


def over_seeds(runs: Sequence[Values]) -> Summary:
    """Mean over runs of each run's mean; the interval is that over the runs.

    Args:
        runs: for each seed, its values (per-episode accuracies, say).

    Example:
        >>> over_seeds([[98.0, 99.0], [97.0, 98.0], [99.0, 100.0]]).n
        3
    """
    return summarize([summarize(run).mean for run in runs])
