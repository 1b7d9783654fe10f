"""Photographs in a folder a class, with parts or without."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxfer.data.images import Images
from jaxfer.data.photos import SIDE, Photos, kept_images

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Of a folder without parts, the share of each class that is tested on.
_TESTED = 0.2


def image_folder(
    directory: str | Path, side: int = SIDE, exclude: Collection[str] = ()
) -> Images:
    """A folder of images a class, or parts with such folders each.

    Parts are `train/` and `test/`; `val/` counts to the former where there are all
    three, and tests where there is no `test/`. Where there are no parts, a fifth of
    each class is to test on, at least one image, drawn by the name of the class. A
    class has all images below its folder; names that begin with a dot are passed over.

    Args:
        directory: holds the folders; classes are named as these and ordered by name.
        side: pixels a side to resize images to, whatever their shape.
        exclude: names of files to leave out, with their folder or without.

    Returns:
        uint8 images `[n, side, side, 3]`, those to train on first, a view that decodes
        them when asked for.

    Raises:
        ValueError: no folder, folders without images, a class with a single one,
            classes of one part alone, or files to leave out that are not there.
    """
    directory = Path(directory).resolve()
    parts = _parts(directory)
    if "train" not in parts:
        train, test = {}, {}
        for name, paths in _classes(directory).items():
            if len(paths) < 2:
                raise ValueError(
                    f"found one image in {directory / name}, needed two, one of them "
                    "to test on"
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
            f"found classes {alone[:3]} in one of the parts of {directory} to train "
            "and to test on, needed the same classes in both"
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
    """Parts of a folder whose parts have other classes, as few-shot data are kept.

    Args:
        directory: holds `train/` and `test/`, perhaps `val/`, with a folder a class.
        splits: of 'train', 'val', 'trainval' and 'test'.
        side: pixels a side to resize images to.
        exclude: names of files to leave out.

    Returns:
        All images of each part's classes; nothing where the folder has no parts.

    Raises:
        ValueError: a part that is not there, classes of two parts, or as
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
                f"found no {lost[0]}/ in {directory}, needed it for {split}"
            )
    every = [name for own in parts.values() for name in own]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise ValueError(
            f"found classes {twice[:3]} in two parts of {directory}, needed parts with "
            "classes of their own"
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
    """Images of the files of two parts; the classes of both are those of the first."""
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
    """Its parts, none where it lacks one to train and one to test on."""
    there = [part for part in ("train", "val", "test") if (directory / part).is_dir()]
    if "train" not in there or len(there) < 2:
        return {}
    return {part: _classes(directory / part) for part in there}


def _classes(directory: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, by name."""
    found = {}
    for own in sorted(directory.glob("*")):
        # A cache may lie beside the folders it was made of.
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
                f"found no image in {own}, needed files that end in one of "
                f"{sorted(_SUFFIXES)}"
            )
    if not found:
        raise ValueError(
            f"found no folders in {directory}, needed one a class with images in it"
        )
    return found
