"""Pictures of any kind that users have: arrays, paths and pictures of Pillow."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.data.images import Images
from jaxfer.data.photos import Photos, square
from jaxfer.data.view import View


def read_pictures(pictures: Any, side: int) -> np.ndarray | View:
    """Pictures as uint8 `[n, side, side, 3]`, in memory or decoded when indexed.

    Args:
        pictures: an array `[n, height, width, 3]`, `[n, height, width, 1]` or
            `[n, height, width]`, uint8 from 0 to 255 or floating from 0 to 1; or a
            sequence of paths, of pictures of Pillow, or of such arrays without the
            first axis; or an `Images`.
        side: side in pixels to which pictures are resized, whatever their shape.

    Raises:
        ValueError: anything else, a file that cannot be read, or pixels out of range;
            the message names the first one.

    Example:
        >>> read_pictures(np.zeros((2, 4, 4), np.uint8), 8).shape
        (2, 8, 8, 3)
    """
    if isinstance(pictures, Images):
        pictures = pictures.images
    if isinstance(pictures, View):
        if pictures.shape[1:] == (side, side, 3):
            return pictures
        pictures = pictures[:]
    if isinstance(pictures, str | os.PathLike):
        pictures = [pictures]
    if isinstance(pictures, np.ndarray) and pictures.dtype.kind not in "OUS":
        if pictures.ndim not in (3, 4):
            raise ValueError(
                "expected pictures as an array [n, height, width, channels], got shape "
                f"{pictures.shape}"
            )
        if pictures.shape[1:] == (side, side, 3) and pictures.dtype == np.uint8:
            return pictures
    found = [*pictures]
    if found and all(isinstance(x, str | os.PathLike) for x in found):
        return View.of(_files([Path(x) for x in found], side))
    squares = [_square(picture, i, side) for i, picture in enumerate(found)]
    return np.stack(squares) if squares else np.zeros((0, side, side, 3), np.uint8)


def _files(paths: Sequence[Path], side: int) -> Photos:
    if lost := [path for path in paths if not path.is_file()]:
        raise ValueError(f"expected pictures, got no file at {lost[0]}")
    return Photos(
        lambda row: paths[row].read_bytes(),
        len(paths),
        side,
        lambda row: str(paths[row]),
    )


def _square(picture: Any, number: int, side: int) -> np.ndarray:
    if hasattr(picture, "convert") and hasattr(picture, "resize"):
        return square(picture, side)
    pixels = np.asarray(picture)
    channels = pixels.shape[-1] if pixels.ndim == 3 else 1
    numbers = pixels.dtype == np.uint8 or np.issubdtype(pixels.dtype, np.floating)
    if (
        pixels.ndim not in (2, 3)
        or channels not in (1, 3)
        or not numbers
        or (0 in pixels.shape)
    ):
        raise ValueError(
            "expected pictures as paths, as pictures of Pillow, or as arrays [height, "
            f"width, channels] of uint8 or floating pixels, got for picture {number} a "
            f"{type(picture).__name__} of shape {pixels.shape} and type {pixels.dtype}"
        )
    if pixels.dtype != np.uint8:
        if not ((pixels >= 0) & (pixels <= 1)).all():
            raise ValueError(
                "expected floating pixels from 0 to 1 without NaN, got others in "
                f"picture {number}"
            )
        pixels = np.round(pixels * 255).astype(np.uint8)
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if pixels.shape[:2] == (side, side):
        return pixels
    from PIL import Image

    return square(Image.fromarray(pixels), side)
