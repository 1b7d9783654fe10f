"""The averages on the progress bar, against their definition."""

import io
import sys

import numpy as np
import pytest

from jaxfer.progress import Progress

EVERY = 4


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _open_terminal(monkeypatch):
    # Called in the test, since pytest replaces stderr when the test begins.
    shown = _Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def _bar(**options):
    how = {"total": 100, "start": 0, "unit": "image", "every": EVERY, "leave": True}
    return Progress("train", **how, show=True, **options)


@pytest.mark.parametrize("per_call", [1, 3, 20])
def test_averages_are_exponential_and_without_bias_at_the_start(monkeypatch, per_call):
    terminal = _open_terminal(monkeypatch)
    losses = np.random.default_rng(0).normal(size=20)
    bar = _bar()
    for start in range(0, 20, per_call):
        part = losses[start : start + per_call].tolist()
        bar.update(len(part), {"loss": part})
    weights = (1 - 1 / EVERY) ** np.arange(19, -1, -1)
    expected = (weights * losses).sum() / weights.sum()
    assert bar.averages() == {"loss": f"{expected:.3f}"}
    bar.close()
    assert f"loss={expected:.3f}" in terminal.getvalue()


def test_averages_move_by_at_most_their_share_of_a_step(monkeypatch):
    """A mean that starts anew every few steps would jump; this one does not."""
    _open_terminal(monkeypatch)
    bar = _bar()
    seen = []
    for i in range(40):
        bar.update(1, {"loss": [float(i % 2)]})
        seen.append(float(bar.averages()["loss"]))
    bar.close()
    jumps = np.abs(np.diff(seen[2 * EVERY :]))
    assert jumps.max() <= 1 / EVERY + 0.001


def test_a_bar_that_does_not_stay_is_for_terminals_only(monkeypatch):
    terminal = _open_terminal(monkeypatch)
    how = {"total": 9, "start": 0, "unit": "image", "every": 2, "show": True}
    bar = Progress("base", **how, leave=False)
    bar.update(9, {"loss": [1.0]})
    bar.close()
    assert "base" in terminal.getvalue()
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    bar = Progress("base", **how, leave=False)
    bar.update(9, {"loss": [1.0]})
    bar.close()
    assert file.getvalue() == ""
