import numpy as np
import pytest

from jaxfer.data import Images, View, from_arrays, read_images, rotations, shrunk


def _images(**changes) -> Images:
    fields = {
        "name": "pair",
        "images": np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1),
        "labels": np.array([0, 1], np.int32),
        "class_names": ("a", "b"),
    }
    return Images(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.zeros((2, 3, 3), np.uint8)},
            r"\[n, height, .* in pair, got type uint8 and shape \(2, 3, 3\)",
        ),
        ({"images": np.zeros((2, 3, 3, 1))}, "uint8 .* in pair, got type float64"),
        (
            {"labels": np.zeros(3, np.int32)},
            r"int32 labels \[2\] in pair, got type int32 and shape \(3,\)",
        ),
        ({"labels": np.zeros(2, np.int64)}, "int32 .* in pair, got type int64"),
        (
            {"labels": np.array([0, 2], np.int32)},
            "labels from 0 to 1 in pair, got 0 to 2",
        ),
        (
            {"labels": np.array([-1, 0], np.int32)},
            "labels from 0 to 1 in pair, got -1 to 0",
        ),
    ],
)
def test_what_is_not_labelled_images_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _images(**changes)


def test_fingerprint_hangs_on_pixels_labels_and_names_alone():
    """Inverted or reshaped versions of a data set have other fingerprints
    (pitfall 12 of the protocols: results are comparable if fingerprints agree)."""
    one = _images()
    assert one.fingerprint == _images(name="other").fingerprint
    other_pixels = one.images.copy()
    other_pixels[1, 2, 2, 0] ^= 1
    others = [
        _images(images=other_pixels),
        _images(images=255 - one.images),
        _images(images=one.images.reshape(2, 1, 9, 1)),
        _images(labels=np.array([1, 0], np.int32)),
        _images(class_names=("a", "c")),
    ]
    assert len({x.fingerprint for x in [one, *others]}) == 6


def test_classes_are_taken_and_renumbered_in_the_order_named():
    data = Images(
        "five",
        np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1),
        np.array([2, 0, 1, 2, 0], np.int32),
        ("a", "b", "c"),
    )
    part = data.take_classes(["c", "a"], name="part")
    assert part.class_names == ("c", "a")
    assert np.ravel(part.images).tolist() == [0, 1, 3, 4]
    assert part.labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"part: 1 classes are not in five.*\['d'\]"):
        data.take_classes(["a", "d"], name="part")
    with pytest.raises(ValueError, match="part: a class is named twice"):
        data.take_classes(["a", "a"], name="part")


def test_rotations_turn_anticlockwise_and_are_classes():
    turned = rotations(_images())
    assert turned.class_names[:5] == (
        "a/rot000", "a/rot090", "a/rot180", "a/rot270", "b/rot000",
    )  # fmt: skip
    assert turned.num_classes == 8
    image = _images().images[1, :, :, 0]
    for k in range(4):
        row = np.flatnonzero(turned.labels == 4 + k)
        np.testing.assert_array_equal(
            turned.images[row[0]][:, :, 0], np.rot90(image, k)
        )
    # np.rot90(x, 1) brings the right column to the top.
    np.testing.assert_array_equal(np.rot90(image)[0], image[:, -1])
    with pytest.raises(ValueError, match="expected square images to rotate, got 1x9"):
        rotations(_images(images=_images().images.reshape(2, 1, 9, 1)))


def test_arrays_become_a_data_set(rng):
    floating = rng.integers(0, 256, (4, 5, 5)) / 255
    data = from_arrays(floating, np.array([0, 1, 1, 0]))
    np.testing.assert_array_equal(data.images[..., 0], np.round(floating * 255))
    assert data.class_names == ("0", "1") and data.labels.dtype == np.int32
    pixels = (floating * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    named = from_arrays(pixels, np.array([0, 1, 1, 0]), class_names=["x", "y"])
    assert named.images is pixels and named.class_names == ("x", "y")


def test_labels_that_are_no_integers_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"integer labels .*got .*type float64"):
        from_arrays(np.zeros((2, 4, 4), np.uint8), np.array([0.9, 1.7]))


