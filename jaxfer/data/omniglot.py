"""Omniglot from TFDS, prepared as Snell et al. 2017 released it, without TensorFlow."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm.auto import tqdm

from jaxfer.data.images import Images
from jaxfer.data.tfds import naming, open_records
from jaxfer.data.view import View

SIDE = 28
# Sampling points of a nearest-neighbour resize from 105 pixels: the middle of each
# target pixel, rounded down. They are symmetric, so the resize commutes with rot90.
_NEAREST = ((np.arange(SIDE) * 2 + 1) * 105) // (2 * SIDE)


class Drawings:
    """The drawings of the TFDS records, decoded when they are indexed.

    Rows number the records of "train", then those of "test". Several threads may read
    at the same time.

    Args:
        directory: TFDS data directory that contains `omniglot`.

    Raises:
        ValueError: tensorflow-datasets is missing, the files have another format, or a
            record that is read is damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        """Open the files."""
        self._parts = [
            open_records("omniglot", Path(directory), split)
            for split in ("train", "test")
        ]
        self._in_train = len(self._parts[0].source)
        n = sum(len(part.source) for part in self._parts)
        self.shape = (n, SIDE, SIDE, 1)

    def __getitem__(self, rows: np.ndarray) -> UInt8[np.ndarray, "m 28 28 1"]:
        """The drawings of some rows."""
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        row = 0
        with naming(lambda: self._place(row)):
            for i, row in enumerate(np.asarray(rows).tolist()):
                images[i, ..., 0] = prepare(_decode(self._record(row)["image"]))
        return images

    def characters(self) -> list[tuple[int, str, int]]:
        """For each row: its half (0 train, 1 test), alphabet and character number."""
        found, row = [], 0
        names = [part.features["alphabet"].names for part in self._parts]
        with naming(lambda: self._place(row)):
            for row in tqdm(range(self.shape[0]), "omniglot", leave=False):
                record, half = self._record(row), int(row >= self._in_train)
                alphabet = names[half][int(record["alphabet"])]
                found.append((half, alphabet, int(record["alphabet_char_id"]) + 1))
        return found

    def _record(self, row: int) -> dict[str, Any]:
        if row < self._in_train:
            return self._parts[0].source[row]
        return self._parts[1].source[row - self._in_train]

    def _place(self, row: int) -> str:
        half = int(row >= self._in_train)
        return self._parts[half].place(row - half * self._in_train)


def omniglot(directory: str | Path) -> Images:
    """All 1623 characters of Omniglot, 20 drawings each, in the order of the splits.

    Classes are named "Alphabet/characterNN". Background alphabets come first, then
    evaluation alphabets, each in alphabetical order; characters are ordered by number.
    Within a class the drawings keep the order of the records.

    Args:
        directory: TFDS data directory that contains `omniglot`.

    Returns:
        uint8 images `[32460, 28, 28, 1]`, ink 255 on 0, as a view that decodes images
        when it is indexed.

    Raises:
        ValueError: tensorflow-datasets is missing, the files have another format or are
            damaged, or there are not 20 drawings of each of 1623 characters.
    """
    drawings = Drawings(directory)
    characters = drawings.characters()
    order = sorted(range(len(characters)), key=characters.__getitem__)
    keys = [f"{a}/character{n:02d}" for _, a, n in (characters[row] for row in order)]
    class_names = tuple(dict.fromkeys(keys))
    index = {name: i for i, name in enumerate(class_names)}
    if len(class_names) != 1623 or len(keys) != 1623 * 20:
        raise ValueError(
            f"expected 20 drawings of each of 1623 characters in {directory}, got "
            f"{len(keys)} drawings of {len(class_names)} characters"
        )
    return Images(
        name="omniglot",
        images=View.of(drawings).take(np.array(order)),
        labels=np.array([index[key] for key in keys], np.int32),
        class_names=class_names,
    )


def prepare(drawing: UInt8[np.ndarray, "105 105"]) -> UInt8[np.ndarray, "28 28"]:
    """Resize one drawing to 28x28 by nearest neighbour, and invert it.

    The pixels are exactly those of the released code, which rotates the drawing before
    this step and transposes it afterwards (see `splits.omniglot_split`).

    Args:
        drawing: ink 0 on paper 1 or 255, since decoders disagree on 1-bit images.

    Returns:
        The drawing, with ink 255 on 0.

    Raises:
        ValueError: the drawing has another shape, or pixels of more than two levels.

    Example:
        >>> prepare(np.zeros((105, 105), np.uint8)).max().item()
        255
    """
    if drawing.shape != (105, 105):
        raise ValueError(
            f"expected a drawing of 105x105 pixels, got shape {drawing.shape}"
        )
    levels = np.unique(drawing).tolist()
    if len(levels) > 2 or not set(levels) <= {0, 1, 255}:
        raise ValueError(
            f"expected a 1-bit image as 0/1 or 0/255, got pixel levels {levels[:5]}"
        )
    ink = drawing[np.ix_(_NEAREST, _NEAREST)] == 0
    return ink * np.uint8(255)


def _decode(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))
