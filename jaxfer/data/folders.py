"""Photographs in folders: labelled ones in any published layout, and loose ones."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxfer.data.files import Classes, images_in, place_in
from jaxfer.data.images import Images
from jaxfer.data.layouts import WHOLE, Listing, read_layout
from jaxfer.data.lists import counted, without_classes
from jaxfer.data.photos import SIDE, Photos, kept_images
from jaxfer.data.splits import divide
from jaxfer.data.view import View


def image_folder(
    directory: str | Path,
    side: int = SIDE,
    exclude: Collection[str] = (),
    exclude_classes: Sequence[str] = (),
    lists: str | Path | None = None,
) -> Images:
    """Labelled images in a published layout, divided into training and test images.

    The layouts are: one folder per class; `train/`, `test/` and `val/` with such
    folders; lists `train.txt`, `test.txt` and `val.txt` of images, also in `meta/`,
    `lists/`, `splits/` or `annotations/`; `tiny-imagenet-200`; `CUB_200_2011`; or a
    folder that holds only one of these. What is ignored is printed.

    With all three parts, `val` is added to the training images; without `test`, `val`
    is used for testing. Without parts, or if each part has classes of its own, a fifth
    of each class is used for testing, at least one image; the class name seeds the
    selection. Parts with classes of their own are `class_parts` of the result. A class
    has all images below its folder.

    Args:
        directory: directory of the data set. The names of the classes are sorted.
        side: side in pixels to which images are resized, whatever their shape.
        exclude: names of files to leave out, with or without their folder.
        exclude_classes: names of classes to leave out.
        lists: a directory with lists of the images or of the classes of each part, all
            of which have to exist; they replace the layout.

    Returns:
        uint8 images `[n, side, side, 3]`, training images first, as a view that decodes
        images when it is indexed.

    Raises:
        ValueError: the layout is not understood, a class has a single image, some but
            not all classes are in one part only, or no name to leave out exists.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     for name in ("kite", "wren"):
        ...         (Path(directory) / name).mkdir()
        ...         for i in range(2):
        ...             Image.new("RGB", (4, 3)).save(f"{directory}/{name}/{i}.png")
        ...     data = image_folder(directory, 8)
        >>> data.class_names, data.images.shape, data.num_train
        (('kite', 'wren'), (4, 8, 8, 3), 2)
    """
    return _labelled(_read(directory, exclude_classes, lists), side, exclude)


def undivided_images(directory: str | Path, side: int = SIDE) -> Images:
    """All images of a folder; its parts are kept if they have the same classes.

    Unlike `image_folder`, a folder without parts is not divided, and a class may have a
    single image.

    Args:
        directory: directory in one of the layouts of `image_folder`.
        side: side in pixels to which images are resized, whatever their shape.

    Raises:
        ValueError: the layout is not understood.
    """
    listing = read_layout(directory)
    parts = listing.parts
    if WHOLE not in parts and not _differ(listing):
        return _labelled(listing, side, ())
    whole = _files(listing, (dict(sorted(_merged(parts).items())), {}), side, ())
    return replace(whole, num_train=None)


def loose_images(
    directory: str | Path, side: int = SIDE
) -> tuple[View, tuple[str, ...]]:
    """Images without labels, to embed or to classify, and their names.

    Args:
        directory: directory with images at any depth.
        side: side in pixels to which images are resized, whatever their shape.

    Returns:
        uint8 images `[n, side, side, 3]`, as a view that decodes images when it is
        indexed, and the path of each image relative to the directory, sorted.

    Raises:
        ValueError: the directory has no images, or any error of `Photos`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     Image.new("RGB", (4, 3), "red").save(f"{directory}/red.png")
        ...     images, names = loose_images(directory, 2)
        ...     names, images[0][0, 0].tolist()
        (('red.png',), [255, 0, 0])
    """
    directory = Path(directory).resolve()
    paths = images_in(directory)
    if not paths:
        raise ValueError(f"expected images in {directory}, got none")
    names = tuple(place_in(directory, path) for path in paths)
    return View.of(_photos(paths, side)), names


def _read(
    directory: str | Path, excluded: Sequence[str], lists: str | Path | None
) -> Listing:
    """The files of a directory without those of some classes."""
    listing = read_layout(directory, lists)
    if not excluded:
        return listing
    names = dict.fromkeys(name for own in listing.parts.values() for name in own)
    kept = {*without_classes(names, excluded, data=listing.directory.name)}
    return listing._replace(
        parts={
            part: {name: paths for name, paths in own.items() if name in kept}
            for part, own in listing.parts.items()
        }
    )


def _merged(parts: Mapping[str, Classes]) -> Classes:
    """The files of all classes, if the parts have different classes."""
    return {name: paths for own in parts.values() for name, paths in own.items()}


def _labelled(listing: Listing, side: int, exclude: Collection[str]) -> Images:
    """All images of a listing, training images first."""
    parts = listing.parts
    if WHOLE not in parts and _differ(listing):
        print(
            f"{listing.directory.name}: the parts have different classes; in a split "
            "by example, a fifth of each class is for testing"
        )
        whole = listing._replace(parts={WHOLE: dict(sorted(_merged(parts).items()))})
        data = _labelled(whole, side, exclude)
        class_parts = {part: tuple(sorted(own)) for part, own in parts.items()}
        return replace(data, class_parts=class_parts)
    if WHOLE in parts:
        return _files(listing, _divided(listing.directory, parts[WHOLE]), side, exclude)
    train, test = parts["train"], parts["test" if "test" in parts else "val"]
    if "test" in parts:
        more = parts.get("val", {})
        train = {name: own + more.get(name, []) for name, own in train.items()}
    return _files(listing, (train, test), side, exclude)


def _differ(listing: Listing) -> bool:
    """Whether parts have different classes; those to train and test on may be equal.

    Raises:
        ValueError: some classes are in several parts and some are not.
    """
    parts = listing.parts
    every = [name for own in parts.values() for name in own]
    if len({*every}) == len(every):
        return True
    train, test = parts["train"], parts["test" if "test" in parts else "val"]
    if train.keys() == test.keys():
        return False
    twice = sorted(name for name, n in Counter(every).items() if n > 1)
    alone = sorted(train.keys() ^ test.keys())
    raise ValueError(
        f"expected the same classes or different classes in the parts of "
        f"{listing.directory}, got {twice[:3]} in two parts and "
        f"{counted(len(alone), 'class', 'es')}, such as {alone[:3]}, in one part "
        "only: exclude either of them"
    )


def _divided(directory: Path, classes: Classes) -> tuple[Classes, Classes]:
    """The training and test files of each class, by a selection seeded by its name."""
    train, test = {}, {}
    if few := [name for name, paths in classes.items() if len(paths) < 2]:
        raise ValueError(
            f"expected at least two images in {directory / few[0]}, one of them to "
            f"test on, got one, as in {counted(len(few) - 1, 'other class', 'es')}: "
            "exclude them"
        )
    for name, paths in classes.items():
        known, tested = divide(name, len(paths))
        train[name] = [paths[i] for i in known]
        test[name] = [paths[i] for i in tested]
    return train, test


def _files(
    listing: Listing,
    parts: Sequence[Mapping[str, Sequence[Path]]],
    side: int,
    exclude: Collection[str],
) -> Images:
    """Images of two parts, which share the classes of the first part."""
    paths, labels = [], []
    for part in parts:
        for number, name in enumerate(parts[0]):
            paths += part.get(name, [])
            labels += [number] * len(part.get(name, []))
    return kept_images(
        listing.directory.name,
        _photos(paths, side),
        np.array(labels, np.int32),
        [*parts[0]],
        [place_in(listing.directory, path) for path in paths],
        exclude,
        num_train=sum(len(own) for own in parts[0].values()),
    )


def _photos(paths: Sequence[Path], side: int) -> Photos:
    def read(row: int) -> bytes:
        return paths[row].read_bytes()

    return Photos(read, len(paths), side, lambda row: str(paths[row]))
