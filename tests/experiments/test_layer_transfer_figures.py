"""What is on the figures of layer transfer, for made-up results."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex

from experiments import plots, studies
from experiments.inputs import Network
from experiments.layer_transfer import figures as layer_transfer
from experiments.layer_transfer.config import Config, Data, Grid
from experiments.layer_transfer.members import transfers
from experiments.layer_transfer.report import tidy_rows
from jaxfer.claims import select
from jaxfer.config import to_json
from tests.experiments.drawn import (
    PALETTE,
    assert_readable,
    bars_of,
    labels_of,
    marked,
    title_of,
)

pytestmark = pytest.mark.usefixtures("in_style")

LAYERS = (1, 3, 7)
KINDS = ("base", "base+", "base3", "BnB", "BnB+", "AnB", "AnB+", "AnB-thaw")


def _transfer_result(splits=(0, 1), seeds=(0, 1), **changes):
    """A study whose accuracies are known functions of treatment, n, half and seed."""
    config = Config(
        data=Data("glyphs", side=14),
        net=Network(),
        similar=Grid(splits=splits, treatments=KINDS),
        dissimilar=Grid("family", splits=(0,), seeds=seeds, treatments=("base", "AnB")),
        untrained=Grid(
            "whole", splits=(0,), seeds=seeds, treatments=("base", "random")
        ),
        layers=LAYERS,
    )
    config = dataclasses.replace(config, **changes)
    names = [
        f"{kind}0/character{i}" for kind in ("angular", "curved") for i in range(4)
    ]
    queue = transfers(config, names, 7)
    records = {}
    for m in queue:
        t = m.target
        accuracy = 60.0 + 8 * (t.half == "B") + 5 * t.split + t.seed
        accuracy -= {"AnB": 3, "random": 7, "BnB": 1}.get(m.kind, -1) * m.n
        accuracy += t.split * m.n * (m.kind == "AnB+")
        scores = ("accuracy", "balanced_accuracy", "train_accuracy")
        records[m.name] = dict.fromkeys(scores, accuracy)
    return {"config": to_json(config), "rows": tidy_rows(queue, records)}


@pytest.fixture(scope="module")
def transfer():
    with plots.style():
        result = _transfer_result()
        similar = select(result["rows"], grid="similar")
        return {
            "result": result,
            "treatments": layer_transfer.treatments(similar, result["config"]),
            "distance": layer_transfer.distance(result["rows"], result["config"]),
        }


@pytest.mark.parametrize("name", ["treatments", "distance"])
def test_figures_of_layer_transfer_are_readable(transfer, name, monkeypatch):
    figure = transfer[name]
    assert_readable(figure, monkeypatch)
    assert title_of(figure).startswith("Simulated glyphs, 14x14 pixels, AlexNetSmall: ")
    for axes in figure.axes:
        assert not axes.spines["top"].get_visible()
        assert not axes.spines["right"].get_visible()


def test_every_network_is_drawn_at_its_true_n(transfer):
    grid = transfer["treatments"].axes
    shown = select(transfer["result"]["rows"], grid="similar", metric="accuracy")
    for axes, letter in zip(grid[:2], "BA", strict=True):
        points = sorted(tuple(p) for line in marked(axes) for p in line.get_xydata())
        expected = [
            (row["n"], row["value"])
            for row in shown
            if row["treatment"].startswith(("base", letter))
        ]
        assert points == sorted(expected)
    for axes in grid:
        assert [*axes.get_xticks()] == [0, 1, 3, 7]


def test_treatments_differ_by_colour_or_by_marker_and_filling(transfer):
    looks = {}
    for figure in (transfer["treatments"], transfer["distance"]):
        for axes in figure.axes:
            for line in marked(axes):
                colour = to_hex(line.get_color())
                assert colour in PALETTE
                look = (line.get_marker(), to_hex(line.get_markerfacecolor()))
                looks.setdefault(colour, set()).add(look)
    frozen, tuned = looks["#d55e00"], looks["#e69f00"]
    assert ("D", "#d55e00") in frozen and tuned == {("D", "#ffffff")}
    assert looks["#0072b2"] == {("s", "#0072b2")}
    assert looks["#56b4e9"] == {("s", "#ffffff")}
    # Both further base networks are grey, with markers of their own.
    assert len(looks["#888888"]) == 2


def test_halves_have_markers_and_line_styles_and_no_colours_of_their_own(transfer):
    left = transfer["distance"].axes[0]
    halves = [line for line in marked(left) if len(line.get_xdata()) > 1]
    assert len(halves) == 4
    assert {to_hex(line.get_color()) for line in halves} == {"#d55e00"}
    looks = {(line.get_marker(), line.get_linestyle()) for line in halves}
    assert looks == {("^", "-"), ("v", "--")}
    labels = labels_of(transfer["distance"])
    assert {"target: angular glyphs", "target: curved glyphs"} < {*labels}


def test_figure_3_subtracts_the_base_networks(transfer):
    right = transfer["distance"].axes[-1]
    means = {line.get_label(): dict(line.get_xydata()) for line in marked(right)}
    assert means == {
        "AnB, random halves (2 splits)": {0: 0, 1: -3, 3: -9, 7: -21},
        "AnB, dissimilar halves (2 seeds)": {0: 0, 1: -3, 3: -9, 7: -21},
        "untrained layers (2 seeds)": {0: 0, 1: -7, 3: -21, 7: -49},
    }
    assert right.get_ylabel() == "percentage points"
    left = transfer["distance"].axes[0]
    assert left.get_ylabel() == "test accuracy (%)"
    assert left.get_xlabel() == "n, number of copied layers"


def test_intervals_are_explained_or_left_out(transfer, monkeypatch):
    assert "95% intervals over 2 splits" in title_of(transfer["treatments"])
    assert "95% intervals over 2 splits or 2 seeds" in title_of(transfer["distance"])
    # AnB+ differs by 7 points between two splits at n = 7: an interval of 44.
    below = transfer["treatments"].axes[3]
    ends = np.concatenate([b.get_segments() for b in bars_of(below)]).reshape(-1, 2)
    assert ends[:, 1].max() > 50 > 15 > below.get_ylim()[1]
    result = _transfer_result(splits=(0,), seeds=(0,))
    similar = select(result["rows"], grid="similar")
    alone = [
        layer_transfer.treatments(similar, result["config"]),
        layer_transfer.distance(result["rows"], result["config"]),
    ]
    for figure in alone:
        assert_readable(figure, monkeypatch)
        assert "One seed, no intervals." in title_of(figure)
        assert not any(b.get_segments() for axes in figure.axes for b in bars_of(axes))
    assert "untrained layers (one seed)" in labels_of(alone[1])


def test_figure_3_has_a_panel_for_each_grid_there_is(monkeypatch):
    result = _transfer_result(dissimilar=Grid("family", splits=()))
    figure = layer_transfer.distance(result["rows"], result["config"])
    assert [axes.get_title("left") for axes in figure.axes] == [
        *("untrained layers", "difference from base")
    ]
    assert_readable(figure, monkeypatch)


def test_filters_are_tiled_with_lines_between_them():
    kernel = np.arange(3 * 3 * 1 * 5, dtype=float).reshape(3, 3, 1, 5)
    tiles = layer_transfer._mosaic(kernel)
    # Two rows of three filters, each weight a square of 8 pixels.
    assert tiles.shape == (2 * 28, 3 * 28, 3)
    np.testing.assert_array_equal(tiles[2:10, 30:38], 0)
    np.testing.assert_array_equal(tiles[18:26, 46:54], 1)
    np.testing.assert_array_equal(
        tiles[28:, 56:], np.broadcast_to((0.8, 0.9, 1), (28, 28, 3))
    )


def test_the_style_is_left_when_figures_are_drawn(tmp_path):
    import matplotlib

    result = {"experiment": "layer_transfer", **_transfer_result(splits=(0,))}
    with matplotlib.rc_context({"font.size": 30, "axes.spines.top": True}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layer_transfer, "filters", lambda *_: None)
            paths = studies.draw_figures(tmp_path, result)
        assert matplotlib.rcParams["font.size"] == 30
    assert {p.name for p in paths} == {
        *("treatments.svg", "treatments.png"),
        *("distance.svg", "distance.png"),
    }
    assert "font-size: 8px" in (tmp_path / "figures" / "treatments.svg").read_text()
