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
# target pixel, rounded down. Symmetric, so it commutes with turning by right angles.
_NEAREST = ((np.arange(SIDE) * 2 + 1) * 105) // (2 * SIDE)


class Drawings:
    """The drawings of the records of TFDS, decoded when they are asked for.

    Rows count the records of "train", then those of "test". Safe to read from several
    threads.

    Args:
        directory: a TFDS data directory that holds `omniglot`.

    Raises:
        ValueError: no tensorflow-datasets, files of another format, or, on reading, a
            record that is damaged.
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
        """Of each row: its half of the alphabets, its alphabet, its character."""
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
    """All 1623 characters of Omniglot, 20 drawings each, in the order of its splits.

    Classes are named "Alphabet/characterNN" and ordered: background alphabets, then
    evaluation alphabets, each alphabetically, characters by number. Within a class the
    drawings keep the order of the records.

    Args:
        directory: a TFDS data directory that holds `omniglot`.

    Returns:
        uint8 images `[32460, 28, 28, 1]`, ink 255 on 0, a view that decodes them when
        they are asked for.

    Raises:
        ValueError: no tensorflow-datasets, files of another format, damaged ones, or
            records that are not 20 drawings each of 1623 characters.
    """
    drawings = Drawings(directory)
    characters = drawings.characters()
    order = sorted(range(len(characters)), key=characters.__getitem__)
    keys = [f"{a}/character{n:02d}" for _, a, n in (characters[row] for row in order)]
    class_names = tuple(dict.fromkeys(keys))
    index = {name: i for i, name in enumerate(class_names)}
    if len(class_names) != 1623 or len(keys) != 1623 * 20:
        raise ValueError(
            f"found {len(keys)} drawings of {len(class_names)} characters in "
            f"{directory}, needed 20 each of 1623"
        )
    return Images(
        name="omniglot",
        images=View.of(drawings).take(np.array(order)),
        labels=np.array([index[key] for key in keys], np.int32),
        class_names=class_names,
    )


def prepare(drawing: UInt8[np.ndarray, "105 105"]) -> UInt8[np.ndarray, "28 28"]:
    """One drawing, resized to 28x28 by nearest neighbour and inverted.

    Exactly the pixels of the released code, which turns the drawing before and
    transposes it after (see `splits.omniglot_split`).

    Args:
        drawing: ink 0 on paper 1, or on paper 255: decoders disagree on 1-bit images.

    Returns:
        ink 255 on 0.

    Raises:
        ValueError: another shape, or pixels of more than two levels.

    Example:
        >>> prepare(np.zeros((105, 105), np.uint8)).max().item()
        255
    """
    if drawing.shape != (105, 105):
        raise ValueError(
            f"found a drawing of shape {drawing.shape}, needed 105x105 pixels"
        )
    levels = np.unique(drawing).tolist()
    if len(levels) > 2 or not set(levels) <= {0, 1, 255}:
        raise ValueError(
            f"found pixel levels {levels[:5]}, needed a 1-bit image as 0/1 or 0/255"
        )
    ink = drawing[np.ix_(_NEAREST, _NEAREST)] == 0
    return ink * np.uint8(255)


def _decode(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))
