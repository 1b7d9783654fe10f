"""CIFAR-100 from TFDS, without TensorFlow."""

import io
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from jaxfer.data.images import Images
from jaxfer.data.tfds import naming, open_records

SIZES = {"train": 50_000, "test": 10_000}


def cifar100(directory: str | Path) -> Images:
    """All 60,000 images of CIFAR-100 (Krizhevsky 2009), those of its train part first.

    Classes are named "superclass/class" and keep the numbers they have in the data set,
    which are those of the alphabet.

    Args:
        directory: a TFDS data directory that holds `cifar100`.

    Returns:
        uint8 images `[60000, 32, 32, 3]`, decoded.

    Raises:
        ValueError: no tensorflow-datasets, files of another format, damaged ones, or
            another number of images.
    """
    n = sum(SIZES.values())
    images = np.empty((n, 32, 32, 3), np.uint8)
    labels, above = np.empty(n, np.int32), np.empty(n, np.int32)
    parts = [open_records("cifar100", Path(directory), split) for split in SIZES]
    found = [len(part.source) for part in parts]
    if found != [*SIZES.values()]:
        raise ValueError(
            f"found {found} images of cifar100 in {directory}, needed {SIZES}"
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
    # One example of a class says which superclass it is of.
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
