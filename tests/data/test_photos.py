"""Photographs of folders and of records, compared with Pillow and the files."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from jaxfer import tensors
from jaxfer.data import (
    Photos,
    image_folder,
    load,
    official_split,
    photos,
    read_excluded,
    tfds_photos,
    write_cache,
)
from jaxfer.data.loading import cache_directory
from jaxfer.data.tfds import Records


def test_files_that_are_named_are_left_out(parted, tmp_path, capsys):
    whole = image_folder(parted, 8)
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
        ValueError, match=r"files of .*; got 1 other name .*\['nobody.jpg'\]"
    ):
        image_folder(parted, 8, read_excluded(listed))
    capsys.readouterr()
    some = image_folder(parted, 8, {"nobody.jpg", f"train/{own.name}/{one.name}"})
    assert len(some.labels) == 35
    assert "ignored 1 of 2 names in exclude, such as 'nobody" in capsys.readouterr().out
    listed.write_text("# nothing\n")
    with pytest.raises(ValueError, match="one file name per line in .*, got none"):
        read_excluded(listed)
    with pytest.raises(ValueError, match="photographs only, got .*out.txt for glyphs"):
        load("glyphs", ["train"], exclude=listed)


def test_the_published_list_of_birds_in_imagenet_is_read(real_data):
    found = read_excluded(real_data / "cub" / "ImageNet_CUBirds_duplicates.txt")
    listed = (real_data / "cub" / "CUB_200_2011" / "images.txt").read_text()
    there = {line.split("/")[-1] for line in listed.splitlines()}
    assert len(found) == 43 and found < there


def _written(image, kind, **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def _read(encoded, side=4):
    return Photos(lambda row: encoded, 1, side, lambda row: "it")[np.array([0])][0]


def test_pixels_are_those_one_sees():
    # Telephones store images sideways: red is on top after the EXIF rotation.
    sideways = Image.new("RGB", (4, 4), "blue")
    sideways.paste("red", (0, 0, 2, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = _read(_written(sideways, "PNG", exif=exif))
    np.testing.assert_array_equal(upright[0], [[255, 0, 0]] * 4)
    np.testing.assert_array_equal(upright[3], [[0, 0, 255]] * 4)
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert _read(_written(clear, "PNG")).min() == 255
    deep = Image.fromarray(np.full((4, 4), 257 * 123, np.uint16))
    assert (_read(_written(deep, "PNG")) == 123).all()
    grey = Image.new("L", (4, 4), 77)
    assert (_read(_written(grey, "PNG")) == 77).all()
    with pytest.raises(ValueError, match="it is damaged .expected .*, got mode 'F'"):
        _read(_written(Image.new("F", (4, 4)), "TIFF"))


def test_an_image_above_the_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(
            ValueError,
            match="^it: .* at most 70 pixels, got 9 x 9: shrink",
        ),
    ):
        _read(_written(Image.new("L", (9, 9)), "PNG"))
    assert _read(_written(Image.new("L", (8, 8)), "PNG")).size


def test_a_file_that_fails_for_a_moment_is_read_again(monkeypatch):
    encoded, failures, waited = _written(Image.new("L", (4, 4), 9), "PNG"), [], []
    monkeypatch.setattr(tensors.time, "sleep", waited.append)

    def read(row):
        if len(failures) < lasting:
            failures.append(row)
            raise OSError(5, "Input/output error", "a file")
        return encoded

    photos = Photos(read, 1, 2, lambda row: f"file {row}")
    lasting = 2
    assert (photos[np.array([0])] == 9).all() and len(waited) == 2
    failures.clear()
    lasting = 99
    with pytest.raises(ValueError, match="file 0 is damaged .*Input/output error"):
        photos[np.array([0])]
    assert len(failures) == 4 and waited[2:] == sorted(waited[2:])


def test_a_huge_image_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="it is damaged .Image size .* exceeds limit"):
        _read(_written(Image.new("L", (9, 9)), "PNG"))


def test_without_pillow_the_extra_is_named(photographs, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ValueError, match=r"expected Pillow .*'jaxfer\[data\]'"):
        image_folder(photographs)


def _broken(encoded, side):
    raise OSError("cannot identify image file")


class _Source:
    """Records of the files of a part, with labels in any order."""

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
    """Only the records of birds have names of files and classes."""
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
    data, same = tfds_photos(name, "somewhere", 24), image_folder(parted, 24)
    assert (data.class_names, data.num_train) == (same.class_names, same.num_train)
    assert data.fingerprint == same.fingerprint
    with pytest.raises(ValueError, match="record 2 of test.x is damaged"):
        monkeypatch.setattr(photos, "_decoded", _broken)
        data.images[np.array([18 + 2])]
    out = sorted((parted / "train").glob("*/*"))[3]
    if birds:
        assert len(tfds_photos(name, "somewhere", 24, [out.name]).images) == 35
    else:
        with pytest.raises(ValueError, match="whose records have no file names, got 1"):
            tfds_photos(name, "somewhere", 24, [out.name])


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
    data = tfds_photos("caltech_birds2011", tmp_path, 24)
    # Records are shuffled when they are written.
    same = image_folder(parted, 24)
    key = lambda x: (x[0], x[1].tobytes())  # noqa: E731
    for part in ("trainval", "test"):
        one, other = (official_split(x, part).in_memory() for x in (data, same))
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
    data = image_folder(parted, 8)
    path = write_cache(data, cache_directory("folder", tmp_path))
    (again,) = load("folder", ["test"], tmp_path, by="example").values()
    assert len(again.images) == 18
    with pytest.raises(ValueError, match="no exclude for the cache .*, got out.txt"):
        load("folder", ["test"], tmp_path, by="example", exclude="out.txt")
    with pytest.raises(ValueError, match="side = 4 in .*, got 8x8 images: write it"):
        load("folder", ["test"], tmp_path, by="example", side=4)
    images = np.load(path / "images.npy", mmap_mode="r+")
    images[0, 0, 0] ^= 1
    images.flush()
    with pytest.raises(ValueError, match="damaged"):
        load("folder", ["test"], tmp_path, by="example")
    monkeypatch.setattr("jaxfer.data.cache._TRUSTED", 0)
    from jaxfer.data import read_cache

    trusted = read_cache(path)
    assert trusted.fingerprint == data.fingerprint
    # Its parts are not read either: their fingerprints depend on their rows.
    parts = [official_split(trusted, name) for name in ("train", "test", "test")]
    words = [part.fingerprint for part in parts]
    assert words[1] == words[2] and len({*words, data.fingerprint}) == 3
    assert parts[0].in_memory().fingerprint != words[0]
