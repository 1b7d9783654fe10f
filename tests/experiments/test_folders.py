"""Folders of images in every experiment: what is refused, and what is left out."""

import importlib
import re

import numpy as np
import pytest

from experiments.inputs import Data, load_images, load_parts
from experiments.prototypes.config import Data as ClassData
from jaxfer.data import photos
from jaxfer.data.layouts import LAYOUTS

CONFIGS = {
    "imprinting": """
from experiments.imprinting.config import *
data = Data("folder", base=2, side=12)
few = Rows((), ())
net = Network("Flatten")
config = Config(data, net, shots=(1, 2), batch=8, tuned=few, transfer=few, joint=few)
""",
    "layer_transfer": """
from experiments.layer_transfer.config import *
data, grid = Data("folder", side=12), Grid("whole", (0,), treatments=("base",))
grids = {"similar": Grid(), "dissimilar": Grid(), "untrained": grid}
config = Config(data, Network("Conv4"), batch=8, layers=(1,), **grids)
""",
    "prototypes": """
from experiments.prototypes.config import *
task, test = Task(2, 1, 2), Evaluation((2,), (1,), 2)
config = Config(Data("folder", "train", test="test", side=12), task=task, test=test)
""",
}
EVERY = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """The error of a command line, which comes before any image is decoded."""

    def decode(*args):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(photos, "_decoded", decode)

    def call(name, *options):
        (tmp_path / "config.py").write_text(CONFIGS[name])
        main = importlib.import_module(f"experiments.{name}.__main__").main
        workdir = tmp_path / "run"
        line = ["--config", str(tmp_path / "config.py"), "--workdir", str(workdir)]
        with pytest.raises(SystemExit) as e:
            main([*line, *options])
        shown = capsys.readouterr().err.strip().splitlines()
        assert e.value.code == 2 and shown[-1].startswith("error: "), shown
        assert not (workdir / "config.json").exists()
        return shown[-1]

    return call


@EVERY
def test_a_wrong_folder_is_refused_with_the_layouts(refused, photographs, name):
    kite = photographs / "kite"
    error = refused(name, "--data.dir", str(kite))
    assert f"got no folders, 12 images: if this is the folder of a class, give {kite.parent}" in error  # fmt: skip # noqa: E501
    assert all(layout in error for layout in LAYOUTS)
    error = refused(name, "--data.dir", str(photographs / "nowhere"))
    assert "which does not exist: set --data.dir" in error


@EVERY
def test_no_class_left_is_refused(refused, photographs, name):
    line = ("--data.dir", str(photographs), "--data.exclude-classes")
    assert "got none of 3" in refused(name, *line, "kite", "robin", "wren")
    assert "got 1 other name in exclude_classes" in refused(name, *line, "Kite")
    if name != "prototypes":
        few = ("--data.dir", str(photographs), "--data.min-images", "11")
        assert "got at most 10 in" in refused(name, *few)


@EVERY
def test_too_few_images_are_refused(refused, photographs, name):
    line = ("--data.dir", str(photographs))
    asked, message = {
        "imprinting": (("--shots", "11"), "n = 11 examples of class .*, got 10"),
        "layer_transfer": (("--batch", "31"), "one batch of 31 examples, got 30"),
        "prototypes": (
            ("--task.shot", "11", "--data.class-shares", "0.7", "0", "0.3"),
            r"shot \+ n_query = 13 images, got 12 in class",
        ),
    }[name]
    assert re.search(message, refused(name, *line, *asked))
    capped = ("--data.max-images", "3")
    asked, message = {
        "imprinting": (("--shots", "4"), "n = 4 examples of class .*, got 3"),
        "layer_transfer": ((), "one batch of 8 examples, got 6"),
        "prototypes": (
            ("--task.shot", "2", "--data.class-shares", "0.7", "0", "0.3"),
            r"shot \+ n_query = 4 images, got 3 in class",
        ),
    }[name]
    if name == "layer_transfer":
        capped = (*capped, "--data.classes", "2")
    assert re.search(message, refused(name, *line, *capped, *asked))
    assert "max_images of at least 1, got 0" in refused(
        name, *line, "--data.max-images", "0"
    )


