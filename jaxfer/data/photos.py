"""Photographs of any size, decoded when they are indexed, and those of TFDS."""

import io
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from jaxfer.data.images import Images
from jaxfer.data.lists import look_up
from jaxfer.data.tfds import TooLarge, naming, open_records
from jaxfer.data.view import View
from jaxfer.tensors import retried

# Default side in pixels (Qi et al. 2018, section 6.1).
SIDE = 256
# The training and test parts of each TFDS data set.
RECORDS = {
    "caltech_birds2011": ("train", "test"),
    "i_naturalist2017": ("train", "validation"),
}
# Modes with an alpha channel.
_CLEAR = ("LA", "La", "PA", "RGBA", "RGBa")


class Photos:
    """Encoded images, decoded and resized to squares when they are indexed.

    Images are rotated as their EXIF data say, transparency becomes white, channels of
    16 bits are reduced to 8, and an animation gives its first image. Several threads
    may read at the same time.

    Attributes:
        read: function from the number of an image to its bytes.
        place: function from the number of an image to its location.

    Args:
        read: function from the number of an image to its bytes.
        n: number of images.
        side: side of the squares in pixels, whatever the shape of an image.
        place: function from the number of an image to its location, for messages.

    Raises:
        ValueError: `side` is below 1, or Pillow is missing. When an image is read: it
            is too large, or not an image of at most 16 bits per channel.

    Example:
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3), "red").save(file, "PNG")
        >>> photos = Photos(lambda row: file.getvalue(), 1, 2, lambda row: "a file")
        >>> photos[np.array([0])][0, 0, 0].tolist()
        [255, 0, 0]
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        n: int,
        side: int,
        place: Callable[[int], str],
    ) -> None:
        """Check and store the arguments."""
        if side < 1:
            raise ValueError(f"expected side of at least 1, got {side}")
        _pillow()
        self.read, self.place = read, place
        self.shape = (n, side, side, 3)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The images of some rows."""
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        row = 0
        with naming(lambda: self.place(row)):
            for i, row in enumerate(np.asarray(rows).tolist()):
                encoded = retried(lambda row=row: self.read(row))
                images[i] = _decoded(encoded, self.shape[1])
        return images


def tfds_photos(
    name: str, directory: str | Path, side: int = SIDE, exclude: Collection[str] = ()
) -> Images:
    """CUB-200-2011 (Wah et al. 2011) or iNaturalist 2017 (Van Horn et al. 2018).

    Training images come first. Every record is read once to get its class, which takes
    long for a large data set: `python -m jaxfer prepare` stores classes and pixels in
    an array cache.

    Args:
        name: 'caltech_birds2011' or 'i_naturalist2017'.
        directory: TFDS data directory that contains the data set.
        side: side in pixels to which images are resized, whatever their shape.
        exclude: names of files to leave out, if the records have file names.

    Returns:
        uint8 images `[n, side, side, 3]`, as a view that decodes images when it is
        indexed.

    Raises:
        ValueError: tensorflow-datasets is missing, the files have another format or are
            damaged, or a file to leave out does not exist.
    """
    parts = [open_records(name, Path(directory), split) for split in RECORDS[name]]
    places = [(part, row) for part in parts for row in range(len(part.source))]
    labels = np.empty(len(places), np.int32)
    files, names = [], dict(enumerate(parts[0].features["label"].names))
    part, row = places[0]
    with naming(lambda: part.place(row)):
        for i, (part, row) in enumerate(tqdm(places, f"reading {name}", leave=False)):
            record = retried(lambda part=part, row=row: part.source[row])
            labels[i] = record["label"]
            if "image/filename" in record:
                files.append(_text(record["image/filename"]))
            if "label_name" in record:
                names[int(labels[i])] = _text(record["label_name"])
    if exclude and not files:
        raise ValueError(
            f"expected no files to leave out of {name}, whose records have no file "
            f"names, got {len(exclude)}"
        )

    def read(row: int) -> bytes:
        part, at = places[row]
        return part.source[at]["image"]

    def place(row: int) -> str:
        part, at = places[row]
        return part.place(at)

    return kept_images(
        name,
        Photos(read, len(places), side, place),
        labels,
        [names[i] for i in sorted(names)],
        files,
        exclude,
        num_train=len(parts[0].source),
    )


def _decoded(encoded: bytes, side: int) -> np.ndarray:
    image_module, _ = _pillow()
    try:
        with image_module.open(io.BytesIO(encoded)) as opened:
            return square(opened, side)
    except image_module.DecompressionBombError as e:
        raise ValueError(str(e)) from e


def square(picture: Any, side: int) -> np.ndarray:
    """A picture of Pillow as uint8 `[side, side, 3]`, see `Photos`.

    Args:
        picture: a `PIL.Image.Image`.
        side: side of the square in pixels.

    Raises:
        ValueError: a picture with more than 16 bits per channel, or with more pixels
            than `PIL.Image.MAX_IMAGE_PIXELS`, about 89 million; nothing of it is
            decoded.
    """
    image_module, ops = _pillow()
    most = image_module.MAX_IMAGE_PIXELS
    if most is not None and picture.width * picture.height > most:
        raise TooLarge(
            f"expected an image of at most {most:,} pixels, got {picture.width:,} x "
            f"{picture.height:,}: shrink it, leave it out, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS in Python"
        )
    image = ops.exif_transpose(picture)
    if image.mode.startswith("I;16"):
        pixels = (np.asarray(image) / 257).round().astype(np.uint8)
        image = image_module.fromarray(pixels)
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"expected at most 16 bits per channel, got mode {image.mode!r}"
        )
    elif image.mode in _CLEAR or "transparency" in image.info:
        image = image.convert("RGBA")
        white = image_module.new("RGBA", image.size, "white")
        image = image_module.alpha_composite(white, image)
    resized = image.convert("RGB").resize(
        (side, side), image_module.Resampling.BILINEAR
    )
    return np.asarray(resized)


def _pillow() -> tuple[Any, Any]:
    try:
        # An optional dependency.
        from PIL import Image, ImageOps
    except ImportError as e:
        raise ValueError(
            f"expected Pillow to decode photographs, got an import error ({e}): pip "
            "install 'jaxfer[data]', or copy an array cache that `python -m jaxfer "
            "prepare` wrote elsewhere"
        ) from e
    return Image, ImageOps


def kept_images(
    name: str,
    photos: Photos,
    labels: np.ndarray,
    class_names: Sequence[str],
    files: Sequence[str],
    exclude: Collection[str],
    *,
    num_train: int,
) -> Images:
    """All images except those that are left out.

    Args:
        name: name of the data set.
        photos: all images.
        labels: one label per image.
        class_names: names of all classes.
        files: one file name per image; used only if files are left out.
        exclude: names of files to leave out; those that do not exist are counted.
        num_train: number of training images, which come first.

    Raises:
        ValueError: no name to leave out exists.
    """
    keep = np.arange(len(labels))
    if exclude:
        named = defaultdict(list)
        for row, file in enumerate(files):
            path = Path(file)
            for form in {file, path.name, f"{path.parent.name}/{path.name}"}:
                named[form].append(row)
        what = f"files of {name}, such as {files[0]!r}"
        found = look_up(sorted(exclude), named.get, what=what, where="exclude")
        keep = np.setdiff1d(keep, np.concatenate(found))
    return Images(
        name,
        View.of(photos).take(keep),
        labels[keep],
        tuple(class_names),
        num_train=int((keep < num_train).sum()),
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
