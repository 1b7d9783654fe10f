"""What is on the figures of imprinting, for made-up results."""

import itertools
import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from experiments import plots
from experiments.imprinting import config as imprinting_config
from experiments.imprinting import figures as imprinting
from experiments.imprinting.config import Rows
from experiments.imprinting.members import ALONE, networks
from jaxfer.config import to_json
from jaxfer.data import Crop
from jaxfer.study import member_folder
from tests.experiments.drawn import PALETTE, assert_readable, marked, title_of

pytestmark = pytest.mark.usefixtures("in_style")


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
    assert_readable(figure, monkeypatch)
    assert title_of(figure).startswith("CIFAR-100, 16x16 pixels, AlexNetSmall: ")


def test_a_row_has_one_look_in_all_figures_of_imprinting(imprinted):
    looks = {}
    for name in IMPRINTING[:-1]:
        for axes in imprinted[name].axes:
            for line in marked(axes):
                assert to_hex(line.get_color()) in PALETTE
                look = (to_hex(line.get_color()), line.get_marker())
                looks.setdefault(line.get_label(), set()).add(look)
    assert {len(found) for found in looks.values()} == {1}
    assert len({*itertools.chain(*looks.values())}) == len(looks) == 8


def test_rows_are_drawn_at_their_true_n_and_one_seed_is_open(imprinted):
    novel, every, alone = imprinted["rows"].axes
    means = {line.get_label(): dict(line.get_xydata()) for line in marked(novel)}
    assert means["Imprinting"] == {1: 42.0, 5: 46.0}
    assert means["Rand-noFT"] == {1: 1.0, 5: 1.0}
    assert novel.get_ylim()[0] == 0
    filled = {
        line.get_label(): to_hex(line.get_markerfacecolor()) != "#ffffff"
        for line in marked(novel)
    }
    assert filled["Imprinting"] and filled["Rand + FT"] and not filled["AllClassJoint"]
    assert not {
        line.get_label(): to_hex(line.get_markerfacecolor()) != "#ffffff"
        for line in marked(alone)
    }["Rand + FT"]
    assert "95% intervals over 3 seeds" in title_of(imprinted["rows"])
    assert "Open markers: one seed." in title_of(imprinted["rows"])
    assert "One seed, no intervals." in title_of(imprinted["nearest"])
    assert "Open markers" not in title_of(imprinted["nearest"])
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
    (joint,) = [x for x in marked(wide[0]) if x.get_label() == "AllClassJoint"]
    assert dict(joint.get_xydata()) == {4: 55.0, 8: 55.0}
    panels = imprinted["epochs"].axes
    assert [axes.get_title("left") for axes in panels] == ["n = 1", "n = 5"] * 2
    (tuned,) = [x for x in marked(panels[0]) if x.get_label() == "Rand + FT"]
    assert dict(tuned.get_xydata()) == {1: 22.0, 2: 23.0, 3: 24.0}
    (joint,) = [x for x in marked(panels[1]) if x.get_label() == "AllClassJoint"]
    assert len(joint.get_xdata()) == 12
    (alone,) = imprinted["transfer_epochs"].axes
    assert alone.get_xlabel() == "step"
    assert [*marked(alone)[0].get_xdata()] == [10, 20, 30]


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
    assert_readable(figure, monkeypatch)
    assert [axes.get_xlabel() for axes in figure.axes][3:6] == ["", "", ""]
    assert not [t for t in figure.texts if t.get_text().startswith("Wrong")]
    path.unlink()
    assert imprinting.gallery(tmp_path, result) is None
