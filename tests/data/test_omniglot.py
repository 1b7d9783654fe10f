import hashlib
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxfer.data import Images, omniglot_split
from jaxfer.data.omniglot import omniglot, prepare
from jaxfer.data.tfds import Records

CLASSES = {"train": 4112, "val": 688, "trainval": 4800, "test": 1692}
# Hashes of the newline-joined, sorted character names of Snell's "vinyals" split.
HASHES = {
    "train": "c350ea5778649d32",
    "val": "d3f56052fbd17195",
    "trainval": "5435dc6ff29a6215",
    "test": "bbbdc01c73fd2d34",
}


@pytest.fixture(scope="module")
def parts(omniglot_images):
    return {name: omniglot_split(omniglot_images, name) for name in CLASSES}


def test_all_characters_are_there_twenty_times(omniglot_images):
    assert omniglot_images.images.shape == (32460, 28, 28, 1)
    assert (np.bincount(omniglot_images.labels) == 20).all()
    assert omniglot_images.num_classes == 1623
    assert np.unique(omniglot_images.images).tolist() == [0, 255]
    # Ink is the high value, and there is less of it than of paper.
    assert 0.05 < (omniglot_images.images > 0).mean() < 0.12


def test_pixels_are_what_they_were(omniglot_images):
    assert omniglot_images.fingerprint == FINGERPRINT


FINGERPRINT = "ba3b21637d5bf5c0"


@pytest.mark.parametrize("name", CLASSES)
def test_split_is_the_published_one(parts, real_data, name):
    part = parts[name]
    assert part.num_classes == CLASSES[name]
    assert len(part.images) == 20 * CLASSES[name]
    characters = sorted({c.rsplit("/", 1)[0] for c in part.class_names})
    digest = hashlib.sha256("\n".join(characters).encode()).hexdigest()
    assert digest[:16] == HASHES[name]
    listed = (real_data / "omniglot_splits" / "vinyals" / f"{name}.txt").read_text()
    assert set(part.class_names) == set(listed.split())


def test_parts_share_no_character(parts):
    names = {
        name: {c.rsplit("/", 1)[0] for c in part.class_names}
        for name, part in parts.items()
    }
    assert not names["trainval"] & names["test"]
    assert not names["train"] & names["val"]
    assert names["train"] | names["val"] == names["trainval"]


def test_pixels_are_those_of_the_released_code(real_data, parts):
    """Rotate, resize in 1-bit mode, invert and transpose with the original tools."""
    image_module = pytest.importorskip("PIL.Image")
    import tensorflow_datasets as tfds

    builder = tfds.builder("omniglot", data_dir=str(real_data / "tfds"))
    source = builder.as_data_source(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    alphabets = builder.info.features["alphabet"].names
    test, seen, checked = parts["test"], {}, 0
    for record in source:
        number = int(record["alphabet_char_id"]) + 1
        name = f"{alphabets[int(record['alphabet'])]}/character{number:02d}"
        nth = seen.setdefault(name, 0)
        seen[name] += 1
        if f"{name}/rot000" not in test.class_names or nth > 0:
            continue
        drawing = image_module.open(io.BytesIO(record["image"])).convert("1")
        for k in range(4):
            c = test.class_names.index(f"{name}/rot{90 * k:03d}")
            resized = drawing.rotate(90 * k).resize((28, 28))
            expected = (1 - np.asarray(resized, np.float32)).T
            ours = test.images[np.flatnonzero(test.labels == c)[nth]][:, :, 0]
            np.testing.assert_array_equal(ours / 255, expected)
            checked += 1
        if checked == 400:
            return
    pytest.fail(f"only {checked} images were checked")


@pytest.mark.parametrize("paper", [1, 255])
def test_both_decodings_of_a_1_bit_image_give_the_same_ink(rng, paper):
    # PIL decodes to 0/1, OpenCV and TensorFlow to 0/255.
    bits = rng.integers(0, 2, (105, 105)).astype(np.uint8)
    ours = prepare(bits * np.uint8(paper))
    for i in range(28):
        for j in range(28):
            pixel = bits[int((i + 0.5) * 105 / 28), int((j + 0.5) * 105 / 28)]
            assert ours[i, j] == 255 * (1 - pixel)


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        (np.zeros((28, 28), np.uint8), r"105x105 pixels, got shape \(28, 28\)"),
        (np.full((105, 105), 7, np.uint8), r"a 1-bit image .*, got pixel levels \[7\]"),
    ],
)
def test_what_is_no_drawing_is_refused(unchecked, drawing, message):
    with pytest.raises(ValueError, match=message):
        prepare(drawing)


def test_half_of_omniglot_is_refused(monkeypatch, omniglot_images):
    half = Images(
        "omniglot",
        omniglot_images.images[:20],
        omniglot_images.labels[:20],
        omniglot_images.class_names[:1],
    )
    with pytest.raises(ValueError, match="1623 characters in omniglot, got 1"):
        omniglot_split(half, "test")
    blank = io.BytesIO()
    pytest.importorskip("PIL.Image").new("1", (105, 105)).save(blank, "PNG")
    record = {"alphabet": 0, "alphabet_char_id": 0, "image": blank.getvalue()}
    # Use sys.modules: the function omniglot hides the module in its package.
    module = sys.modules["jaxfer.data.omniglot"]
    features = {"alphabet": SimpleNamespace(names=["Futhorc"])}
    opened = Records([record], features, "file")
    monkeypatch.setattr(module, "open_records", lambda *_: opened)
    with pytest.raises(ValueError, match="in here, got 2 drawings of 1 characters"):
        omniglot("here")


def test_without_tfds_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxfer\[data\]'"):
        omniglot("here")


def test_files_of_another_format_are_refused(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    (tmp_path / "omniglot").mkdir()
    with pytest.raises(ValueError, match="ArrayRecord files, got .*: prepare it with"):
        omniglot(tmp_path)


def test_unknown_split_is_refused(omniglot_images):
    with pytest.raises(ValueError, match="one of .*, got split 'dev' of omniglot"):
        omniglot_split(omniglot_images, "dev")