_NAN = np.zeros((3, 4, 4))
_NAN[2, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 4), np.uint8), r"\[n, height, width\].*got \(3, 4\)"),
        (np.zeros((3, 0, 4), np.uint8), r"all at least 1, got \(3, 0, 4\)"),
        (
            np.zeros((2, 4, 4), np.uint8),
            r"labels of shape \(2,\), one per image, got shape \(3,\) and",
        ),
        (np.zeros((3, 4, 4), np.int64), "uint8 from 0 to 255 or floating .*got int64"),
        (_NAN, "without NaN, got pixels from nan to nan in image 2"),
        (np.full((3, 4, 4), 255.0), "got pixels from 255.0 to 255.0 in image 0"),
    ],
    ids=["rank", "empty", "length", "type", "nan", "range"],
)
def test_arrays_that_are_no_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images, np.array([0, 1, 0]))


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, -1], None, "labels from 0 to 1048575.*class_names, got -1 for image 1"),
        ([2**33, 0], None, "labels from 0 to 1048575.*got 8589934592 for image 0"),
        ([0, 2**33], ("a", "b"), "labels from 0 to 1, got 8589934592 for image 1"),
        ([0, 2], ("a", "b"), "labels from 0 to 1, got 2 for image 1"),
    ],
)
def test_labels_outside_the_classes_are_refused(labels, names, message):
    images = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(ValueError, match=message):
        from_arrays(images, np.array(labels), class_names=names)


def test_shrunk_images_are_means_of_cells(rng):
    images = rng.integers(0, 256, (3, 6, 6, 2)).astype(np.uint8)
    data = Images("x", images, np.zeros(3, np.int32), ("a",))
    small = shrunk(data, 2).images
    for i, y, x, c in np.ndindex(3, 2, 2, 2):
        cell = images[i, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3, c]
        assert abs(float(small[i, y, x, c]) - cell.mean()) <= 0.5
    with pytest.raises(ValueError, match="a side that divides the 6x6 .*, got 4"):
        shrunk(data, 4)


class _Store:
    """A store that counts how often each image is read."""

    def __init__(self, images):
        self.shape, self.images = images.shape, images
        self.read = np.zeros(len(images), int)

    def __getitem__(self, rows):
        np.add.at(self.read, rows, 1)
        return self.images[rows]


def _stored(rng, n=12):
    store = _Store(rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8))
    labels = (np.arange(n) % 3).astype(np.int32)
    return Images("stored", View.of(store), labels, ("a", "b", "c")), store


def test_images_that_parts_share_are_read_once(rng):
    data, store = _stored(rng)
    parts = {
        "trainval": data.take(np.arange(10), name="trainval"),
        "train": data.take(np.arange(2, 9), name="train"),
        "turned": rotations(data.take(np.array([7, 1]), name="turned")),
    }
    expected = {name: np.asarray(part.images) for name, part in parts.items()}
    prints = {name: part.fingerprint for name, part in parts.items()}
    store.read[:] = 0
    read = read_images(parts)
    assert store.read.tolist() == [1] * 10 + [0] * 2
    for name, part in read.items():
        np.testing.assert_array_equal(np.asarray(part.images), expected[name])
        assert part.fingerprint == prints[name] and part.name == parts[name].name
        np.testing.assert_array_equal(part.labels, parts[name].labels)
    assert store.read.sum() == 10


def test_parts_without_common_images_become_arrays(rng):
    data, store = _stored(rng)
    rows = {"train": np.array([0, 3, 1, 7]), "test": np.array([2, 9])}
    read = read_images({k: data.take(x, name=k) for k, x in rows.items()})
    for name, part in read.items():
        assert isinstance(part.images, np.ndarray)
        np.testing.assert_array_equal(part.images, store.images[rows[name]])
    in_memory = {"a": from_arrays(store.images[:2], np.arange(2)), "b": data}
    both = read_images(in_memory)
    np.testing.assert_array_equal(both["a"].images, store.images[:2])
    np.testing.assert_array_equal(both["b"].images, store.images)


def test_a_bar_shows_that_a_fingerprint_decodes(rng, capsys):
    data, _ = _stored(rng)
    assert data.fingerprint == data.in_memory().fingerprint
    assert "decoding 12 images" in capsys.readouterr().err
    assert len(_images().fingerprint) == 16 and not capsys.readouterr().err


def test_images_above_the_limit_are_not_read(rng):
    data, store = _stored(rng)
    parts = {k: data.take(np.arange(10), name=k) for k in ("one", "same")}
    same = read_images(parts, limit=10 * 16 - 1.0)
    assert all(same[name] is part for name, part in parts.items())
    assert not store.read.any() and read_images({}) == {}
    one, same = (x.images for x in read_images(parts, limit=10 * 16.0).values())
    assert np.shares_memory(one, same)
    assert store.read.sum() == 10
    empty = read_images({"none": data.take(np.arange(0), name="none")})["none"]
    assert len(empty.images) == 0
