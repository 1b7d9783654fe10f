"""Data sets from arrays."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, Num

from jaxfer.data.images import Images

# Largest number of classes without names; a label such as 2**30 is a mistake.
_MOST_CLASSES = 2**20


def from_arrays(
    images: Num[np.ndarray, "..."],
    labels: Integer[np.ndarray, "..."],
    *,
    name: str = "arrays",
    class_names: Sequence[str] | None = None,
) -> Images:
    """A data set from your own arrays.

    Args:
        images: `[n, height, width, channels]`, or `[n, height, width]` for one
            channel; uint8 from 0 to 255, or floating from 0 to 1.
        labels: `[n]`, integers from 0 to the number of classes minus 1.
        name: name of the data set.
        class_names: one per class; default: the numbers from 0 to the highest label.

    Raises:
        ValueError: an array has another rank, shape or type, a label is outside the
            classes, or pixels are NaN or out of range. The message names the first such
            image.

    Example:
        >>> from_arrays(np.zeros((2, 28, 28)), np.array([0, 1])).images.shape
        (2, 28, 28, 1)
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            "expected images of shape [n, height, width] or [n, height, width, "
            f"channels], all at least 1, got {images.shape}"
        )
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != images.shape[:1] or not whole:
        raise ValueError(
            f"expected integer labels of shape ({len(images)},), one per image, got "
            f"shape {labels.shape} and type {labels.dtype}"
        )
    most = _MOST_CLASSES if class_names is None else len(class_names)
    bad = (labels < 0) | (labels >= most)
    if bad.any():
        i = int(np.argmax(bad))
        names = "" if class_names is not None else "; more need class_names"
        raise ValueError(
            f"expected labels from 0 to {most - 1}{names}, got {labels[i]} for image "
            f"{i}"
        )
    if images.ndim == 3:
        images = images[..., None]
    if np.issubdtype(images.dtype, np.floating):
        images = _quantize(images)
    elif images.dtype != np.uint8:
        raise ValueError(
            "expected images of type uint8 from 0 to 255 or floating from 0 to 1, got "
            f"{images.dtype}"
        )
    if class_names is None:
        class_names = [str(c) for c in range(int(labels.max()) + 1)]
    return Images(name, images, labels.astype(np.int32), tuple(class_names))


def _quantize(images: np.ndarray) -> np.ndarray:
    good = ((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))
    if not good.all():
        worst = int(np.argmin(good))
        low, high = images[worst].min(), images[worst].max()
        raise ValueError(
            "expected floating pixels from 0 to 1 without NaN, got pixels from "
            f"{low} to {high} in image {worst}"
        )
    return np.round(images * 255).astype(np.uint8)
