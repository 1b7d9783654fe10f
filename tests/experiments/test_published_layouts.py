"""Data sets in layouts of their own, through every experiment by one command line."""

import importlib
import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from jaxfer.data import glyphs
from jaxfer.data.tfds import open_records

pytestmark = pytest.mark.slow
Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"class{i:02d}" for i in range(14)]
BACKGROUND = "BACKGROUND_Google"


@pytest.fixture(scope="module")
def pictures(request):
    """Fourteen lists of pictures, of CIFAR-100 if it is there."""
    try:
        folder = request.getfixturevalue("real_data")
    except pytest.skip.Exception:
        data = glyphs(alphabets=7, characters=2, drawers=40)
        images = data.images.reshape(14, 40, *data.images.shape[1:3])
        return [[Image.fromarray(image) for image in own] for own in images]
    pytest.importorskip("tensorflow_datasets")
    source, found = open_records("cifar100", folder / "tfds", "train").source, {}
    for row in range(6000):
        record = source[row]
        found.setdefault(int(record["label"]), []).append(record["image"])
    return [
        [Image.open(io.BytesIO(image)).convert("RGB") for image in found[label][:40]]
        for label in range(14)
    ]


def _save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


@pytest.fixture(scope="module")
def tiny_imagenet(pictures, tmp_path_factory):
    """16 pictures of each class to train on, 6 in val/images, and some unlabelled."""
    root, lines = tmp_path_factory.mktemp("tiny") / "tiny-imagenet-200", []
    for name, own in zip(NAMES, pictures, strict=True):
        for i, image in enumerate(own[:16]):
            image = image.resize((64, 64))
            _save(image, root / "train" / name / "images" / f"{name}_{i}.JPEG")
        boxes = root / "train" / name / f"{name}_boxes.txt"
        boxes.write_text(f"{name}_0.JPEG\t0\t0\t63\t63\n")
        for image in own[16:22]:
            file = f"val_{len(lines)}.JPEG"
            _save(image.resize((64, 64)), root / "val" / "images" / file)
            lines.append(f"{file}\t{name}\t0\t0\t63\t63\n")
        _save(own[22], root / "test" / "images" / f"test_{name}.JPEG")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(NAMES)))
    (root / "words.txt").write_text("".join(f"{name}\ta word\n" for name in NAMES))
    return root


@pytest.fixture(scope="module")
def caltech_101(pictures, tmp_path_factory):
    """12 to 38 pictures per class, of many sizes, some of them grey; a background."""
    above, rng = (
        tmp_path_factory.mktemp("data") / "caltech-101",
        np.random.default_rng(0),
    )
    root = above / "101_ObjectCategories"
    for number, own in enumerate(pictures[:13]):
        for i, image in enumerate(own[: 12 + 2 * number]):
            width, height = rng.integers(40, 90, 2).tolist()
            image = image.resize((width, height)).convert("L" if i % 4 == 0 else "RGB")
            _save(image, root / NAMES[number] / f"image_{i:04d}.jpg")
    for i, image in enumerate(pictures[13]):
        _save(image, root / BACKGROUND / f"image_{i:04d}.jpg")
    notes = above / "Annotations" / NAMES[0] / "annotation_0001.mat"
    notes.parent.mkdir(parents=True)
    notes.write_bytes(b"MATLAB")
    return above


