"""Claims as data: which difference is compared, how it is paired, what counts as seen.

A study leaves tidy rows: one dictionary per measured value, with its member's
properties, a `metric` and a `value`. A claim names the two selections of rows that it
compares; its verdict is computed from their difference and its interval, never typed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxfer.stats import Summary, paired, unpaired

Row = Mapping[str, Any]
Expected = Literal["above", "below", "equal"]


@dataclass(frozen=True)
class Claim:
    """A difference that a paper speaks of.

    Attributes:
        name: short, unique within a study.
        what: the difference in words, as "AnB - base".
        one: properties of the rows that are compared.
        other: properties of the rows that they are compared with.
        metric: of both.
        over: the properties that make a repetition: rows that share them are averaged,
            and the interval is over repetitions.
        match: 'paired' takes differences within a repetition, 'unpaired' compares means
            of different repetitions (Welch).
        within: properties that pair the two sides inside a repetition, such as the
            target task: their differences are averaged before the interval is taken.
        expects: what the paper finds; None for a difference that nobody claims.
        tolerance: for 'equal', how far from 0 still counts as equal.
    """

    name: str
    what: str
    one: Mapping[str, Any]
    other: Mapping[str, Any]
    metric: str = "accuracy"
    over: tuple[str, ...] = ("seed",)
    match: Literal["paired", "unpaired"] = "paired"
    within: tuple[str, ...] = ()
    expects: Expected | None = "above"
    tolerance: float = 0.0


def verdict(
    difference: Summary, expects: Expected | None, tolerance: float = 0.0
) -> bool | None:
    """Whether a difference is what was expected, by its 95% interval.

    'above' is seen where the whole interval is above 0 and not seen where it is below;
    'below' is its mirror; 'equal' is seen where the interval lies within the tolerance
    of 0 and not seen where it lies outside of it.

    Returns:
        True for seen, False for not seen, None for undecided: the interval holds both,
        there is no interval, or nothing is expected.

    Example:
        >>> wide, narrow = Summary(2.0, 3.0, 5), Summary(2.0, 0.5, 5)
        >>> verdict(narrow, "above"), verdict(wide, "above")
        (True, None)
    """
    if expects is None or difference.ci95 is None:
        return None
    low = difference.mean - difference.ci95
    high = difference.mean + difference.ci95
    if expects == "equal":
        if -tolerance <= low and high <= tolerance:
            return True
        return False if low > tolerance or high < -tolerance else None
    if expects == "below":
        low, high = -high, -low
    return True if low > 0 else False if high < 0 else None


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows that have some properties.

    A tuple as value accepts any of its members.

    Example:
        >>> rows = [{"n": 1, "value": 2.0}, {"n": 3, "value": 4.0}]
        >>> select(rows, n=3)
        [{'n': 3, 'value': 4.0}]
    """

    def fits(row: Row) -> bool:
        return all(
            row.get(name) in value
            if isinstance(value, tuple)
            else row.get(name) == value
            for name, value in wanted.items()
        )

    return [row for row in rows if fits(row)]


def difference(rows: Sequence[Row], claim: Claim) -> Summary | None:
    """The difference that a claim speaks of, or None where rows for it are missing.

    Example:
        >>> rows = [
        ...     {"seed": s, "row": r, "metric": "novel", "value": v + s}
        ...     for s in (0, 1)
        ...     for r, v in (("imprinting", 20.0), ("random", 5.0))
        ... ]
        >>> claim = Claim("1", "", {"row": "imprinting"}, {"row": "random"}, "novel")
        >>> difference(rows, claim).mean
        15.0
    """
    one, other = (_means(rows, claim, side) for side in (claim.one, claim.other))
    if claim.match == "unpaired":
        sides = [_by_repetition(side) for side in (one, other)]
        if not all(sides):
            return None
        return unpaired(*([*side.values()] for side in sides))
    shared = [key for key in one if key in other]
    if not shared:
        return None
    sides = [
        _by_repetition({key: side[key] for key in shared}) for side in (one, other)
    ]
    return paired(*([*side.values()] for side in sides))


def judge(
    rows: Sequence[Row], claims: Iterable[Claim], *, unit: str = "%"
) -> dict[str, dict[str, Any]]:
    """The findings of a study: each claim's difference and whether it is seen.

    Claims whose rows are missing are left out.

    Args:
        rows: tidy rows of the study.
        claims: what is compared.
        unit: of the differences.

    Example:
        >>> rows = [
        ...     {"seed": i, "kind": kind, "metric": "accuracy", "value": value + i}
        ...     for i in range(3)
        ...     for kind, value in (("AnB", 40.0), ("base", 45.0))
        ... ]
        >>> claim = Claim("1", "AnB - base", {"kind": "AnB"}, {"kind": "base"})
        >>> judge(rows, [claim])["1"]["seen"]
        False
    """
    found = {}
    for claim in claims:
        value = difference(rows, claim)
        if value is None:
            continue
        found[claim.name] = {
            "what": claim.what,
            "difference": value.metric(over=" x ".join(claim.over), unit=unit),
            "expects": claim.expects,
            "seen": verdict(value, claim.expects, claim.tolerance),
        }
    return found


def findings_table(findings: Mapping[str, Mapping[str, Any]]) -> str:
    """Findings as a Markdown table.

    Args:
        findings: of `judge`.
    """
    words = {True: "seen", False: "not seen", None: "undecided"}
    lines = ["| claim | difference | value | expected | verdict |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, found in findings.items():
        metric, expects = found["difference"], found["expects"]
        value = str(Summary(metric["mean"], metric["ci95"], metric["n"]))
        shown = words[found["seen"]] if expects else ""
        lines.append(
            f"| {name} | {found['what']} | {value} | {expects or ''} | {shown} |"
        )
    return "\n".join(lines)


# A repetition, and what pairs rows inside of it.
_Key = tuple[tuple[Any, ...], tuple[Any, ...]]


def _means(
    rows: Iterable[Row], claim: Claim, wanted: Mapping[str, Any]
) -> dict[_Key, float]:
    """Means of one side by repetition and pair."""
    grouped: dict[_Key, list[float]] = defaultdict(list)
    for row in select(rows, metric=claim.metric, **wanted):
        repetition = tuple(row.get(name) for name in claim.over)
        pair = tuple(row.get(name) for name in claim.within)
        grouped[repetition, pair].append(row["value"])
    return {key: float(np.mean(values)) for key, values in grouped.items()}


def _by_repetition(values: Mapping[_Key, float]) -> dict[tuple[Any, ...], float]:
    grouped: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for (repetition, _), value in values.items():
        grouped[repetition].append(value)
    return {key: float(np.mean(grouped[key])) for key in sorted(grouped, key=repr)}
