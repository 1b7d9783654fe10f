"""Photographs of any size: records of TFDS, or a folder a class."""

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

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
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Of a folder without parts, the share of each class that is tested on.
_TESTED = 0.2


class Photos:
    """Encoded images, decoded and resized to squares when they are asked for.

    Safe to read from several threads.

    Args:
        read: gives the bytes of an image by its number.
        n: how many there are.
        side: pixels a side of the squares, whatever the shape of an image.
        place: of an image, for messages.

    Raises:
        ValueError: on reading, what is no image, with its place.

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
        self._read, self._place = read, place
        self.shape = (n, side, side, 3)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The images of some rows."""
        from PIL import Image

        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        row = 0
        with naming(lambda: self._place(row)):
            for i, row in enumerate(np.asarray(rows).tolist()):
                with Image.open(io.BytesIO(self._read(row))) as image:
                    square = image.convert("RGB").resize(
                        self.shape[1:3], Image.Resampling.BILINEAR
                    )
                images[i] = np.asarray(square)
        return images


def recorded(
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
            files.append(_text(record.get("image/filename", b"")))
            if "label_name" in record:
                names[int(labels[i])] = _text(record["label_name"])

    def read(row: int) -> bytes:
        part, place = places[row]
        return part.source[place]["image"]

    photos = Photos(read, len(places), side, lambda row: places[row][0].place(row))
    return _images(
        name,
        photos,
        labels,
        [names[i] for i in sorted(names)],
        files,
        exclude,
        given=len(parts[0].source),
    )


def folder(
    directory: str | Path, side: int = SIDE, exclude: Collection[str] = ()
) -> Images:
    """A folder of images a class, or `train/` and `test/` with such folders each.

    Where there are no parts, a fifth of each class is to test on, drawn once for all,
    at least one image of it.

    Args:
        directory: holds the folders; classes are named as these and ordered by name.
        side: pixels a side to resize images to, whatever their shape.
        exclude: names of files to leave out, with their class's folder or without.

    Returns:
        uint8 images `[n, side, side, 3]`, those to train on first, a view that decodes
        them when asked for.

    Raises:
        ValueError: no folder, folders without images, a class with a single one,
            classes of one part alone, or files to leave out that are not there.
    """
    directory = Path(directory)
    if (directory / "train").is_dir() and (directory / "test").is_dir():
        train, test = (_classes(directory / part) for part in ("train", "test"))
        if train.keys() != test.keys():
            alone = sorted(train.keys() ^ test.keys())
            raise ValueError(
                f"found classes {alone[:3]} in one of train/ and test/ of {directory}, "
                "needed the same classes in both"
            )
    else:
        train, test = {}, {}
        for number, (name, paths) in enumerate(_classes(directory).items()):
            if len(paths) < 2:
                raise ValueError(
                    f"found one image in {directory / name}, needed two, one of them "
                    "to test on"
                )
            draw = np.random.RandomState([number])  # noqa: NPY002
            paths = [paths[i] for i in draw.permutation(len(paths))]
            cut = len(paths) - max(1, int(_TESTED * len(paths)))
            train[name], test[name] = paths[:cut], paths[cut:]
    paths, labels = [], []
    for part in (train, test):
        for number, own in enumerate(part.values()):
            paths += own
            labels += [number] * len(own)

    def read(row: int) -> bytes:
        return paths[row].read_bytes()

    photos = Photos(read, len(paths), side, lambda row: str(paths[row]))
    return _images(
        directory.name,
        photos,
        np.array(labels, np.int32),
        [*train],
        [f"{path.parent.name}/{path.name}" for path in paths],
        exclude,
        given=sum(len(own) for own in train.values()),
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
    found = [line.rpartition("#")[2].strip() for line in lines if line[:1] != "#"]
    if not any(found):
        raise ValueError(f"found no name of a file in {path}, needed one a line")
    return frozenset(found) - {""}


def _images(
    name: str,
    photos: Photos,
    labels: np.ndarray,
    class_names: Sequence[str],
    files: Sequence[str],
    exclude: Collection[str],
    *,
    given: int,
) -> Images:
    """The images that are not left out."""
    called = [{file, Path(file).name} for file in files]
    if lost := sorted(set(exclude) - set().union(*called)):
        raise ValueError(
            f"found {lost[:3]} among files to leave out of {name}, needed names of "
            f"files it has, such as {files[0]!r}"
        )
    out = np.array([not found.isdisjoint(exclude) for found in called])
    keep = np.flatnonzero(~out)
    return Images(
        name,
        View.of(photos).take(keep),
        labels[keep],
        tuple(class_names),
        given=int((keep < given).sum()),
    )


def _classes(directory: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, by name."""
    found = {}
    for own in sorted(path for path in directory.glob("*") if path.is_dir()):
        paths = sorted(p for p in own.iterdir() if p.suffix.lower() in _SUFFIXES)
        if not paths and not own.name.startswith("."):
            raise ValueError(
                f"found no image in {own}, needed files that end in one of "
                f"{sorted(_SUFFIXES)}"
            )
        if paths:
            found[own.name] = paths
    if not found:
        raise ValueError(
            f"found no folders in {directory}, needed one a class with images in it"
        )
    return found


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
