"""Photographs in one folder per class, compared with Pillow and the files."""

import dataclasses
import shutil
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

import jaxfer
from jaxfer.data import (
    from_arrays,
    image_folder,
    load,
    loose_images,
    official_split,
    random_class_split,
)
from jaxfer.nets import Flatten


def _resized(file, side):
    with Image.open(file) as image:
        size = (side, side)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def test_a_folder_a_class_with_parts(parted):
    data = image_folder(parted, 40)
    classes = sorted(path.name for path in (parted / "train").iterdir())
    assert data.class_names == tuple(classes) and data.num_train == 18
    files = [
        file
        for part in ("train", "test")
        for name in classes
        for file in sorted((parted / part / name).iterdir())
    ]
    assert len(files) == len(data.images) == 36
    for row in (0, 17, 18, 35):
        np.testing.assert_array_equal(data.images[row], _resized(files[row], 40))
        assert data.class_names[data.labels[row]] == files[row].parent.name
    assert [*data.images.shape] == [36, 40, 40, 3]


def test_a_folder_without_parts_is_divided_once_for_all(photographs):
    data = image_folder(photographs, 8)
    train, test = (official_split(data, part) for part in ("trainval", "test"))
    np.testing.assert_array_equal(np.bincount(train.labels), [10, 10, 10])
    np.testing.assert_array_equal(np.bincount(test.labels), [2, 2, 2])
    assert image_folder(photographs, 8).fingerprint == data.fingerprint
    pixels = {x.tobytes() for x in data.in_memory().images}
    assert len(pixels) == 36
    # These are not the first files, which may be by one photographer.
    first = _resized(min((photographs / data.class_names[0]).iterdir()), 8)
    chosen = image_folder(photographs, 8).in_memory().images
    assert not (chosen[0] == first).all()


def test_parts_are_loaded_by_name(parted):
    parts = load(
        "folder", ["train", "val", "trainval", "test"], parted, by="example", side=16
    )
    counts = {name: np.bincount(x.labels).tolist() for name, x in parts.items()}
    assert counts == {
        "train": [5, 5, 5],
        "val": [1, 1, 1],
        "trainval": [6, 6, 6],
        "test": [6, 6, 6],
    }


def test_classes_are_dealt_out_for_episodes(photographs):
    parts = load("folder", ["train", "val", "trainval", "test"], photographs, side=8)
    names = {name: part.class_names for name, part in parts.items()}
    assert sorted(names["trainval"]) == sorted((*names["train"], *names["val"]))
    dealt = sorted((*names["trainval"], *names["test"]))
    assert dealt == ["kite", "robin", "wren"]
    # A class has all its images, whichever part they are in by example.
    assert all(len(parts[name].images) == 12 for name in ("train", "val", "test"))
    many = from_arrays(np.zeros((100, 2, 2)), np.arange(100))
    sizes = [random_class_split(many, x).num_classes for x in ("train", "val", "test")]
    assert sizes == [64, 16, 20]
    with pytest.raises(ValueError, match="at least 3 classes in kite, .* got 2"):
        few = parts["train"].take_classes(names["train"], name="kite")
        random_class_split(
            dataclasses.replace(few, class_names=(*names["train"], "b")), "val"
        )


def test_parts_with_classes_of_their_own_are_those_of_episodes(photographs, tmp_path):
    for part, name in (("train", "wren"), ("val", "kite"), ("test", "robin")):
        shutil.copytree(photographs / name, tmp_path / part / name)
    parts = load("folder", ["train", "val", "trainval", "test"], tmp_path, side=8)
    names = {name: part.class_names for name, part in parts.items()}
    assert names == {
        "train": ("wren",),
        "val": ("kite",),
        "trainval": ("kite", "wren"),
        "test": ("robin",),
    }
    assert [len(part.images) for part in parts.values()] == [12, 12, 24, 12]
    shutil.copytree(photographs / "kite", tmp_path / "test" / "kite")
    with pytest.raises(ValueError, match=r"different classes .* got \['kite'\] in"):
        load("folder", ["test"], tmp_path)


def test_a_part_to_validate_on_is_trained_on_or_tests(parted, tmp_path):
    shutil.copytree(parted, tmp_path / "all")
    for own in (tmp_path / "all" / "test").iterdir():
        for file in sorted(own.iterdir())[:2]:
            place = tmp_path / "all" / "val" / own.name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
    assert image_folder(tmp_path / "all", 8).num_train == 3 * 8
    shutil.rmtree(tmp_path / "all" / "test")
    data = image_folder(tmp_path / "all", 8)
    assert (len(data.images), data.num_train) == (3 * 8, 3 * 6)


def test_only_images_of_classes_are_met(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "mine")
    expected = image_folder(tmp_path / "mine", 8).in_memory()
    first = tmp_path / "mine" / "kite"
    (first / "kite05.jpg").rename(first / "KITE05.JPG")
    (first / "._kite00.jpg").write_bytes(b"of another system")
    (first / "folder.png").mkdir()
    shutil.copytree(first, tmp_path / "mine" / ".thumbnails")
    shutil.copytree(first, tmp_path / "mine" / "folder.cache")
    (tmp_path / "mine" / "up").symlink_to(tmp_path / "mine")
    (first / "more").mkdir()
    (first / "kite11.jpg").rename(first / "more" / "kite11.jpg")
    found = image_folder(tmp_path / "mine", 8).in_memory()
    assert found.class_names == expected.class_names and found.name == "mine"
    assert {x.tobytes() for x in found.images} == {x.tobytes() for x in expected.images}


