"""Claims as data: which difference is compared, how it is paired, what counts as seen.

A study produces tidy rows: one dictionary per measured value, with its member's
properties, a `metric` and a `value`. A claim names the two selections of rows that it
compares; its verdict is computed from their difference and its 95% interval.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxfer.stats import Summary, paired, unpaired
from jaxfer.tables import markdown

Row = Mapping[str, Any]
Expected = Literal["above", "below", "equal"]


@dataclass(frozen=True)
class Claim:
    """A difference that a paper makes a statement about.

    Attributes:
        name: a short name, unique within a study.
        what: the difference in words, such as "AnB - base".
        one: properties of the rows that are compared.
        other: properties of the rows that they are compared with.
        metric: the metric of both selections.
        over: the properties that identify a repetition: rows that share them are
            averaged, and the interval is over repetitions.
        match: 'paired' takes differences within a repetition, 'unpaired' compares means
            of different repetitions (Welch).
        within: properties that pair the two sides inside a repetition, such as the
            target task: their differences are averaged before the interval is taken.
        expects: what the paper finds; None where the paper makes no claim.
        tolerance: for 'equal', the greatest distance from 0 that counts as equal.
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

    'above' is confirmed if the whole interval is above 0, and refuted if it is below 0;
    'below' swaps the two; 'equal' is confirmed if the whole interval is within the
    tolerance of 0, and refuted if all of it is outside.

    Returns:
        True if confirmed ("seen" in tables), False if refuted ("not seen"), None if
        undecided: the interval allows both, it is missing, or nothing is expected.

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
    """Return the rows that have the given properties.

    A tuple as a value accepts any of its elements.

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
    """The difference that a claim is about, or None where its rows are missing.

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
        claims: the claims to judge; those without rows are left out.
        unit: the unit of the differences.

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
    """Return findings as a Markdown table.

    Args:
        findings: the findings, made by `judge`.
    """
    words = {True: "seen", False: "not seen", None: "undecided"}
    rows = []
    for name, found in findings.items():
        metric, expects = found["difference"], found["expects"]
        value = str(Summary(metric["mean"], metric["ci95"], metric["n"]))
        shown = words[found["seen"]] if expects else ""
        rows.append([name, found["what"], value, expects or "", shown])
    return markdown(["claim", "difference", "value", "expected", "verdict"], rows)


# The values of `Claim.over` and of `Claim.within` for a row.
_Key = tuple[tuple[Any, ...], tuple[Any, ...]]


def _means(
    rows: Iterable[Row], claim: Claim, wanted: Mapping[str, Any]
) -> dict[_Key, float]:
    """The means of one side, by repetition and pair."""
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
