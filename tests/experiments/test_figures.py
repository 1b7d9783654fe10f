"""What is on the figures: made-up results, drawn and read back from matplotlib."""

import dataclasses
import doctest
import itertools
import json
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from experiments import plots, studies
from experiments.imprinting import config as imprinting_config
from experiments.imprinting import figures as imprinting
from experiments.imprinting.config import Rows
from experiments.imprinting.members import ALONE, networks
from experiments.inputs import Network
from experiments.layer_transfer import figures as layer_transfer
from experiments.layer_transfer.config import Config, Data, Grid
from experiments.layer_transfer.members import transfers
from experiments.layer_transfer.report import tidy_rows
from experiments.prototypes import config as prototypes_config
from experiments.prototypes import figures as prototypes
from experiments.prototypes.config import Evaluation, Task
from jaxfer.claims import select
from jaxfer.config import to_json
from jaxfer.data import Crop
from jaxfer.study import member_folder

PALETTE = {
    *("#000000", "#888888", "#0072b2", "#56b4e9"),
    *("#009e73", "#d55e00", "#e69f00", "#cc79a7"),
}


@pytest.fixture(autouse=True)
def in_style():
    with plots.style():
        yield


# --- What every figure is checked for.


def _render(figure, monkeypatch):
    """Draw a figure, and return the boxes of its texts in pixels."""
    texts, real = [], Text.draw

    def draw(self, renderer):
        if self.get_visible() and self.get_text():
            texts.append(self)
        real(self, renderer)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        canvas.draw()
    return {text: text.get_window_extent() for text in texts}


