from pathlib import Path

import numpy as np
import pytest

from jaxfer.data import Images, load, load_all, official_split, write_cache
from jaxfer.data.loading import cache_directory, data_directory


def test_directory_is_as_told_then_jaxfers_then_that_of_tfds(monkeypatch):
    for name in ("JAXFER_DATA", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert data_directory() == Path("~/tensorflow_datasets").expanduser()
    monkeypatch.setenv("TFDS_DATA_DIR", "/t")
    assert data_directory() == Path("/t")
    monkeypatch.setenv("JAXFER_DATA", "/j")
    assert data_directory() == Path("/j")
    assert data_directory("/told") == Path("/told")


def test_a_cache_is_preferred_to_the_source(tmp_path, blobs):
    write_cache(blobs, cache_directory("omniglot", tmp_path))
    assert load_all("omniglot", tmp_path).fingerprint == blobs.fingerprint


def test_glyphs_need_no_directory():
    parts = load("glyphs", ["val", "test"])
    assert list(parts) == ["val", "test"]
    assert all(part.simulated for part in parts.values())
    assert parts["val"].class_names[0] == "angular07/character00"


def test_an_unknown_data_set_is_refused_with_the_nearest_spelling(tmp_path):
    with pytest.raises(ValueError, match="data sets .*'omniglott'.*mean 'omniglot'"):
        load_all("omniglott", tmp_path)
    with pytest.raises(ValueError, match=r"one of the data sets .*'glyphs'.*, got 'x'"):
        load_all("x")


def test_missing_data_are_refused_with_the_way_to_get_them(tmp_path):
    message = (
        "expected omniglot.cache or omniglot as TFDS prepares it in "
        f"{tmp_path}, got neither.*JAXFER_DATA.*"
        "python -m jaxfer prepare omniglot --to DIR"
    )
    with pytest.raises(ValueError, match=message):
        load_all("omniglot", tmp_path)


def test_parts_are_by_class_or_by_example(tmp_path, unchecked):
    with pytest.raises(ValueError, match="by = 'class' or 'example', got 'klass'"):
        load("glyphs", ["test"], by="klass")
    with pytest.raises(ValueError, match="list of splits, got the string 'test'"):
        load("glyphs", "test")
    by_example = load("glyphs", ["train", "test"], by="example")
    assert len({part.num_classes for part in by_example.values()}) == 1
    with pytest.raises(
        ValueError, match="parts by class, one of .*'glyphs'.*got cifar100"
    ):
        load("cifar100", ["train"], tmp_path)


def test_classes_are_left_out_of_any_data_set(tmp_path, blobs, capsys):
    write_cache(blobs, cache_directory("omniglot", tmp_path))
    listed = tmp_path / "out.txt"
    listed.write_text("# Of no use\nblob03\nfoo\nblob29\n")
    out = ["blob07", str(listed)]
    data = load_all("omniglot", tmp_path, exclude_classes=out)
    kept = [c for c in blobs.class_names if c[-2:] not in ("03", "07", "29")]
    assert data.class_names == tuple(kept) and len(data.labels) == 27 * 12
    assert "ignored 1 of 4 names in exclude_classes" in capsys.readouterr().out
    rows = np.isin(blobs.labels, [blobs.class_names.index(name) for name in kept])
    np.testing.assert_array_equal(data.images[:], blobs.images[rows])
    with pytest.raises(ValueError, match="got 2 other names in exclude_classes, .*'x'"):
        load_all("omniglot", tmp_path, exclude_classes=["x", "y"])
    with pytest.raises(ValueError, match="not excluded, got none of 30"):
        load_all("omniglot", tmp_path, exclude_classes=blobs.class_names)
    with pytest.raises(ValueError, match="out.json cannot be read"):
        load_all("omniglot", tmp_path, exclude_classes=["out.json"])


def test_training_images_still_come_first_without_a_class(tmp_path):
    labels = np.array([0, 1, 2, 1, 0, 2, 1], np.int32)
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    data = Images("x", images, labels, ("a", "b", "c"), num_train=5)
    write_cache(data, cache_directory("cifar100", tmp_path))
    less = load_all("cifar100", tmp_path, exclude_classes=["a"])
    assert less.num_train == 3
    tests = official_split(less, "test")
    assert tests.images[:].ravel().tolist() == [5, 6]
    parts = load("cifar100", ["test"], tmp_path, by="example", exclude_classes=["c"])
    assert parts["test"].class_names == ("a", "b")


def test_a_rule_replaces_that_of_the_data_set(tmp_path, blobs):
    write_cache(blobs, cache_directory("cifar100", tmp_path))

    def rule(data, split):
        return data.take_classes([f"blob0{len(split)}"], name=split)

    parts = load("cifar100", ["train", "test"], tmp_path, rule=rule)
    assert [part.class_names for part in parts.values()] == [("blob05",), ("blob04",)]
