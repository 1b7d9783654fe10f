from pathlib import Path

import pytest

from jaxfer.data import load, load_all, write_cache
from jaxfer.data.sources import cache_directory, data_directory


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
        "python tools/prepare_data.py omniglot --to DIR"
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