def _overlap(one, other):
    """Whether boxes overlap by more than a pixel each way."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > 1 and high > 1


def _legends(figure):
    own = [axes.get_legend() for axes in figure.axes]
    return [*figure.legends, *(legend for legend in own if legend)]


def _assert_readable(figure, monkeypatch):
    """Nothing is cut off, nothing overlaps, no legend covers data."""
    boxes = _render(figure, monkeypatch)
    page = figure.bbox
    for text, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1
        inside = inside and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{text.get_text()!r} is cut off"
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not _overlap(a, b), f"{one.get_text()!r} covers {other.get_text()!r}"
    for legend in _legends(figure):
        box = legend.get_window_extent()
        for axes in figure.axes:
            assert not _overlap(box, axes.bbox), "a legend covers data"
    for axes in figure.axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for line in axes.lines:
            is_cap = line.get_marker() == "_"
            if line.get_transform() == axes.transData and not is_cap:
                x, y = np.asarray(line.get_xydata(), float).T
                assert np.all((left <= x) & (x <= right)), axes.get_title()
                assert np.all((low <= y) & (y <= high)), axes.get_title()


def _title(figure):
    return figure.get_suptitle()


def _labels(figure):
    return [text.get_text() for legend in _legends(figure) for text in legend.texts]


def _marked(axes):
    """The lines of axes that stand for treatments, not for zero."""
    return [line for line in axes.lines if line.get_marker() not in ("None", "_")]


def _bars(axes):
    return [c for c in axes.collections if isinstance(c, LineCollection)]


# --- Writing.


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
    _assert_readable(figure, monkeypatch)
    assert len(_title(figure).splitlines()) == 3


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


# --- Means with intervals.


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
    _assert_readable(figure, monkeypatch)
    low, high = axes.get_ylim()
    assert 48 < low <= 50 and 60 <= high < 62
    (bars,) = _bars(axes)
    np.testing.assert_allclose(
        bars.get_segments(), [[(0, -20), (0, 120)], [(1, -10), (1, 130)]]
    )
    assert bars.get_clip_on()


def test_one_seed_has_no_interval(monkeypatch):
    figure, axes = _axes()
    plots.band(axes, _at(50.0, 60.0, ci95=None), plots.Mark("one", plots.BLUE))
    _assert_readable(figure, monkeypatch)
    assert sum(len(bars.get_segments()) for bars in _bars(axes)) == 0
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


# --- Layer transfer.

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
    _assert_readable(figure, monkeypatch)
    assert _title(figure).startswith("Simulated glyphs, 14x14 pixels, AlexNetSmall: ")
    for axes in figure.axes:
        assert not axes.spines["top"].get_visible()
        assert not axes.spines["right"].get_visible()


def test_every_network_is_drawn_at_its_true_n(transfer):
    grid = transfer["treatments"].axes
    shown = select(transfer["result"]["rows"], grid="similar", metric="accuracy")
    for axes, letter in zip(grid[:2], "BA", strict=True):
        points = sorted(tuple(p) for line in _marked(axes) for p in line.get_xydata())
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
            for line in _marked(axes):
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
    halves = [line for line in _marked(left) if len(line.get_xdata()) > 1]
    assert len(halves) == 4
    assert {to_hex(line.get_color()) for line in halves} == {"#d55e00"}
    looks = {(line.get_marker(), line.get_linestyle()) for line in halves}
    assert looks == {("^", "-"), ("v", "--")}
    labels = _labels(transfer["distance"])
    assert {"target: angular glyphs", "target: curved glyphs"} < {*labels}


def test_figure_3_subtracts_the_base_networks(transfer):
    right = transfer["distance"].axes[-1]
    means = {line.get_label(): dict(line.get_xydata()) for line in _marked(right)}
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
    assert "95% intervals over 2 splits" in _title(transfer["treatments"])
    assert "95% intervals over 2 splits or 2 seeds" in _title(transfer["distance"])
    # AnB+ differs by 7 points between two splits at n = 7: an interval of 44.
    below = transfer["treatments"].axes[3]
    ends = np.concatenate([b.get_segments() for b in _bars(below)]).reshape(-1, 2)
    assert ends[:, 1].max() > 50 > 15 > below.get_ylim()[1]
    result = _transfer_result(splits=(0,), seeds=(0,))
    similar = select(result["rows"], grid="similar")
    alone = [
        layer_transfer.treatments(similar, result["config"]),
        layer_transfer.distance(result["rows"], result["config"]),
    ]
    for figure in alone:
        _assert_readable(figure, monkeypatch)
        assert "One seed, no intervals." in _title(figure)
        assert not any(b.get_segments() for axes in figure.axes for b in _bars(axes))
    assert "untrained layers (one seed)" in _labels(alone[1])


def test_figure_3_has_a_panel_for_each_grid_there_is(monkeypatch):
    result = _transfer_result(dissimilar=Grid("family", splits=()))
    figure = layer_transfer.distance(result["rows"], result["config"])
    assert [axes.get_title("left") for axes in figure.axes] == [
        *("untrained layers", "difference from base")
    ]
    _assert_readable(figure, monkeypatch)


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


# --- Imprinting.


def _imprinting_result(folder, seeds=(0, 1, 2)):
    """A study in which rows have known accuracies, and a gallery in its folder."""
    config = imprinting_config.Config(
        data=imprinting_config.Data("cifar100", base=2, side=16),
        augment=Crop(1),
        dim=8,
        shots=(1, 5),
        seeds=seeds,
        tuned=Rows((1, 5), seeds),
        transfer=Rows((5,), seeds[:1]),
        joint=Rows((5,), seeds[:1]),
        dims=(4,),
        losses=("nca",),
        side_seeds=seeds[:1],
        side_shots=(5,),
    )
    level = {"rand_noft": 0.0, "imprinting": 40.0, "nearest": 45.0, "joint": 50.0}
    rows, curves, queue = [], {}, networks(config)
    for m in queue:
        named = [m.row]
        if m.row == "measure":
            named = [f"{m.loss}_average", f"{m.loss}_nearest"]
            if m.loss == "softmax":
                every = ("rand_noft", "imprinting", "imprinting_aug")
                named += ["nearest", *every, *(ALONE + row for row in every)]
        elif m.n:
            steps = range(1, 4 + 9 * (m.row == "joint"))
            curves[m.name] = [
                {"step": 10 * step, "novel": 20.0 + step + m.seed, "all": 50.0}
                for step in steps
            ]
        for row, metric in itertools.product(named, ("novel", "all")):
            value = level.get(row, 30.0) + m.n * (row != "rand_noft") + m.seed
            about = {"member": m.name, "seed": m.seed, "n": m.n, "dim": m.dim}
            about |= {"row": row, "loss": m.loss, "metric": metric}
            rows.append({**about, "value": value})
    novel = ["fish/ray", "trees/oak_tree", "people/boy"]
    result = {
        "config": to_json(config),
        "rows": rows,
        "curves": curves,
        "members": [{**m._asdict(), "name": m.name} for m in queue],
        "base": 2,
        "classes": {
            str(s): {"base": ["a/one", "b/two"], "novel": novel} for s in seeds
        },
    }
    (measured,) = (m for m in queue if m.name.startswith("seed0-measure-n1-softmax-d8"))
    where = member_folder(folder, measured.name)
    where.mkdir(parents=True)
    recalls = {"imprinting": [99.0, 98.0, 20.0, 70.0, 40.0]}
    (where / "record.json").write_text(json.dumps({"record": {"recalls": recalls}}))
    np.savez(
        where / "gallery.npz",
        classes=np.array([0, 1, 2]),
        exemplars=np.arange(3 * 16 * 16 * 3, dtype=np.uint8).reshape(3, 16, 16, 3),
        images=np.zeros((3, 16, 16, 3), np.uint8),
        labels=np.array([1, 0, 2]),
        right=np.array([True, False, True]),
        predicted=np.array([1, 2, 2]),
    )
    return result


IMPRINTING = ("rows", "nearest", "dimensions", "epochs", "transfer_epochs", "gallery")


@pytest.fixture(scope="module")
def imprinted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imprinting")
    with plots.style():
        return imprinting.draw(folder, _imprinting_result(folder))


@pytest.mark.parametrize("name", IMPRINTING)
def test_figures_of_imprinting_are_readable(imprinted, name, monkeypatch):
    figure = imprinted[name]
    assert isinstance(figure, Figure)
    _assert_readable(figure, monkeypatch)
    assert _title(figure).startswith("CIFAR-100, 16x16 pixels, AlexNetSmall: ")


def test_a_row_has_one_look_in_all_figures_of_imprinting(imprinted):
    looks = {}
    for name in IMPRINTING[:-1]:
        for axes in imprinted[name].axes:
            for line in _marked(axes):
                assert to_hex(line.get_color()) in PALETTE
                look = (to_hex(line.get_color()), line.get_marker())
                looks.setdefault(line.get_label(), set()).add(look)
    assert {len(found) for found in looks.values()} == {1}
    assert len({*itertools.chain(*looks.values())}) == len(looks) == 8


def test_rows_are_drawn_at_their_true_n_and_one_seed_is_open(imprinted):
    novel, every, alone = imprinted["rows"].axes
    means = {line.get_label(): dict(line.get_xydata()) for line in _marked(novel)}
    assert means["Imprinting"] == {1: 42.0, 5: 46.0}
    assert means["Rand-noFT"] == {1: 1.0, 5: 1.0}
    assert novel.get_ylim()[0] == 0
    filled = {
        line.get_label(): to_hex(line.get_markerfacecolor()) != "#ffffff"
        for line in _marked(novel)
    }
    assert filled["Imprinting"] and filled["Rand + FT"] and not filled["AllClassJoint"]
    assert not {
        line.get_label(): to_hex(line.get_markerfacecolor()) != "#ffffff"
        for line in _marked(alone)
    }["Rand + FT"]
    assert "95% intervals over 3 seeds" in _title(imprinted["rows"])
    assert "Open markers: one seed." in _title(imprinted["rows"])
    assert "One seed, no intervals." in _title(imprinted["nearest"])
    assert "Open markers" not in _title(imprinted["nearest"])
    for axes in (novel, every, alone):
        assert axes.get_ylabel() == "test accuracy (%)"
        assert axes.get_xlabel() == "n: images per novel class"


def test_a_study_without_the_rows_of_a_figure_does_without_the_figure(tmp_path):
    result = _imprinting_result(tmp_path, seeds=(0,))
    shown = [r for r in result["rows"] if r["row"].endswith(("_average", "_nearest"))]
    drawn = imprinting.draw(tmp_path, {**result, "rows": shown})
    assert drawn["rows"] is None and drawn["nearest"] is not None


def test_dimensions_and_epochs_have_a_panel_per_metric_and_n(imprinted):
    wide = imprinted["dimensions"].axes
    assert [axes.get_title("left") for axes in wide] == ["n = 5", "n = 5"]
    (joint,) = [x for x in _marked(wide[0]) if x.get_label() == "AllClassJoint"]
    assert dict(joint.get_xydata()) == {4: 55.0, 8: 55.0}
    panels = imprinted["epochs"].axes
    assert [axes.get_title("left") for axes in panels] == ["n = 1", "n = 5"] * 2
    (tuned,) = [x for x in _marked(panels[0]) if x.get_label() == "Rand + FT"]
    assert dict(tuned.get_xydata()) == {1: 22.0, 2: 23.0, 3: 24.0}
    (joint,) = [x for x in _marked(panels[1]) if x.get_label() == "AllClassJoint"]
    assert len(joint.get_xdata()) == 12
    (alone,) = imprinted["transfer_epochs"].axes
    assert alone.get_xlabel() == "step"
    assert [*_marked(alone)[0].get_xdata()] == [10, 20, 30]


def test_the_gallery_names_classes_and_says_what_its_frames_mean(imprinted):
    figure = imprinted["gallery"]
    texts = [axes.get_xlabel() for axes in figure.axes]
    # By recall; then the images predicted correctly, above what was predicted.
    assert texts == [
        *("oak tree\n70%", "boy\n40%", "ray\n20%"),
        *("oak tree", "boy", "oak tree", "boy"),
        *("ray", "boy"),
    ]
    frames = [
        (to_hex(side.get_edgecolor()), side.get_linestyle() == "-")
        for side in (axes.spines["left"] for axes in figure.axes)
        if side.get_visible()
    ]
    assert frames == [("#009e73", True)] * 2 + [("#d55e00", False)]
    said = [text.get_text() for text in figure.texts]
    assert (
        "Correct (solid green frames): test images, above the predicted class" in said
    )
    assert "Wrong (dashed red frames): test images, above the predicted class" in said


def test_galleries_of_earlier_versions_have_no_true_classes(tmp_path, monkeypatch):
    result = _imprinting_result(tmp_path)
    (path,) = tmp_path.rglob("gallery.npz")
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files if name != "labels"}
    kept["right"] = np.ones(3, bool)
    np.savez(path, **kept)
    figure = imprinting.gallery(tmp_path, result)
    _assert_readable(figure, monkeypatch)
    assert [axes.get_xlabel() for axes in figure.axes][3:6] == ["", "", ""]
    assert not [t for t in figure.texts if t.get_text().startswith("Wrong")]
    path.unlink()
    assert imprinting.gallery(tmp_path, result) is None


# --- Prototypes.


def _example(way=5, shot=2, n_query=15, channels=1):
    """An episode of made-up images, in which the first queries are wrong."""
    rng = np.random.default_rng(0)
    size = (28, 28, channels)
    predicted = np.tile(np.arange(way)[:, None], (1, n_query))
    predicted[0, 0], predicted[3, 2] = 3, 1
    z = 5 * rng.normal(size=(way, 1, 8))
    return {
        "classes": np.arange(way),
        "support": rng.integers(0, 256, (way, shot, *size), dtype=np.uint8),
        "query": rng.integers(0, 256, (way, n_query, *size), dtype=np.uint8),
        "support_z": z + rng.normal(size=(way, shot, 8)),
        "query_z": z + rng.normal(size=(way, n_query, 8)),
        "predicted": predicted,
    }


PROTOTYPES = to_json(
    prototypes_config.Config(
        data=prototypes_config.Data("glyphs"),
        task=Task(way=20),
        test=Evaluation(ways=(5,), shots=(2,)),
        episodes_per_step=2,
    )
)
NAMES = [f"curved09 character{i:02d}" for i in range(5)]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_episode_shows_every_query_that_it_counts(channels, monkeypatch):
    figure = prototypes.episode(_example(channels=channels), NAMES, PROTOTYPES)
    _assert_readable(figure, monkeypatch)
    assert len(figure.axes) == 5 * (2 + 15)
    assert "a 5-way 2-shot episode, 73 of 75 correct" in _title(figure)
    wrong = [axes for axes in figure.axes if axes.texts]
    assert [axes.texts[0].get_text() for axes in wrong] == ["4", "2"]
    dashed = [a for a in figure.axes if a.spines["left"].get_linestyle() != "solid"]
    assert dashed == wrong
    # The colour is that of the predicted class, as on its support images.
    colours = [to_hex(a.spines["left"].get_edgecolor()) for a in figure.axes]
    assert colours[2] == colours[3 * 17] and len({*colours}) == 5
    assert {*colours} <= PALETTE
    assert "1 curved09\ncharacter00" in [text.get_text() for text in figure.texts]


def test_embeddings_have_equal_axes_and_marked_errors(monkeypatch):
    figure = prototypes.embeddings(_example(), NAMES, PROTOTYPES)
    _assert_readable(figure, monkeypatch)
    (axes,) = figure.axes
    assert axes.get_aspect() == 1
    looks = {
        (x.get_color(), x.get_marker())
        for x in axes.lines
        if x.get_label() in {f"{i + 1} {name}" for i, name in enumerate(NAMES)}
    }
    assert len({c for c, _ in looks}) == len({m for _, m in looks}) == 5
    assert _labels(figure)[-2:] == ["prototype", "classified wrongly (2 of 75)"]
    rings = [x for x in axes.lines if x.get_markersize() == 9]
    assert sum(len(x.get_xdata()) for x in rings) == 2


def test_a_learning_curve_says_what_a_point_averages(monkeypatch):
    log = []
    for step in range(50, 50 * 90 + 1, 50):
        log.append({"step": step, "train/loss": 5.0 / step, "train/accuracy": 0.5})
        log[-1]["train/accuracy"] += step / 10**4
    log.append({"step": 100, "val/loss": 0.4, "val/accuracy": 0.75})
    figure = prototypes.learning_curve(log, PROTOTYPES)
    _assert_readable(figure, monkeypatch)
    loss, accuracy = figure.axes
    assert loss.get_xlabel() == accuracy.get_xlabel() == "training episodes"
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nats)", "accuracy (%)")
    assert loss.get_yscale() == "log" and accuracy.get_ylim()[1] <= 100
    # 90 lines of 50 steps of 2 episodes each: 30 points of 3 lines each.
    assert _labels(figure) == [
        "training, 20-way 1-shot: mean of 300 episodes per point",
        "validation, 5-way 1-shot: mean of 100 episodes per point",
    ]
    (smooth,) = [x for x in accuracy.lines if x.get_label() == _labels(figure)[0]]
    assert [*smooth.get_xdata()[:2]] == [300, 600]
    np.testing.assert_allclose(smooth.get_ydata()[:2], [51.0, 52.5])
    assert "Pale lines" in _title(figure)
    (short,) = prototypes.learning_curve(log[:3], PROTOTYPES).axes[0].lines
    assert len(short.get_xdata()) == 3


def test_figures_of_a_run_without_an_example_are_its_learning_curve(tmp_path):
    line = {"step": 1, "train/loss": 1.0, "train/accuracy": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    result = {"config": PROTOTYPES, "classes": {"test": [*"abcdefgh"]}}
    assert {*prototypes.draw(tmp_path, result)} == {"learning_curve"}
    np.savez(tmp_path / "example.npz", **_example())
    assert {*prototypes.draw(tmp_path, result)} == {
        *("learning_curve", "episode", "embeddings")
    }