def test_a_class_is_divided_by_its_name_alone(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "mine")
    before = official_split(image_folder(tmp_path / "mine", 8), "test").in_memory()
    shutil.copytree(photographs / "kite", tmp_path / "mine" / "albatross")
    after = official_split(image_folder(tmp_path / "mine", 8), "test").in_memory()
    np.testing.assert_array_equal(after.images[after.labels > 0], before.images)


def test_what_is_no_folder_of_classes_is_refused(tmp_path, photographs, parted):
    with pytest.raises(
        ValueError, match="a directory of images, got .*nowhere, which does not"
    ):
        image_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none yet")
    with pytest.raises(
        ValueError, match="expected images in .*empty, files that .*none"
    ):
        image_folder(tmp_path)
    file = next(photographs.glob("*/*"))
    (tmp_path / "empty" / "one.jpg").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="at least two images in .*empty, .*got one"):
        image_folder(tmp_path)
    for part in ("train", "test"):
        (tmp_path / "half" / part / part).mkdir(parents=True)
        (tmp_path / "half" / part / part / "a.jpg").write_bytes(file.read_bytes())
    with pytest.raises(
        ValueError, match="at least two .*half/test, .*got one, as in 1 other class"
    ):
        image_folder(tmp_path / "half")
    shutil.copytree(tmp_path / "half/train/train", tmp_path / "half/test/train")
    with pytest.raises(
        ValueError, match=r"got \['train'\] in two .* such as \['test'\], in one part"
    ):
        image_folder(tmp_path / "half")
    (tmp_path / "empty" / "two.jpg").write_bytes(b"not a picture")
    shutil.rmtree(tmp_path / "half")
    data = image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"two.jpg is damaged \(cannot identify"):
        data.in_memory()
    with pytest.raises(ValueError, match="side of at least 1, got 0"):
        image_folder(parted, 0)


def test_real_photographs_are_read(real_data, tmp_path):
    with zipfile.ZipFile(
        real_data / "cub" / "cub200_2010_10classes_short160.zip"
    ) as file:
        file.extractall(tmp_path)
    data = image_folder(tmp_path, 32)
    assert data.num_classes == 10 and len(data.images) == 294
    assert data.class_names[0] == "001.Black_footed_Albatross"
    pixels = data.in_memory().images
    # Photographs are neither blank nor noise.
    assert 20 < pixels.std() < 100
    assert np.abs(np.diff(pixels.astype(int), axis=2)).mean() < 25


def test_one_image_a_class_is_too_few_without_parts(real_data, tmp_path):
    with zipfile.ZipFile(
        real_data / "imagenet_sample" / "imagenet_1k_one_per_class_short128.zip"
    ) as file:
        for name in file.namelist()[:3]:
            file.extract(name, tmp_path)
    with pytest.raises(ValueError, match="at least two images in .*n01440764, .*got"):
        image_folder(tmp_path)


def test_loose_images_are_embedded_and_classified(photographs, parted, tmp_path):
    """A flat folder without labels, by a model of prototypes of a labelled folder."""
    for file in photographs.glob("*/*"):
        (tmp_path / "more").mkdir(exist_ok=True)
        (tmp_path / "more" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "more/kite00.jpg").rename(tmp_path / "first.jpg")
    (tmp_path / "list.txt").write_text("not an image")
    images, names = loose_images(tmp_path, 12)
    assert len(names) == 36 and names[:2] == ("first.jpg", "more/kite01.jpg")
    expected = _resized(tmp_path / "more/wren11.jpg", 12)
    np.testing.assert_array_equal(images[-1], expected)
    model = jaxfer.init_model(Flatten(), (12, 12, 3), jax.random.key(0))
    support = official_split(image_folder(parted, 12), "trainval")
    model = jaxfer.with_prototypes(model, support)
    assert jaxfer.embed(model, images).shape == (36, 12 * 12 * 3)
    found = jaxfer.predict(model, images).names
    assert found[0] == "kite"
    assert found[1:] == [name.split("/")[1][:-6] for name in names[1:]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected images in .*empty, got none"):
        loose_images(tmp_path / "empty")


def test_excluded_classes_are_not_compared_between_parts(parted, tmp_path):
    shutil.copytree(parted, tmp_path / "all")
    shutil.rmtree(tmp_path / "all" / "test" / "wren")
    with pytest.raises(ValueError, match=r"1 class, such as \['wren'\], in one part"):
        image_folder(tmp_path / "all", 8)
    data = image_folder(tmp_path / "all", 8, exclude_classes=["wren", "owl"])
    assert data.class_names == ("kite", "robin") and data.num_train == 12
    with pytest.raises(ValueError, match="not excluded, got none of 3"):
        image_folder(tmp_path / "all", 8, exclude_classes=["wren", "kite", "robin"])
