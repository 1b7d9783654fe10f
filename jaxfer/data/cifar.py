"""CIFAR-100 from TFDS, without TensorFlow."""

import io
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from jaxfer.data.images import Images
from jaxfer.data.tfds import naming, open_records

SIZES = {"train": 50_000, "test": 10_000}


def cifar100(directory: str | Path) -> Images:
    """All 60,000 images of CIFAR-100 (Krizhevsky 2009), training images first.

    Classes are named "superclass/class" and keep the numbers of the data set, which
    follow the alphabetical order.

    Args:
        directory: TFDS data directory that contains `cifar100`.

    Returns:
        Decoded uint8 images `[60000, 32, 32, 3]`.

    Raises:
        ValueError: tensorflow-datasets is missing, the files have another format or are
            damaged, or the number of images is wrong.
    """
    n = sum(SIZES.values())
    images = np.empty((n, 32, 32, 3), np.uint8)
    labels, above = np.empty(n, np.int32), np.empty(n, np.int32)
    parts = [open_records("cifar100", Path(directory), split) for split in SIZES]
    found = [len(part.source) for part in parts]
    if found != [*SIZES.values()]:
        raise ValueError(
            f"expected {SIZES} images of cifar100 in {directory}, got {found}: prepare "
            "it with `python -m jaxfer prepare cifar100 --to DIR`"
        )
    places = [(part, row) for part in parts for row in range(len(part.source))]
    part, row = places[0]
    with naming(lambda: part.place(row)):
        for i, (part, row) in enumerate(tqdm(places, "reading cifar100", leave=False)):
            record = part.source[row]
            images[i] = _decode(record["image"])
            labels[i], above[i] = record["label"], record["coarse_label"]
    features = parts[0].features
    fine, coarse = features["label"].names, features["coarse_label"].names
    # The first example of each class gives its superclass.
    present, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    superclasses = above[first]
    names = tuple(
        f"{coarse[s]}/{fine[c]}" for c, s in zip(present, superclasses, strict=True)
    )
    num_train = SIZES["train"]
    return Images(
        "cifar100", images, labels.astype(np.int32), names, num_train=num_train
    )


def _decode(png: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
