"""What all figures share: how they are written, their titles and intervals."""

import doctest
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.collections import PolyCollection
from matplotlib.image import imread

from experiments import plots, studies
from tests.experiments.drawn import assert_readable, bars_of, title_of

pytestmark = pytest.mark.usefixtures("in_style")


def test_figures_are_written_as_svg_with_text_and_as_png(tmp_path):
    config = {"data.name": "omniglot", "net.name": "Conv4"}
    files = []
    for name in ("a", "b"):
        figure, ((axes,),) = plots.panels(config, (1, 1), 2.0, "what it shows")
        axes.plot([0, 1], [2, 3], label="a line")
        drawn = {"one": figure, "none": None}
        files.append(plots.write(tmp_path / name, drawn))
    assert [path.name for path in files[0]] == ["one.svg", "one.png"]
    for one, again in zip(*files, strict=True):
        assert one.read_bytes() == again.read_bytes()
    text = files[0][0].read_text()
    assert "Omniglot, 28x28 pixels, Conv4: what it shows</text>" in text
    assert "<dc:date>" not in text
    # 200 dots per inch.
    assert imread(files[0][1]).shape[:2] == (400, 200 * plots.WIDTH)


def test_without_matplotlib_there_is_a_note(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "experiments.plots")
    assert studies.draw_figures(tmp_path, {"experiment": "imprinting"}) == []
    assert "matplotlib is not installed" in capsys.readouterr().out


def test_a_long_title_is_wrapped_to_the_page(monkeypatch):
    config = {"data.name": "omniglot", "net.name": "Conv4"}
    figure, _ = plots.panels(config, (1, 1), 3.0, "words of a title " * 8, "a note")
    assert_readable(figure, monkeypatch)
    assert len(title_of(figure).splitlines()) == 3


def test_titles_name_the_data_and_the_network():
    data = {"data.name": "cifar100", "data.side": 16, "net.name": "AlexNetSmall"}
    assert plots.subject(data) == "CIFAR-100, 16x16 pixels, AlexNetSmall"
    data |= {"data.name": "caltech_birds2011", "augment.side": 224, "data.side": 256}
    assert plots.subject(data) == "CUB-200-2011, 224x224 pixels, AlexNetSmall"
    own = {"data.name": "folder", "data.dir": "/data/birds/", "net.name": "my.nets:Own"}
    assert plots.subject(own) == "birds, Own"


def test_the_examples_in_docstrings_hold():
    failed, tried = doctest.testmod(plots)
    assert not failed and tried


def _axes():
    figure, ((axes,),) = plots.panels(
        {"data.name": "glyphs", "net.name": "Conv4"}, (1, 1), 2.5, "means"
    )
    return figure, axes


def _at(*means, ci95):
    return {
        n: {"mean": mean, "ci95": ci95, "n": 2 if ci95 else 1}
        for n, mean in enumerate(means)
    }


def test_intervals_do_not_set_the_limits_and_are_cut(monkeypatch):
    figure, axes = _axes()
    plots.band(axes, _at(50.0, 60.0, ci95=70.0), plots.Mark("one", plots.BLUE))
    assert_readable(figure, monkeypatch)
    low, high = axes.get_ylim()
    assert 48 < low <= 50 and 60 <= high < 62
    (bars,) = bars_of(axes)
    np.testing.assert_allclose(
        bars.get_segments(), [[(0, -20), (0, 120)], [(1, -10), (1, 130)]]
    )
    assert bars.get_clip_on()


def test_one_seed_has_no_interval(monkeypatch):
    figure, axes = _axes()
    plots.band(axes, _at(50.0, 60.0, ci95=None), plots.Mark("one", plots.BLUE))
    assert_readable(figure, monkeypatch)
    assert sum(len(bars.get_segments()) for bars in bars_of(axes)) == 0
    assert not [
        a
        for a in axes.get_children()
        if getattr(a, "get_marker", str)() == "_" and len(a.get_xdata())
    ]


def test_many_means_have_a_band_in_place_of_bars():
    _, axes = _axes()
    plots.band(axes, _at(*range(20), ci95=1.0), plots.Mark("one", plots.BLUE))
    (band,) = axes.collections
    assert isinstance(band, PolyCollection)
    (path,) = band.get_paths()
    assert path.vertices[:, 1].min() == -1 and path.vertices[:, 1].max() == 20
    assert axes.get_ylim()[0] > -1.1 and axes.get_ylim()[1] < 20.1


def test_accuracies_stay_within_0_and_100():
    _, axes = _axes()
    plots.band(axes, _at(0.0, 100.0, ci95=10.0), plots.Mark("one", plots.BLUE))
    plots.percent([axes])
    assert axes.get_ylim() == (0, 100)
    # A marker on the border is not cut.
    assert not axes.lines[0].get_clip_on()
