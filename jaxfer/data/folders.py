"""Photographs in one folder per class, with or without train and test parts."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxfer.data.images import Images
from jaxfer.data.photos import SIDE, Photos, kept_images

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Share of each class used for testing if a folder has no parts.
_TESTED = 0.2


def image_folder(
    directory: str | Path, side: int = SIDE, exclude: Collection[str] = ()
) -> Images:
    """Images in one folder per class, optionally in train, val and test parts.

    Parts are `train/`, `test/` and `val/`. With all three, `val/` is added to the
    training images; without `test/`, `val/` is used for testing. Without parts, a fifth
    of each class is used for testing, at least one image; the class name seeds the
    selection. A class has all images below its folder. Names that begin with a dot are
    ignored.

    Args:
        directory: directory of the folders; their names, sorted, are the class names.
        side: side in pixels to which images are resized, whatever their shape.
        exclude: names of files to leave out, with or without their folder.

    Returns:
        uint8 images `[n, side, side, 3]`, training images first, as a view that decodes
        images when it is indexed.

    Raises:
        ValueError: there are no folders, a folder has no images, a class has a single
            image, a class is in one part only, or a file to leave out does not exist.
    """
    directory = Path(directory).resolve()
    parts = _parts(directory)
    if "train" not in parts:
        train, test = {}, {}
        for name, paths in _classes(directory).items():
            if len(paths) < 2:
                raise ValueError(
                    f"expected at least two images in {directory / name}, one of them "
                    "to test on, got one"
                )
            seed = zlib.crc32(name.encode())
            order = np.random.RandomState(seed).permutation(len(paths))  # noqa: NPY002
            cut = len(paths) - max(1, int(_TESTED * len(paths)))
            train[name] = [paths[i] for i in order[:cut]]
            test[name] = [paths[i] for i in order[cut:]]
        return _files(directory.name, (train, test), side, exclude)
    train, test = parts["train"], parts["test" if "test" in parts else "val"]
    if train.keys() != test.keys():
        alone = sorted(train.keys() ^ test.keys())
        raise ValueError(
            f"expected the same classes in the training and test parts of {directory}, "
            f"got {alone[:3]} in one part only"
        )
    if "test" in parts:
        more = parts.get("val", {})
        train = {name: own + more.get(name, []) for name, own in train.items()}
    return _files(directory.name, (train, test), side, exclude)


def folder_of_classes(
    directory: str | Path,
    splits: Sequence[str],
    side: int = SIDE,
    exclude: Collection[str] = (),
) -> dict[str, Images]:
    """Splits of a few-shot folder, whose parts have different classes.

    Args:
        directory: contains `train/` and `test/`, optionally `val/`, with one folder per
            class.
        splits: any of 'train', 'val', 'trainval' and 'test'.
        side: side in pixels to which images are resized.
        exclude: names of files to leave out.

    Returns:
        All images of each split; empty if the folder has no parts.

    Raises:
        ValueError: a part is missing, a class is in two parts, or any error of
            `image_folder`.
    """
    directory = Path(directory).resolve()
    parts = _parts(directory)
    if "train" not in parts:
        return {}
    wanted = {s: ("train", "val") if s == "trainval" else (s,) for s in splits}
    for split, own in wanted.items():
        if lost := [part for part in own if part not in parts]:
            raise ValueError(
                f"expected a folder {lost[0]}/ in {directory} for split {split!r}, "
                "got none"
            )
    every = [name for own in parts.values() for name in own]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise ValueError(
            f"expected different classes in the parts of {directory}, got {twice[:3]} "
            "in two parts"
        )
    found = {}
    for split, own in wanted.items():
        classes = {name: paths for part in own for name, paths in parts[part].items()}
        name = f"{directory.name} {split}"
        found[split] = _files(name, (classes, {}), side, exclude)
    return found


def _files(
    name: str,
    parts: Sequence[Mapping[str, Sequence[Path]]],
    side: int,
    exclude: Collection[str],
) -> Images:
    """Images of two parts, which share the classes of the first part."""
    paths, labels = [], []
    for part in parts:
        for number, own in enumerate(part.values()):
            paths += own
            labels += [number] * len(own)

    def read(row: int) -> bytes:
        return paths[row].read_bytes()

    return kept_images(
        name,
        Photos(read, len(paths), side, lambda row: str(paths[row])),
        np.array(labels, np.int32),
        [*parts[0]],
        [f"{path.parent.name}/{path.name}" for path in paths],
        exclude,
        num_train=sum(len(own) for own in parts[0].values()),
    )


def _parts(directory: Path) -> dict[str, dict[str, list[Path]]]:
    """The files of each part; empty without `train` and one of `val` and `test`."""
    there = [part for part in ("train", "val", "test") if (directory / part).is_dir()]
    if "train" not in there or len(there) < 2:
        return {}
    return {part: _classes(directory / part) for part in there}


def _classes(directory: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, by name."""
    found = {}
    for own in sorted(directory.glob("*")):
        # A cache may be next to the folders from which it was made.
        if not own.is_dir() or own.name.startswith(".") or own.suffix == ".cache":
            continue
        found[own.name] = sorted(
            path
            for path in own.rglob("*")
            if path.suffix.lower() in _SUFFIXES
            and not path.name.startswith(".")
            and path.is_file()
        )
        if not found[own.name]:
            raise ValueError(
                f"expected images in {own}, files that end in one of "
                f"{sorted(_SUFFIXES)}, got none"
            )
    if not found:
        raise ValueError(
            f"expected one folder of images per class in {directory}, got no folders"
        )
    return found
