"""Omniglot from TFDS, prepared as Snell et al. 2017 released it, without TensorFlow."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm.auto import tqdm

from jaxfer.data.images import Images

SIDE = 28
# Sampling points of a nearest-neighbour resize from 105 pixels: the middle of each
# target pixel, rounded down. Symmetric, so it commutes with turning by right angles.
_NEAREST = ((np.arange(SIDE) * 2 + 1) * 105) // (2 * SIDE)


def omniglot(directory: str | Path) -> Images:
    """All 1623 characters of Omniglot, 20 drawings each, in the order of its splits.

    Classes are named "Alphabet/characterNN" and ordered: background alphabets, then
    evaluation alphabets, each alphabetically, characters by number. Within a class the
    drawings keep the order of the records.

    Args:
        directory: a TFDS data directory that holds `omniglot`.

    Returns:
        uint8 images `[32460, 28, 28, 1]`, ink 255 on 0.

    Raises:
        ValueError: no tensorflow-datasets, files of another format, or records that
            are not 20 drawings each of 1623 characters.
    """
    rows: list[tuple[int, str, int, np.ndarray]] = []
    for part, name in enumerate(("train", "test")):
        source, alphabets = _open(Path(directory), name)
        for record in tqdm(source, f"omniglot {name}", unit="image", leave=False):
            alphabet = alphabets[int(record["alphabet"])]
            character = int(record["alphabet_char_id"]) + 1
            rows.append((part, alphabet, character, prepare(_decode(record["image"]))))
    rows.sort(key=lambda row: row[:3])
    keys = [f"{alphabet}/character{number:02d}" for _, alphabet, number, _ in rows]
    class_names = tuple(dict.fromkeys(keys))
    index = {name: i for i, name in enumerate(class_names)}
    if len(class_names) != 1623 or len(rows) != 1623 * 20:
        raise ValueError(
            f"found {len(rows)} drawings of {len(class_names)} characters in "
            f"{directory}, needed 20 each of 1623"
        )
    return Images(
        name="omniglot",
        images=np.stack([image for *_, image in rows])[..., None],
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


def _open(directory: Path, split: str) -> tuple[Sequence[dict[str, Any]], list[str]]:
    try:
        # Heavy, optional, and slow to import.
        import tensorflow_datasets as tfds
    except ImportError as e:
        raise ValueError(
            f"found no tensorflow-datasets to read omniglot in {directory} with: "
            "pip install 'jaxfer[data]', or bring an array cache that "
            "tools/prepare_data.py made elsewhere"
        ) from e
    try:
        builder: Any = tfds.builder("omniglot", data_dir=str(directory))
        source = builder.as_data_source(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        )
    except (AssertionError, NotImplementedError, OSError, ValueError) as e:
        raise ValueError(
            f"found omniglot in {directory} in a form that cannot be read at random, "
            "needed ArrayRecord files: prepare it with `python tools/prepare_data.py "
            f"omniglot --to DIR` ({str(e).splitlines()[0]})"
        ) from e
    return source, builder.info.features["alphabet"].names


def _decode(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))