def test_too_few_classes_are_refused(refused, photographs, tmp_path):
    line = ("--data.dir", str(photographs))
    assert "1 to 2 base classes out of 3 classes, got 9" in refused(
        "imprinting", *line, "--data.base", "9"
    )
    one = (*line, "--data.exclude-classes", "kite", "wren")
    assert "at least 2 classes, a base class and a novel one, got ['robin']" in refused(
        "imprinting", *one
    )
    assert "outputs of at least the 3 classes" in refused(
        "layer_transfer", *line, "--outputs", "2"
    )
    assert "at least way = 2 classes, got 1 in" in refused("prototypes", *line)
    (tmp_path / "halfA.txt").write_text("kite\nowl\n")
    (tmp_path / "halfB.txt").write_text("wren\n")
    halves = ("--dissimilar.by", str(tmp_path / "half"), "--dissimilar.splits", "0")
    error = refused("layer_transfer", *line, *halves, "--dissimilar.treatments", "base")
    assert "miss 1 classes, such as ['robin']: add them to a list, or exclude" in error


def test_a_window_larger_than_the_side_is_refused(refused, photographs):
    line = ("--data.dir", str(photographs), "--augment.side", "64")
    error = refused("imprinting", *line, "--data.side", "32")
    assert "crop side from 1 to 32 for images of 32x32, got 64" in error


def test_class_lists_and_shares_are_alternatives(refused, photographs, tmp_path):
    line = ("--data.dir", str(photographs), "--data.class-seed", "3")
    (tmp_path / "train.txt").write_text("wren\n")
    error = refused("prototypes", *line, "--data.class-lists", str(tmp_path))
    assert f"expected no seed for the lists of {tmp_path}" in error
    assert "--data.class-seed None" in error
    shares = ("--data.class-shares", "0.5", "0.2", "0.3")
    error = refused("prototypes", *shares, "--data.class-lists", str(tmp_path))
    assert "expected data.class_lists without data.class_shares, got" in error
    error = refused("prototypes", "--data.class-lists", str(tmp_path / "nowhere"))
    assert "expected lists such as train.txt" in error
    error = refused("prototypes", *line, "--data.class-shares", "1", "1", "-1")
    assert "data.class_shares from 0 to 1, got [1.0, 1.0, -1.0]" in error
    assert "data.class_seed in [0, 2^32), got -1" in refused(
        "prototypes", "--data.class-seed", "-1"
    )


def test_one_definition_of_what_is_left_out(photographs, tmp_path, capsys):
    listed = tmp_path / "files.txt"
    listed.write_text("kite/kite00.jpg\nwren03.jpg\ncrow.jpg\n")
    out = {"exclude": str(listed), "exclude_classes": ("robin", "owl")}
    options = {"dir": str(photographs), "side": 8, **out}
    train, test = load_parts(Data("folder", **options))
    assert train.class_names == ("kite", "wren")
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert counts.tolist() == [11, 11]
    shown = capsys.readouterr().out
    assert "ignored 1 of 2 names in exclude_classes, such as 'owl'" in shown
    assert "ignored 1 of 3 names in exclude, such as 'crow.jpg'" in shown
    data = ClassData("folder", class_shares=(0.5, 0.0, 0.5), **options)
    parts = load_images(data, ["train", "test"], "class", data.rule())
    assert sorted(len(part.labels) for part in parts.values()) == [11, 11]
    few = [
        *load_parts(Data("folder", max_images=2, **options)),
        *load_images(
            ClassData("folder", max_images=2, **options), ["test"], "class", data.rule()
        ).values(),
    ]
    # One of the two files of kites to test on is left out.
    assert [np.bincount(x.labels).tolist() for x in few] == [[2, 2], [1, 2], [2]]
    # The streamed and the resident images of a class are the same.
    again = load_parts(Data("folder", max_images=2, **options, classes=1))[0]
    np.testing.assert_array_equal(again.images[:], few[0].images[few[0].labels == 0])
