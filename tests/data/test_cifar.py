import io

import numpy as np
import pytest
from PIL import Image

from jaxfer.data import cifar
from jaxfer.data.cifar import cifar100
from jaxfer.data.tfds import Records, open_records


@pytest.fixture(scope="module")
def records(real_data):
    pytest.importorskip("tensorflow_datasets")
    return open_records("cifar100", real_data / "tfds", "test")


@pytest.fixture
def few(records, monkeypatch):
    """Twenty records of the real test part in place of both parts."""

    class Source:
        def __len__(self):
            return 20

        def __getitem__(self, i):
            return records.source[i]

    part = Records(Source(), records.features, "some.array_record")
    monkeypatch.setattr(cifar, "open_records", lambda *_: part)
    monkeypatch.setattr(cifar, "SIZES", {"train": 20, "test": 20})
    return part


def test_classes_are_named_by_what_is_above_them_and_pixels_are_the_records(few):
    """If some classes do not occur in a data set, the others keep their names."""
    data = cifar100("nowhere")
    assert data.images.shape == (40, 32, 32, 3) and data.num_train == 20
    features = few.features
    for row in (0, 7, 19):
        record = few.source[row]
        fine = features["label"].names[record["label"]]
        above = features["coarse_label"].names[record["coarse_label"]]
        assert data.class_names[data.labels[row]] == f"{above}/{fine}"
        with Image.open(io.BytesIO(record["image"])) as image:
            np.testing.assert_array_equal(data.images[row], np.asarray(image))
    np.testing.assert_array_equal(data.images[:20], data.images[20:])


def test_another_number_of_images_is_refused(few, monkeypatch):
    monkeypatch.setattr(cifar, "SIZES", {"train": 20, "test": 21})
    with pytest.raises(ValueError, match=r"of cifar100 in x, got \[20, 20\]: prepare"):
        cifar100("x")


def test_a_damaged_record_is_named(few, monkeypatch):
    def broken(png):
        raise OSError("cannot identify image file")

    monkeypatch.setattr(cifar, "_decode", broken)
    with pytest.raises(ValueError, match="record 0 of some.array_record is damaged"):
        cifar100("x")
