import json

import numpy as np
import pytest

from jaxfer.data import read_cache, write_cache
from jaxfer.data.cache import FORMAT
from jaxfer.data.images import Images


@pytest.fixture
def cache(tmp_path, blobs: Images):
    return write_cache(blobs, tmp_path / "data" / "blobs.cache")


def test_a_cache_gives_back_what_was_written(cache, blobs):
    again = read_cache(cache)
    np.testing.assert_array_equal(again.images, blobs.images)
    np.testing.assert_array_equal(again.labels, blobs.labels)
    assert (again.name, again.class_names, again.simulated) == (
        blobs.name,
        blobs.class_names,
        blobs.simulated,
    )
    assert again.fingerprint == blobs.fingerprint


def test_images_are_memory_mapped_and_read_only(cache):
    images = read_cache(cache).images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_writing_again_replaces_and_leaves_nothing_beside(cache, blobs):
    other = blobs.take_classes(blobs.class_names[:3], name="three")
    write_cache(other, cache)
    assert read_cache(cache).num_classes == 3
    assert [p.name for p in cache.parent.iterdir()] == ["blobs.cache"]


def test_a_folder_that_is_no_cache_is_not_replaced(tmp_path, blobs):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"got a directory with \[.thesis.txt.\]"):
        write_cache(blobs, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_cache_that_lost_a_file_can_be_written_anew(cache, blobs):
    (cache / "meta.json").unlink()
    with pytest.raises(ValueError, match="damaged"):
        read_cache(cache)
    write_cache(blobs, cache)
    assert read_cache(cache).fingerprint == blobs.fingerprint


def _truncate(cache):
    path = cache / "images.npy"
    path.write_bytes(path.read_bytes()[:-1000])


def _flip_a_bit(cache):
    path = cache / "images.npy"
    content = bytearray(path.read_bytes())
    content[-500] ^= 1
    path.write_bytes(content)


def _lose_labels(cache):
    (cache / "labels.npy").unlink()


def _cut_meta(cache):
    path = cache / "meta.json"
    path.write_text(path.read_text()[:40])


def _age(cache):
    meta = json.loads((cache / "meta.json").read_text())
    (cache / "meta.json").write_text(json.dumps(meta | {"format": 0}))


def _rename_a_class(cache):
    path = cache / "meta.json"
    path.write_text(path.read_text().replace("blob07", "blob77"))


def _simulate(cache):
    path = cache / "meta.json"
    path.write_text(path.read_text().replace('"simulated": true', '"simulated": false'))
    path.write_text(path.read_text().replace('"num_train": null', '"num_train": 3'))


def _flip_the_header_of_labels(cache):
    path = cache / "labels.npy"
    path.write_bytes(path.read_bytes().replace(b"{'descr'", b"{'descr\n"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "mmap length|greater than file size"),
        (_flip_a_bit, "expected fingerprint [0-9a-f]{16}, got [0-9a-f]{16}"),
        (_lose_labels, "No such file.*labels.npy"),
        (_cut_meta, "Unterminated|Expecting"),
        (_age, f"expected format {FORMAT}, got 0"),
        (_rename_a_class, "meta.json differs from what was written"),
        (_simulate, "meta.json differs from what was written"),
        (_flip_the_header_of_labels, "labels|header|literal|string"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_damage_is_found_and_the_remedy_named(cache, damage, message):
    damage(cache)
    with pytest.raises(ValueError, match=message) as e:
        read_cache(cache)
    assert f"the cache {cache} is damaged" in str(e.value)
    assert "write it again with python -m jaxfer prepare" in str(e.value)


def test_a_cache_without_a_checksum_is_read(cache):
    """One of an earlier version."""
    path = cache / "meta.json"
    meta = json.loads(path.read_text())
    del meta["sha256"]
    path.write_text(json.dumps(meta))
    read_cache(cache)
    _rename_a_class(cache)
    with pytest.raises(ValueError, match="expected fingerprint"):
        read_cache(cache)
