"""Claims: verdicts at their boundaries, and differences against plain NumPy."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxfer.claims import Claim, difference, findings_table, judge, select, verdict
from jaxfer.stats import Summary


@pytest.mark.parametrize(
    ("mean", "ci95", "above", "below", "equal"),
    [
        # mean and half-width; then what is said with a tolerance of 1.
        (2.0, 0.5, True, False, False),
        (-2.0, 0.5, False, True, False),
        (2.0, 2.5, None, None, None),
        (0.0, 0.5, None, None, True),
        (0.0, 1.0, None, None, True),
        (0.0, 1.5, None, None, None),
        (0.0, 0.0, None, None, True),
        # An interval that touches 0 holds it.
        (2.0, 2.0, None, None, None),
        (-2.0, 2.0, None, None, None),
        (1.0, 0.0, True, False, True),
        (-1.0, 0.0, False, True, True),
        (1.5, 0.0, True, False, False),
        # One that touches the tolerance from outside is not all outside.
        (1.5, 0.5, True, False, None),
        (-1.5, 0.5, False, True, None),
        (0.5, 0.5, None, None, True),
        (0.75, 0.5, True, False, None),
        # No interval, no verdict.
        (2.0, None, None, None, None),
        (0.0, None, None, None, None),
    ],
)
def test_verdicts_at_the_boundaries(mean, ci95, above, below, equal):
    summary = Summary(mean, ci95, 3)
    assert verdict(summary, "above", 1.0) is above
    assert verdict(summary, "below", 1.0) is below
    assert verdict(summary, "equal", 1.0) is equal
    assert verdict(summary, None, 1.0) is None


def test_equal_without_a_tolerance_needs_an_interval_of_nothing():
    assert verdict(Summary(0.0, 0.0, 2), "equal") is True
    assert verdict(Summary(0.0, 0.1, 2), "equal") is None
    assert verdict(Summary(1.0, 0.1, 2), "equal") is False


def _rows(rng, *, seeds=(0, 1, 2, 3), halves="AB", layers=(1, 2)):
    """Two treatments by seed, half and n, with a large effect of the seed."""
    rows = []
    for seed, half, n in itertools.product(seeds, halves, layers):
        hard = 10 * seed + 3 * (half == "B")
        for kind, level in (("base", 0.0), ("AnB", -2.0)):
            value = 60 + hard + level * n + float(rng.normal())
            rows.append(
                {"seed": seed, "half": half, "n": n, "kind": kind, "value": value}
                | {"metric": "accuracy"}
            )
    return rows


def _value(rows, **wanted):
    (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return row["value"]


def _interval(values):
    values = np.asarray(values)
    half = scipy_stats.t.ppf(0.975, len(values) - 1) * scipy_stats.sem(values)
    return values.mean(), half


def _claim(**how):
    return Claim("1", "AnB - base", {"kind": "AnB"}, {"kind": "base"}, **how)


def test_paired_differences_are_those_of_repetitions(rng):
    rows = _rows(rng)
    each = []
    for seed in range(4):
        pairs = [
            _value(rows, seed=seed, half=half, n=n, kind="AnB")
            - _value(rows, seed=seed, half=half, n=n, kind="base")
            for half in "AB"
            for n in (1, 2)
        ]
        each.append(np.mean(pairs))
    found = difference(rows, _claim(over=("seed",)))
    assert found.n == 4
    np.testing.assert_allclose(found[:2], _interval(each), rtol=1e-12)
    # Nothing is missing here, so it does not matter how pairs are made.
    within = difference(rows, _claim(over=("seed",), within=("half", "n")))
    np.testing.assert_allclose(within[:2], found[:2], rtol=1e-12)


def test_the_order_of_rows_does_not_matter(rng):
    rows = _rows(rng)
    mixed = [rows[i] for i in rng.permutation(len(rows))]
    for match in ("paired", "unpaired"):
        claim = _claim(match=match, within=("half",))
        np.testing.assert_allclose(
            difference(mixed, claim)[:2], difference(rows, claim)[:2], rtol=1e-12
        )


def test_unpaired_differences_are_those_of_welch(rng):
    rows = _rows(rng)
    sides = [
        [
            np.mean([r["value"] for r in rows if r["seed"] == s and r["kind"] == kind])
            for s in range(4)
        ]
        for kind in ("AnB", "base")
    ]
    welch = scipy_stats.ttest_ind(*sides, equal_var=False).confidence_interval(0.95)
    found = difference(rows, _claim(match="unpaired"))
    assert found.mean == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]))
    assert found.mean - found.ci95 == pytest.approx(welch.low)
    assert found.mean + found.ci95 == pytest.approx(welch.high)
    # The spread between seeds is in it, which pairing takes out.
    assert found.ci95 > 5 * difference(rows, _claim()).ci95


def test_sides_of_other_repetitions_are_compared_unpaired(rng):
    rows = _rows(rng)
    rows = [r for r in rows if (r["seed"] < 2) == (r["kind"] == "base")]
    assert difference(rows, _claim(match="paired")) is None
    assert difference(rows, _claim(match="unpaired")).n == 2


def test_pairs_of_which_one_side_is_missing_are_left_out(rng):
    """Half B of seed 0 has no AnB: its base must not count either."""
    rows = _rows(rng, layers=(1,))
    gone = {"seed": 0, "half": "B", "kind": "AnB"}
    kept = [r for r in rows if not all(r[k] == v for k, v in gone.items())]
    each = [
        np.mean(
            [
                _value(rows, seed=seed, half=half, kind="AnB")
                - _value(rows, seed=seed, half=half, kind="base")
                for half in ("A" if seed == 0 else "AB")
            ]
        )
        for seed in range(4)
    ]
    found = difference(kept, _claim(within=("half",)))
    np.testing.assert_allclose(found[:2], _interval(each), rtol=1e-12)
    # Without `within` the half that is missing would show as a difference.
    assert abs(difference(kept, _claim()).mean - found.mean) > 0.2


def test_one_side_may_have_several_rows_for_a_pair(rng):
    """AnB at all n against a base network that has no n."""
    rows = [r for r in _rows(rng) if r["kind"] == "AnB" or r["n"] == 1]
    each = [
        np.mean(
            [
                np.mean([_value(rows, seed=s, half=h, kind="AnB", n=n) for n in (1, 2)])
                - _value(rows, seed=s, half=h, kind="base")
                for h in "AB"
            ]
        )
        for s in range(4)
    ]
    found = difference(rows, _claim(within=("half",)))
    np.testing.assert_allclose(found[:2], _interval(each), rtol=1e-12)


def test_one_repetition_has_no_interval_and_no_verdict(rng):
    found = judge(_rows(rng, seeds=(0,)), [_claim(expects="below")])
    assert found["1"]["difference"]["ci95"] is None
    assert found["1"]["difference"]["n"] == 1
    assert found["1"]["seen"] is None


@pytest.mark.parametrize("match", ["paired", "unpaired"])
@pytest.mark.parametrize("kind", ["AnB", "base"])
def test_claims_without_rows_are_left_out(rng, match, kind):
    rows = select(_rows(rng), kind=kind)
    assert judge(rows, [_claim(match=match)]) == {}
    assert judge([], [_claim(match=match)]) == {}
    assert judge(_rows(rng), [_claim(match=match, metric="loss")]) == {}


def test_selections_by_value_and_by_any_of_several(rng):
    rows = _rows(rng)
    assert len(select(rows, seed=0)) == 8
    assert len(select(rows, seed=(0, 3), kind="base")) == 8
    assert select(rows, seed=()) == [] and select(rows, colour="red") == []
    assert select(rows) == rows


def test_a_finding_says_what_was_compared_and_over_what(rng):
    claim = _claim(over=("seed", "half"), within=("n",), expects="below")
    found = judge(_rows(rng), [claim], unit="points")["1"]
    assert found["what"] == "AnB - base" and found["expects"] == "below"
    metric = found["difference"]
    assert metric["over"] == "seed x half" and metric["unit"] == "points"
    assert metric["n"] == 8 and found["seen"] is True
    assert judge(_rows(rng), [_claim(over=("seed", "half"))])["1"]["seen"] is False


def test_the_table_of_findings():
    def finding(what, mean, ci95, expects, seen):
        metric = Summary(mean, ci95, 3).metric(over="seed", unit="%")
        return {"what": what, "difference": metric, "expects": expects, "seen": seen}

    lines = findings_table(
        {
            "a": finding("one", 2.0, 0.5, "above", True),
            "b": finding("two", 2.0, 0.5, "below", False),
            "c": finding("three", 2.0, 2.5, "equal", None),
            "d": finding("four", 2.0, None, None, None),
        }
    ).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [f"| {' | '.join(line)} |" for line in (cells[0], *cells[2:])] == [
        "| claim | difference | value | expected | verdict |",
        "| a | one | 2.00 ± 0.50 | above | seen |",
        "| b | two | 2.00 ± 0.50 | below | not seen |",
        "| c | three | 2.00 ± 2.50 | equal | undecided |",
        "| d | four | 2.00 |  |  |",
    ]
    assert len(findings_table({}).splitlines()) == 2


def test_values_that_are_not_finite_are_refused(rng):
    rows = _rows(rng)
    rows[0]["value"] = math.nan
    with pytest.raises(ValueError, match="expected finite values, got nan"):
        difference(rows, _claim())