# The rest of the line of every experiment: what makes it small.
SMALL = {
    "imprinting": (
        "photos_imprinting",
        *("--data.base", "9", "--data.side", "36", "--augment.side", "32"),
        *("--net.width", "8", "--net.dense", "16", "--dim", "8", "--batch", "16"),
        *("--epochs", "2", "--finetune-epochs", "1", "--shots", "1", "3"),
        *("--seeds", "0", "--tuned.seeds", "0", "--tuned.shots", "3"),
    ),
    "layer_transfer": (
        "cifar100_layer_transfer",
        *("--data.name", "folder", "--net.width", "8", "--net.dense", "16"),
        *("--similar.splits", "0", "--similar.treatments", "base", "AnB"),
        *("--dissimilar.splits", "--untrained.splits", "0"),
        *("--untrained.seeds", "0", "--layers", "2", "--epochs", "2", "--batch", "16"),
    ),
    "prototypes": (
        "quickstart",
        *("--data.name", "folder", "--data.side", "28", "--net.width", "8"),
        *("--task.way", "3", "--task.query", "3", "--episodes", "20"),
        *("--test.ways", "2", "--test.shots", "1", "5", "--test.query", "5"),
        *("--test.episodes", "20"),
    ),
}
EVERY = pytest.mark.parametrize("name", SMALL)


def _run(name, workdir, directory, *options):
    config, *small = SMALL[name]
    line = ["--config", str(ROOT / "configs" / f"{config}.py"), *small, *options]
    line += ["--workdir", str(workdir), "--data.dir", str(directory)]
    main = importlib.import_module(f"experiments.{name}.__main__").main
    assert main([*line, "--no-figures"]) == 0
    return importlib.import_module("jaxfer.runlog").read_json(workdir / "result.json")


def _classes(name, result):
    """All classes, from the lists of each split, seed or half in a result."""
    found = result["classes"]
    if name == "imprinting":
        assert len(found["0"]["base"]) == 9
        found = found["0"]
    if name == "layer_transfer":
        assert {*found} == {
            "similar-0A-seed0",
            "similar-0B-seed0",
            "untrained-0W-seed0",
        }
        whole = found.pop("untrained-0W-seed0")
        assert sorted(whole) == sorted(c for own in found.values() for c in own)
    every = [c for own in found.values() for c in own]
    assert len({*every}) == len(every)
    return sorted(every)


@EVERY
def test_tiny_imagenet_runs_as_it_is(name, tiny_imagenet, tmp_path, capsys):
    result = _run(name, tmp_path, tiny_imagenet)
    assert _classes(name, result) == NAMES
    shown = capsys.readouterr().out
    assert "tiny-imagenet-200: ignored 14 images in test/ without labels" in shown
    if name == "prototypes":
        # 20% of the classes, with the pictures of train/ and val/.
        assert len(result["classes"]["test"]) == 3
    else:
        counts = {part: own["images"] for part, own in result["parts"].items()}
        assert counts == {"trainval": 14 * 16, "test": 14 * 6}
    for metric in result["metrics"].values():
        assert np.isfinite(metric["mean"])


@EVERY
def test_caltech_101_runs_as_it_is(name, caltech_101, tmp_path, capsys):
    out = ("--data.exclude-classes", BACKGROUND, "--data.max-images", "20")
    result = _run(name, tmp_path, caltech_101, *out)
    assert _classes(name, result) == NAMES[:13]
    shown = capsys.readouterr().out
    assert "caltech-101: reading 101_ObjectCategories/, its only folder with" in shown
    if name == "prototypes":
        assert len(result["classes"]["test"]) == 3
    else:
        counts = defaultdict(int)
        for n in range(12, 38, 2):
            tested = max(1, int(0.2 * n))
            counts["test"] += tested
            counts["trainval"] += min(20, n - tested)
        assert {x: own["images"] for x, own in result["parts"].items()} == counts
    for metric in result["metrics"].values():
        assert np.isfinite(metric["mean"])


def test_classes_of_caltech_101_are_split_by_lists(caltech_101, tmp_path):
    lists = {"train": NAMES[:7], "val": NAMES[7:9], "test": [*NAMES[9:13], "unicorn"]}
    for part, names in lists.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(names))
    options = ("--data.class-lists", str(tmp_path), "--data.val", "val")
    options = (*options, "--val.every", "10", "--val.way", "2", "--val.episodes", "5")
    result = _run("prototypes", tmp_path / "run", caltech_101, *options)
    assert result["classes"] == {
        "trainval": NAMES[:9],
        "val": NAMES[7:9],
        "test": NAMES[9:13],
    }
