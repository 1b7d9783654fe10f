"""Photographs from folders and from records, against Pillow and the files."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxfer.data import (
    drawn_classes,
    folder,
    from_arrays,
    given_examples,
    load,
    photos,
    read_excluded,
    recorded,
    write_cache,
)
from jaxfer.data.sources import cache_directory
from jaxfer.data.tfds import Records


@pytest.fixture(scope="module")
def parted(photographs, tmp_path_factory):
    """The same, six of each class to train on, under train/ and test/."""
    path = tmp_path_factory.mktemp("parted")
    for own in sorted(photographs.iterdir()):
        for i, file in enumerate(sorted(own.iterdir())):
            place = path / ("train" if i < 6 else "test") / own.name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return path


def _resized(file, side):
    with Image.open(file) as image:
        size = (side, side)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def test_a_folder_a_class_with_parts(parted):
    data = folder(parted, 40)
    classes = sorted(path.name for path in (parted / "train").iterdir())
    assert data.class_names == tuple(classes) and data.given == 18
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
    data = folder(photographs, 8)
    train, test = (given_examples(data, part) for part in ("trainval", "test"))
    np.testing.assert_array_equal(np.bincount(train.labels), [10, 10, 10])
    np.testing.assert_array_equal(np.bincount(test.labels), [2, 2, 2])
    assert folder(photographs, 8).fingerprint == data.fingerprint
    pixels = {x.tobytes() for x in data.in_memory().images}
    assert len(pixels) == 36
    # Not the first files, which may be of one photographer.
    first = _resized(min((photographs / data.class_names[0]).iterdir()), 8)
    chosen = folder(photographs, 8).in_memory().images
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
    # All images of a class, whichever part they are in by example.
    assert all(len(parts[name].images) == 12 for name in ("train", "val", "test"))
    many = from_arrays(np.zeros((100, 2, 2)), np.arange(100))
    sizes = [drawn_classes(many, x).num_classes for x in ("train", "val", "test")]
    assert sizes == [64, 16, 20]
    with pytest.raises(ValueError, match="found 2 classes in kite, needed 3"):
        few = parts["train"].take_classes(names["train"], name="kite")
        drawn_classes(
            dataclasses.replace(few, class_names=(*names["train"], "b")), "val"
        )


def test_files_that_are_named_are_left_out(parted, tmp_path):
    whole = folder(parted, 8)
    own = parted / "train" / whole.class_names[1]
    one, other = sorted(own.iterdir())[:2]
    listed = tmp_path / "out.txt"
    listed.write_text(
        f"# Both\n## In one # In the other\nn01/n01_2.JPEG\t# {one.name}\n\n"
        f"{own.name}/{other.name}\n"
    )
    assert read_excluded(listed) == {one.name, f"{own.name}/{other.name}"}
    (less,) = load(
        "folder", ["trainval"], parted, by="example", side=8, exclude=listed
    ).values()
    np.testing.assert_array_equal(np.bincount(less.labels), [6, 4, 6])
    np.testing.assert_array_equal(
        less.in_memory().images, np.delete(whole.in_memory().images[:18], [6, 7], 0)
    )
    listed.write_text("nobody.jpg\n")
    with pytest.raises(
        ValueError, match=r"found \['nobody.jpg'\] among files to leave"
    ):
        folder(parted, 8, read_excluded(listed))
    listed.write_text("# nothing\n")
    with pytest.raises(ValueError, match="found no name of a file in"):
        read_excluded(listed)
    with pytest.raises(ValueError, match="to leave out of glyphs, needed photographs"):
        load("glyphs", ["train"], exclude=listed)


def test_the_published_list_of_birds_in_imagenet_is_read(real_data):
    found = read_excluded(real_data / "cub" / "ImageNet_CUBirds_duplicates.txt")
    listed = (real_data / "cub" / "CUB_200_2011" / "images.txt").read_text()
    there = {line.split("/")[-1] for line in listed.splitlines()}
    assert len(found) == 43 and found < there


def test_what_is_no_folder_of_classes_is_refused(tmp_path, photographs, parted):
    with pytest.raises(ValueError, match="found no folders in .*, needed one a class"):
        folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none yet")
    with pytest.raises(
        ValueError, match="found no image in .*empty, needed files that"
    ):
        folder(tmp_path)
    file = next(photographs.glob("*/*"))
    (tmp_path / "empty" / "one.jpg").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="found one image in .*empty, needed two"):
        folder(tmp_path)
    for part in ("train", "test"):
        (tmp_path / "half" / part / part).mkdir(parents=True)
        (tmp_path / "half" / part / part / "a.jpg").write_bytes(file.read_bytes())
    with pytest.raises(
        ValueError, match=r"found classes \['test', 'train'\] in one of"
    ):
        folder(tmp_path / "half")
    (tmp_path / "empty" / "two.jpg").write_bytes(b"not a picture")
    (tmp_path / "half").rename(tmp_path / "empty" / "half")
    data = folder(tmp_path)
    with pytest.raises(ValueError, match=r"two.jpg is damaged \(cannot identify"):
        data.in_memory()
    with pytest.raises(ValueError, match="side = 0, needed at least 1"):
        folder(parted, 0)


def test_real_photographs_are_read(real_data, tmp_path):
    with zipfile.ZipFile(
        real_data / "cub" / "cub200_2010_10classes_short160.zip"
    ) as file:
        file.extractall(tmp_path)
    data = folder(tmp_path, 32)
    assert data.num_classes == 10 and len(data.images) == 294
    assert data.class_names[0] == "001.Black_footed_Albatross"
    pixels = data.in_memory().images
    # Photographs: neither blank nor noise.
    assert 20 < pixels.std() < 100
    assert np.abs(np.diff(pixels.astype(int), axis=2)).mean() < 25


def test_one_image_a_class_is_too_few_without_parts(real_data, tmp_path):
    with zipfile.ZipFile(
        real_data / "imagenet_sample" / "imagenet_1k_one_per_class_short128.zip"
    ) as file:
        for name in file.namelist()[:3]:
            file.extract(name, tmp_path)
    with pytest.raises(ValueError, match="found one image in .*n01440764, needed two"):
        folder(tmp_path)


class _Source:
    """Records of the files of a part, without labels in order."""

    def __init__(self, files, classes, named):
        self.files, self.classes, self.named = files, classes, named

    def __len__(self):
        return len(self.files)

    def __getitem__(self, row):
        file = self.files[row]
        record = {
            "image": file.read_bytes(),
            "label": np.int64(self.classes.index(file.parent.name)),
        }
        if self.named:
            record["image/filename"] = file.name.encode()
            record["label_name"] = file.parent.name.encode()
        return record


@pytest.mark.parametrize("name", ["caltech_birds2011", "i_naturalist2017"])
def test_records_are_read_as_folders_are(parted, monkeypatch, name):
    """Birds have names of files and classes in their records, the others have not."""
    classes = sorted(path.name for path in (parted / "train").iterdir())
    birds = name == "caltech_birds2011"

    class Label:
        names = ["0", "1", "2"] if birds else classes

    def records(found, directory, split):
        assert found == name and split in ("train", "test", "validation")
        part = "train" if split == "train" else "test"
        files = sorted((parted / part).glob("*/*"))
        return Records(_Source(files, classes, birds), {"label": Label}, f"{part}.x")

    monkeypatch.setattr(photos, "open_records", records)
    data, same = recorded(name, "somewhere", 24), folder(parted, 24)
    assert (data.class_names, data.given) == (same.class_names, same.given)
    assert data.fingerprint == same.fingerprint
    out = sorted((parted / "train").glob("*/*"))[3]
    if birds:
        assert len(recorded(name, "somewhere", 24, [out.name]).images) == 35
    else:
        with pytest.raises(
            ValueError, match="among files to leave out of i_naturalist"
        ):
            recorded(name, "somewhere", 24, [out.name])


def test_birds_as_tfds_prepares_them(parted, tmp_path):
    """ArrayRecord files with the features of the real builder, without TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")
    real = tfds.builder_cls("caltech_birds2011")
    classes = sorted(path.name for path in (parted / "train").iterdir())

    with tfds.core.registered.skip_registration():

        class CaltechBirds2011(tfds.core.GeneratorBasedBuilder):
            VERSION = real.VERSION

            def _info(self):
                features = real._info(self).features
                return tfds.core.DatasetInfo(builder=self, features=features)

            @property
            def _caltech_birds_info(self):
                return None

            def _split_generators(self, dl_manager):
                return {
                    part: self._generate_examples(part) for part in ("train", "test")
                }

            def _generate_examples(self, part):
                for path in sorted((parted / part).glob("*/*")):
                    mask = io.BytesIO()
                    Image.new("L", (4, 4)).save(mask, "PNG")
                    yield (
                        path.name,
                        {
                            "image": path.read_bytes(),
                            "image/filename": path.name,
                            "label": classes.index(path.parent.name),
                            "label_name": path.parent.name,
                            "bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
                            "segmentation_mask": mask.getvalue(),
                        },
                    )

    builder = CaltechBirds2011(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    data = recorded("caltech_birds2011", tmp_path, 24)
    # Records are shuffled when they are written.
    same = folder(parted, 24)
    key = lambda x: (x[0], x[1].tobytes())  # noqa: E731
    for part in ("trainval", "test"):
        one, other = (given_examples(x, part).in_memory() for x in (data, same))
        pairs = [
            sorted(zip(x.labels, x.images, strict=True), key=key) for x in (one, other)
        ]
        for (a, image), (b, expected) in zip(*pairs, strict=True):
            assert a == b
            np.testing.assert_array_equal(image, expected)
    assert data.class_names[:3] == same.class_names


def test_a_cache_keeps_parts_and_is_not_read_through_when_large(
    parted, tmp_path, monkeypatch
):
    data = folder(parted, 8)
    path = write_cache(data, cache_directory("folder", tmp_path))
    (again,) = load("folder", ["test"], tmp_path, by="example").values()
    assert len(again.images) == 18
    with pytest.raises(ValueError, match="needed a cache written without them"):
        load("folder", ["test"], tmp_path, by="example", exclude="out.txt")
    (smaller,) = load("folder", ["test"], tmp_path, by="example", side=4).values()
    assert smaller.images.shape == (18, 4, 4, 3)
    images = np.load(path / "images.npy", mmap_mode="r+")
    images[0, 0, 0] ^= 1
    images.flush()
    with pytest.raises(ValueError, match="damaged"):
        load("folder", ["test"], tmp_path, by="example")
    monkeypatch.setattr("jaxfer.data.cache._TRUSTED", 0)
    from jaxfer.data import read_cache

    assert read_cache(path).fingerprint == data.fingerprint
