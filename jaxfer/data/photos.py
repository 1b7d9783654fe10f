"""Photographs of any size, decoded when asked for, and those of TFDS."""

import io
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from jaxfer.data.images import Images
from jaxfer.data.tfds import naming, open_records
from jaxfer.data.view import View

# Pixels a side, unless told (Qi et al. 2018, section 6.1).
SIDE = 256
# Of what TFDS has prepared: the part to train on, and the one to test on.
RECORDS = {
    "caltech_birds2011": ("train", "test"),
    "i_naturalist2017": ("train", "validation"),
}
# Modes with a channel of what is seen through.
_CLEAR = ("LA", "La", "PA", "RGBA", "RGBa")


class Photos:
    """Encoded images, decoded and resized to squares when they are asked for.

    Turned upright as their EXIF says, what is transparent on white, 16 bits a channel
    brought to 8, of an animation the first image. Safe to read from several threads.

    Args:
        read: gives the bytes of an image by its number.
        n: how many there are.
        side: pixels a side of the squares, whatever the shape of an image.
        place: of an image, for messages.

    Raises:
        ValueError: a side below 1, or no Pillow; on reading, what is no image of at
            most 16 bits, or a huge one, with its place.

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
        """Remember how to read."""
        if side < 1:
            raise ValueError(f"found side = {side}, needed at least 1")
        _pillow()
        self._read, self._place = read, place
        self.shape = (n, side, side, 3)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The images of some rows."""
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        row = 0
        with naming(lambda: self._place(row)):
            for i, row in enumerate(np.asarray(rows).tolist()):
                images[i] = _decoded(self._read(row), self.shape[1])
        return images


def tfds_photos(
    name: str, directory: str | Path, side: int = SIDE, exclude: Collection[str] = ()
) -> Images:
    """CUB-200-2011 (Wah et al. 2011) or iNaturalist 2017 (Van Horn et al. 2018).

    Images of the training part come first. To say of which class they are, every record
    is read once, which takes long where there are many: `tools/prepare_data.py` keeps
    the answer, and the pixels, in an array cache.

    Args:
        name: 'caltech_birds2011' or 'i_naturalist2017'.
        directory: a TFDS data directory that holds it.
        side: pixels a side to resize images to, whatever their shape.
        exclude: names of files to leave out, where records have them.

    Returns:
        uint8 images `[n, side, side, 3]`, a view that decodes them when asked for.

    Raises:
        ValueError: no tensorflow-datasets, files of another format, damaged ones, or
            files to leave out that are not there.
    """
    parts = [open_records(name, Path(directory), split) for split in RECORDS[name]]
    places = [(part, row) for part in parts for row in range(len(part.source))]
    labels = np.empty(len(places), np.int32)
    files, names = [], dict(enumerate(parts[0].features["label"].names))
    part, row = places[0]
    with naming(lambda: part.place(row)):
        for i, (part, row) in enumerate(tqdm(places, f"reading {name}", leave=False)):
            record = part.source[row]
            labels[i] = record["label"]
            if "image/filename" in record:
                files.append(_text(record["image/filename"]))
            if "label_name" in record:
                names[int(labels[i])] = _text(record["label_name"])
    if exclude and not files:
        raise ValueError(
            f"found {len(exclude)} files to leave out of {name}, needed none: its "
            "records have no names of files"
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


def read_excluded(path: str | Path) -> frozenset[str]:
    """Names of files to leave out, one a line, after a `#` where there is one.

    So is the published list of the images of CUB-200-2011 that are in ImageNet, each
    after its name there. Lines that begin with a `#` are headings.

    Raises:
        ValueError: a file that cannot be read, or names nothing.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as a list of files ({e})") from e
    found = [
        re.split(r"\s#\s+", line)[-1].strip()
        for line in lines
        if not re.match(r"#+\s", line)
    ]
    if not any(found):
        raise ValueError(f"found no name of a file in {path}, needed one a line")
    return frozenset(found) - {""}


def _decoded(encoded: bytes, side: int) -> np.ndarray:
    image_module, ops = _pillow()
    try:
        with image_module.open(io.BytesIO(encoded)) as opened:
            image = ops.exif_transpose(opened)
            if image.mode.startswith("I;16"):
                pixels = (np.asarray(image) / 257).round().astype(np.uint8)
                image = image_module.fromarray(pixels)
            elif image.mode in ("I", "F"):
                raise ValueError(
                    f"found pixels of mode {image.mode!r}, needed at most 16 bits each"
                )
            elif image.mode in _CLEAR or "transparency" in image.info:
                image = image.convert("RGBA")
                white = image_module.new("RGBA", image.size, "white")
                image = image_module.alpha_composite(white, image)
            square = image.convert("RGB").resize(
                (side, side), image_module.Resampling.BILINEAR
            )
    except image_module.DecompressionBombError as e:
        raise ValueError(str(e)) from e
    return np.asarray(square)


def _pillow() -> tuple[Any, Any]:
    try:
        # Optional.
        from PIL import Image, ImageOps
    except ImportError as e:
        raise ValueError(
            f"found no Pillow to decode photographs with ({e}): pip install "
            "'jaxfer[data]', or bring an array cache that tools/prepare_data.py made "
            "elsewhere"
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
    """The images that are not left out.

    Args:
        name: of the data set.
        photos: all images.
        labels: of each.
        class_names: of the data set.
        files: names of the images' files, asked for where some are to be left out.
        exclude: names to leave out.
        num_train: how many of the first ones are to train on.

    Raises:
        ValueError: a name that is not there.
    """
    keep = np.arange(len(labels))
    if exclude:
        called = [{file, Path(file).name} for file in files]
        if lost := sorted(set(exclude) - set().union(*called)):
            raise ValueError(
                f"found {lost[:3]} among files to leave out of {name}, needed names of "
                f"files it has, such as {files[0]!r}"
            )
        keep = np.flatnonzero([found.isdisjoint(exclude) for found in called])
    return Images(
        name,
        View.of(photos).take(keep),
        labels[keep],
        tuple(class_names),
        num_train=int((keep < num_train).sum()),
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
