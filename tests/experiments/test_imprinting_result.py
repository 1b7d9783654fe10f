"""Scores of imprinting and what is claimed of them, by hand."""

import numpy as np
import pytest

from experiments.imprinting_config import Config
from experiments.imprinting_result import findings, score

CONFIG = Config()


def test_scores_by_a_loop():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 60), rng.integers(0, 5, 60)
    scores, recall = score(predicted, labels, 3, "abcde")
    hit = [p == t for p, t in zip(predicted, labels, strict=True)]
    base = [h for h, t in zip(hit, labels, strict=True) if t < 3]
    novel = [h for h, t in zip(hit, labels, strict=True) if t >= 3]
    b, n = 100 * sum(base) / len(base), 100 * sum(novel) / len(novel)
    expected = {"base": b, "novel": n, "all": 100 * sum(hit) / 60}
    assert scores == pytest.approx({**expected, "harmonic": 2 * b * n / (b + n)})
    for c in range(5):
        own = [h for h, t in zip(hit, labels, strict=True) if t == c]
        assert recall[c] == pytest.approx(100 * sum(own) / len(own))


def test_findings_are_paired_by_seed():
    cells = {
        ("imprinting", 1): {s: {"novel": 20.0 + s, "all": 0.0} for s in range(3)},
        ("rand_noft", 1): {s: {"novel": s / 10, "all": 0.0} for s in range(3)},
        ("rand_ft", 1): {s: {"novel": 30.0 + s, "all": 0.0} for s in (0, 2)},
    }
    found = findings(cells, CONFIG)
    assert found["1/n1"]["difference"]["mean"] == pytest.approx(20 + 0.9)
    assert found["1/n1"]["seen"] is True
    assert found["2/n1"]["difference"] == {
        "mean": -10.0,
        "ci95": 0.0,
        "n": 2,
        "over": "seeds",
        "unit": "%",
    }
    assert found["2/n1"]["seen"] is False and "4/n1" not in found


@pytest.mark.parametrize(
    ("mean", "ci95", "above", "below", "equal"),
    [
        (3.0, 2.5, True, False, None),
        (-3.0, 2.5, False, True, None),
        (0.8, 1.1, None, None, True),
        (0.5, 1.0, None, None, True),
        (0.5, 4.0, None, None, None),
        (-4.0, 1.0, False, True, False),
        (4.0, None, None, None, None),
    ],
)
def test_a_claim_is_seen_where_its_interval_says_so(mean, ci95, above, below, equal):
    # Paired differences of two seeds whose mean and interval these are.
    spread = 0.0 if ci95 is None else ci95 / 12.706204736432095
    apart = [mean] if ci95 is None else [mean - spread, mean + spread]
    less = {s: {"novel": 50.0, "all": 50.0} for s in range(len(apart))}
    more = {s: {"novel": 50.0 + x, "all": 50.0} for s, x in enumerate(apart)}
    for number, row, other, seen in (
        ("2", "imprinting", "rand_ft", above),
        ("8", "joint", "imprinting_ft", below),
        ("3", "imprinting_aug", "imprinting", equal),
    ):
        found = findings({(row, 5): more, (other, 5): less}, CONFIG)
        assert found[f"{number}/n5"]["seen"] is seen, number
    found = findings({("joint_cosine", 5): more, ("imprinting_ft", 5): less}, CONFIG)
    assert "seen" not in found["8/cosine/n5"]
