"""Few-shot benchmarks: their lists, layouts, numbers and caches."""

import csv
import dataclasses
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from jaxfer.cli.main import main
from jaxfer.data import Images, background_split, load, load_all
from jaxfer.data.loading import load_source
from jaxfer.data.sources import SOURCES

PARTS = {"train": ("n1", "n2"), "val": ("n3",), "test": ("n4", "n5")}
COUNTS = {"train": (2, 8), "val": (1, 4), "test": (2, 8)}


@pytest.fixture
def mini(tmp_path, rng, monkeypatch):
    """Twenty pictures in the layout of the fetched data set, and lists of them."""
    row = dataclasses.replace(SOURCES["miniimagenet"], listed=COUNTS)
    monkeypatch.setitem(SOURCES, "miniimagenet", row)
    folder, lists = tmp_path / "mini", tmp_path / "ravi"
    lists.mkdir()
    for part, names in PARTS.items():
        rows = [("filename", "label")]
        for name in names:
            for i in range(4):
                # The folders of the fetched data set divide each class, 3 to 1.
                own = folder / ("val" if i == 2 else "train") / name
                own.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(own / f"{name}{i:08d}.jpg")
                rows.append((f"{name}{i:08d}.jpg", name))
        with (lists / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder, lists


def prepared(to, *words):
    assert main(["prepare", *map(str, words), "--to", str(to)]) == 0
    return load("miniimagenet", ["train", "val", "trainval", "test"], to)


def test_miniimagenet_is_read_from_its_layouts(mini, tmp_path, capsys):
    folder, lists = mini
    found = {}
    line = ["miniimagenet", "--source", folder, "--lists", lists, "--side", 8]
    found["fetched"] = prepared(tmp_path / "a", *line)
    # All images in one folder, with the lists beside it.
    flat = tmp_path / "flat"
    (flat / "images").mkdir(parents=True)
    for path in folder.glob("*/*/*.jpg"):
        shutil.copy(path, flat / "images")
    for path in lists.iterdir():
        shutil.copy(path, flat)
    line = ["miniimagenet", "--source", flat, "--side", 8]
    found["flat"] = prepared(tmp_path / "b", *line)
    # One folder per part, with one folder per class each.
    for part, names in PARTS.items():
        for name in names:
            own = tmp_path / "divided" / part / name
            own.mkdir(parents=True)
            for path in folder.glob(f"*/{name}/*.jpg"):
                shutil.copy(path, own)
    line = ["miniimagenet", "--source", tmp_path / "divided", "--side", 8]
    found["divided"] = prepared(tmp_path / "c", *line)
    capsys.readouterr()
    for parts in found.values():
        for part, names in PARTS.items():
            assert parts[part].class_names == names
            assert parts[part].images.shape == (4 * len(names), 8, 8, 3)
        assert parts["trainval"].class_names == ("n1", "n2", "n3")
    every = [
        {part: images.fingerprint for part, images in parts.items()}
        for parts in found.values()
    ]
    assert every[0] == every[1] == every[2]
    by_example = load("miniimagenet", ["train", "test"], tmp_path / "a", by="example")
    assert by_example["test"].num_classes == 5


def test_what_is_missing_is_counted_before_images_are_decoded(mini, tmp_path, capsys):
    folder, lists = mini
    for path in folder.glob("*/n1/*.jpg"):
        path.write_bytes(b"not a picture")
    line = ["miniimagenet", "--to", str(tmp_path), "--source", str(folder)]
    for name in ("n2/n200000000", "n2/n200000001"):
        (folder / "train" / f"{name}.jpg").unlink()

    def refused(*words):
        with pytest.raises(SystemExit, match="2"):
            main(["prepare", *line, *map(str, words)])
        return capsys.readouterr().err

    error = refused("--lists", lists)
    assert "got 2 other names among 8 in" in error and "train.csv" in error
    assert "such as ['n200000000.jpg,n2', 'n200000001.jpg,n2']" in error
    kept = (lists / "train.csv").read_text().splitlines()
    (lists / "train.csv").write_text("\n".join(kept[:5] + kept[7:]))
    error = refused("--lists", lists)
    assert "8 images in train of miniimagenet, got 2 classes and 6 images" in error
    # The folders of the fetched data set are no parts by class.
    assert "not divided by class: pass --lists" in refused()
    assert "expected lists such as train.txt" in refused("--lists", tmp_path)


def test_overlapping_lists_are_refused(mini, tmp_path):
    folder, lists = mini
    for part, names in {**PARTS, "val": ("n2", "n3")}.items():
        (lists / f"{part}.csv").unlink()
        (lists / f"{part}.txt").write_text("\n".join(names))
    with pytest.raises(ValueError, match="different classes .*'n2'.* in two parts"):
        load_source("miniimagenet", folder, lists=lists)


def test_benchmarks_are_read_from_caches_alone(tmp_path):
    for name in ("cifar_fs", "miniimagenet"):
        with pytest.raises(ValueError, match=f"{name}.cache .*prepare {name} --to"):
            load_all(name, tmp_path)
    with pytest.raises(ValueError, match="expected no lists for glyphs"):
        load_source("glyphs", lists=tmp_path)


@pytest.fixture
def cifar(real_data, tmp_path, monkeypatch):
    """CIFAR-100 with blank images, and its real class names."""
    rows = (real_data / "cifar100_splits" / "labels.tsv").read_text().splitlines()
    cells = [row.split("\t") for row in rows[1:]]
    names = tuple(f"{row[3]}/{row[1]}" for row in cells)
    labels = np.tile(np.arange(100, dtype=np.int32), 600)
    images = np.zeros((60_000, 1, 1, 3), np.uint8)
    data = Images("cifar100", images, labels, names, num_train=50_000)
    (tmp_path / "cifar100").mkdir()
    sources = sys.modules["jaxfer.data.sources"]
    monkeypatch.setattr(sources, "cifar100", lambda directory: data)
    return data


@pytest.mark.parametrize("name", ["cifar_fs", "fc100"])
def test_published_lists_divide_cifar(cifar, name, real_data, tmp_path):
    lists = real_data / "cifar100_splits" / name.replace("_", "-")
    data = load_source(name, tmp_path, lists=lists)
    assert data.class_parts is not None and data.num_train == 50_000
    assert data.name == name
    parts = {part: {*own} for part, own in data.class_parts.items()}
    assert {*cifar.class_names} == set.union(*parts.values())
    assert sum(map(len, parts.values())) == 100
    groups = {p: {c.split("/")[0] for c in own} for p, own in parts.items()}
    disjoint = sum(map(len, groups.values())) == 20
    # The superclasses of FC100 are in one part each.
    assert disjoint == (name == "fc100")
    with pytest.raises(ValueError, match="expected lists of the classes"):
        load_source(name, tmp_path)


def test_a_list_of_another_data_set_is_refused(cifar, mini, tmp_path):
    with pytest.raises(ValueError, match="expected classes of cifar100.*train.csv"):
        load_source("cifar_fs", tmp_path, lists=mini[1])


def test_other_numbers_of_classes_are_refused(cifar, real_data, tmp_path):
    lists = real_data / "cifar100_splits" / "fc100"
    with pytest.raises(ValueError, match="64 classes .* in train of cifar_fs, got 60"):
        load_source("cifar_fs", tmp_path, lists=lists)


def test_the_background_alphabets_of_omniglot_are_for_training():
    alphabets = [f"a{i:02d}" for i in range(25)] + [
        *("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
    ]
    names = [f"{alphabets[i % 30]}/character{i:04d}" for i in range(964)]
    names = sorted(names) + [f"b{i % 20:02d}/character{i:04d}" for i in range(659)]
    labels = np.arange(1623, dtype=np.int32)
    images = np.arange(1623 * 4, dtype=np.uint8).reshape(1623, 2, 2, 1)
    data = Images("omniglot", images, labels, tuple(names))
    parts = {s: background_split(data, s) for s in ("train", "val", "trainval", "test")}
    assert parts["trainval"].num_classes == 964 * 4
    assert parts["test"].class_names == tuple(names[964:])
    assert {c.split("/")[0] for c in parts["val"].class_names} == {*alphabets[25:]}
    train, val = ({*parts[part].class_names} for part in ("train", "val"))
    assert train | val == {*parts["trainval"].class_names} and not train & val
    with pytest.raises(ValueError, match="expected 1623 characters"):
        background_split(data.take_classes(names[:9], name="x"), "train")
