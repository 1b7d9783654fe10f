"""Findings on made-up accuracies, and the tool that draws them."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.layer_transfer_result import differences, findings

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("0A", "0B", "1A", "1B")
NOISE = (-0.3, 0.1, 0.3, -0.1)


def _cell(level, noise=NOISE):
    return {name: level + x for name, x in zip(TARGETS, noise, strict=True)}


def _paper():
    """What the paper found, in numbers."""
    cells = {("similar", "base", 0): _cell(60.0, (-2.0, 1.0, 2.0, -1.0))}
    base = cells["similar", "base", 0]

    def less(loss):
        return {t: x - loss + e for (t, x), e in zip(base.items(), NOISE, strict=True)}

    for n, bnb, anb in ((1, 0.0, 0.0), (4, 2.0, 3.0), (7, 0.0, 9.0)):
        cells["similar", "BnB", n] = less(bnb)
        cells["similar", "BnB+", n] = less(-1.0)
        cells["similar", "AnB", n] = less(anb)
        cells["similar", "AnB+", n] = less(-2.0)
        cells["dissimilar", "AnB", n] = _cell(50.0 - 4 * n)
        cells["untrained", "random", n] = _cell(40.0 - 8 * (n - 1) ** 0.5)
    cells["dissimilar", "base", 0] = _cell(50.0)
    cells["untrained", "base", 0] = _cell(45.0)
    return cells


def test_the_findings_of_the_paper_are_seen_where_they_are():
    found = findings(_paper())
    seen = {name: row["seen"] for name, row in found.items()}
    assert seen.pop("5/random/n7") is False
    assert seen.pop("5/random/n1") is True
    assert all(seen.values()), seen
    assert {name.split("/")[0] for name in seen} == set("12345")
    assert found["1/n4"]["difference"]["mean"] == pytest.approx(-2)
    assert found["3/specificity"]["difference"]["mean"] == pytest.approx(9)


def test_what_is_the_other_way_round_is_not_seen_and_noise_is_undecided():
    cells = _paper()
    cells["similar", "AnB", 7] = cells["similar", "AnB+", 7]
    cells["similar", "BnB", 4] = {
        t: x + e
        for (t, x), e in zip(
            cells["similar", "base", 0].items(), (-4.0, 3.0, 5.0, -4.5), strict=True
        )
    }
    found = findings(cells)
    assert found["3/falls"]["seen"] is False
    assert found["1/n4"]["seen"] is None


def test_one_n_or_none_makes_no_trend():
    cells = {k: v for k, v in _paper().items() if k[2] in (0, 7)}
    assert "3/falls" not in findings(cells)
    assert findings({k: v for k, v in cells.items() if not k[2]}) == {}


def test_decoupling_stands_beside_the_papers_unpaired_way():
    found = differences(_paper())
    for name, mean in (("co_adaptation", 2.0), ("specificity", 1.0)):
        paired = found[f"similar/n4/decoupling/{name}"]
        unpaired = found[f"similar/n4/decoupling/{name}_unpaired"]
        assert paired["mean"] == pytest.approx(mean)
        assert unpaired["mean"] == pytest.approx(mean)
        # The spread between targets is in the one and not in the other.
        assert unpaired["ci95"] > 3 * paired["ci95"]
    assert found["similar/n7/decoupling/dominant"]["is"] == "specificity"


def test_a_base_network_at_zero_has_no_ratio():
    cells = _paper()
    cells["dissimilar", "base", 0] = dict.fromkeys(TARGETS, 0.0)
    assert "dissimilar/n1/AnB/relative_to_base" not in differences(cells)
    assert not [name for name in findings(cells) if name.startswith("5")]


def test_the_tool_refuses_what_is_no_study(tmp_path):
    def run(folder):
        tool = str(ROOT / "tools" / "paper_figures.py")
        return subprocess.run(
            [sys.executable, tool, str(folder)], capture_output=True, text=True
        )

    done = run(tmp_path)
    assert done.returncode == 2 and "found no" in done.stderr
    (tmp_path / "result.json").write_text('{"experiment": "prototypes"}')
    done = run(tmp_path)
    assert done.returncode == 2 and "a result of prototypes" in done.stderr
