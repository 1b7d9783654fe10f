"""Layouts of published image folders: the files of each part and class.

A layout is a function from a directory to the files that it finds there, or None if
the directory looks different. A further layout is a further function in `LAYOUTS`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxfer.data.files import (
    Classes,
    FilesByName,
    Found,
    class_folders,
    folders_in,
    holding_images,
    images_in,
    loose_in,
    place_in,
    say_ignored,
)
from jaxfer.data.lists import counted, find_lists, look_up, read_lines, read_names

# The name of the only part of a directory that is not divided.
WHOLE = "all"
# Names of folders and lists of each part, the preferred one last.
_NAMES = {
    "train": ("training", "trainval", "train"),
    "val": ("validation", "valid", "val"),
    "test": ("testing", "test"),
}
# Folders that hold lists, and folders that hold images but are not classes.
_LIST_FOLDERS = ("meta", "lists", "splits", "annotations")
_NOT_CLASSES = ("images", "image", "jpg", "data", *sum(_NAMES.values(), ()))


class Listing(NamedTuple):
    """The image files of a data set.

    Attributes:
        directory: the directory that holds the data set.
        parts: files by part and class. Parts are 'train' with 'val', 'test' or both; or
            only 'all', if the directory is not divided.
    """

    directory: Path
    parts: dict[str, Classes]


def read_layout(directory: str | Path, lists: str | Path | None = None) -> Listing:
    """Find the image files of a data set in its published layout.

    Prints what is ignored.

    Args:
        directory: the directory of the data set, or one whose only folder with images
            is the directory of the data set.
        lists: a directory with lists of the images or of the classes of each part (see
            `find_lists`), in place of the layout: files are found by name, in any
            folder. Everything that they name has to exist.

    Raises:
        ValueError: no layout fits, or a list names no existing image.
    """
    directory = Path(directory).resolve()
    if not directory.is_dir():
        raise ValueError(
            f"expected a directory of images, got {directory}, which does not exist: "
            "set --data.dir"
        )
    if lists is not None:
        return _by_lists(directory, find_lists(lists), strict=True)
    for layout in LAYOUTS.values():
        if (found := layout(directory)) is not None:
            return found
    *others, last = LAYOUTS
    raise ValueError(
        f"expected {', '.join(others)} or {last} in {directory}, got "
        f"{_contents(directory)}"
    )


def _cub(directory: Path) -> Listing | None:
    """CUB-200-2011 (Wah et al. 2011): tables of images, classes and parts by number."""
    tables = ("images", "image_class_labels", "classes")
    if not all((directory / f"{name}.txt").is_file() for name in tables):
        return None
    images, labels, classes = (_table(directory / f"{name}.txt") for name in tables)
    split = directory / "train_test_split.txt"
    trains = _table(split) if split.is_file() else None
    number = {name: i for i, name in images.items()}
    files = FilesByName(directory, ["images"])

    def find(name: str) -> tuple[str, str, Path] | None:
        i = number[name]
        path, label = files.find(name), classes.get(labels.get(i, ""))
        if path is None or label is None:
            return None
        part = "train" if trains is None or trains.get(i) != "0" else "test"
        return part, label, path

    found = look_up(number, find, what="images with a class", where="images.txt")
    parts = {"train": [], "test": []}
    for part, label, path in found:
        parts[part].append((label, path))
    return _listing(directory, parts)


def _table(path: Path) -> dict[str, str]:
    """The rest of each line by its first word, a number."""
    cut = (line.split(maxsplit=1) for line in read_lines(path))
    return {line[0]: line[-1] for line in cut}


def _tiny_imagenet(directory: Path) -> Listing | None:
    """tiny-imagenet-200: a list has the classes of val/images; test/ has no classes."""
    annotations = directory / "val" / "val_annotations.txt"
    if not annotations.is_file() or not (directory / "train").is_dir():
        return None
    train = class_folders(directory / "train")
    there = {path.name: path for path in images_in(directory / "val")}

    def find(line: str) -> tuple[str, Path] | None:
        name, label, *_ = [*line.split("\t"), ""]
        return (label, there[name]) if name in there and label in train else None

    val = look_up(
        read_lines(annotations),
        find,
        what="images of val/ with a class of train/",
        where="val/val_annotations.txt",
    )
    _say_unlabelled(directory / "test")
    return Listing(directory, {"train": train, "val": _grouped(val)})


def _divided(directory: Path) -> Listing | None:
    """Folders of the parts, with one folder per class each."""
    folders = {part: path for part, path in _places(directory, "") if path.is_dir()}
    if "train" not in folders or len(folders) < 2:
        return None
    classes = {part: holding_images(path) for part, path in folders.items()}
    bare = [x for x, found in classes.items() if {f.name for f in found} <= {"images"}]
    if {*bare} & {*_lists(directory)}:
        return None  # Lists may name the classes of images in no class folder.
    if "train" in bare:
        raise ValueError(
            f"expected one folder of images per class in {folders['train']}, got "
            f"{_contents(folders['train'])}"
        )
    for part in bare:
        _say_unlabelled(folders.pop(part))
    parts = {part: class_folders(path) for part, path in folders.items()}
    return Listing(directory, parts if len(parts) > 1 else {WHOLE: parts["train"]})


def _listed(directory: Path) -> Listing | None:
    """Lists of the images of each part.

    Lines are "path", "path label" or "path,label"; paths are with or without suffix. A
    line may also name a class folder, for all its images. Without a label, the class is
    the folder; a number stands for the folder whose images have that number.
    """
    lists = _lists(directory)
    return _by_lists(directory, lists, strict=False) if lists else None


def _by_lists(directory: Path, lists: dict[str, Path], *, strict: bool) -> Listing:
    """The files that lists name.

    Args:
        directory: the directory of the images.
        lists: the list of each part.
        strict: whether every name has to exist, in whatever folder.
    """
    files, entries = FilesByName(directory, _NOT_CLASSES, anywhere=strict), {}
    for part, path in lists.items():
        found = look_up(
            read_names(path),
            files.read_line,
            what=f"images or class folders of {directory.name}",
            where=place_in(directory, path),
            header=path.suffix == ".csv",
            strict=strict,
        )
        entries[part] = [entry for line in found for entry in line]
    names = _numbered_folders(entry for own in entries.values() for entry in own)
    parts = {"train": []}
    for part, own in entries.items():
        parts[part] = [(names.get(x.label, x.label) or x.folder, x.path) for x in own]
        if lost := [path.name for name, path in parts[part] if not name]:
            raise ValueError(
                f"expected a label after each path in {lists[part]}, got none for "
                f"{lost[0]}, which is in no class folder"
            )
    return _listing(directory, parts)


def _numbered_folders(entries: Iterable[Found]) -> dict[str, str]:
    """The class folder that each number stands for, if they correspond one to one."""
    folders, numbers = defaultdict(set), defaultdict(set)
    for label, folder, _ in entries:
        if folder and label.isdigit():
            folders[label].add(folder)
            numbers[folder].add(label)
    pairs = ((label, *own) for label, own in folders.items() if len(own) == 1)
    return {label: folder for label, folder in pairs if len(numbers[folder]) == 1}


def _only_folder(directory: Path) -> Listing | None:
    """A directory whose only folder with images holds a data set of any layout."""
    holding = holding_images(directory)
    if len(holding) != 1 or loose_in(directory) or loose_in(holding[0]):
        return None
    print(f"{directory.name}: reading {holding[0].name}/, its only folder with images")
    return read_layout(holding[0])


def _undivided(directory: Path) -> Listing | None:
    """One folder per class."""
    if not folders_in(directory):
        return None
    return Listing(directory, {WHOLE: class_folders(directory)})


# In the order in which they are tried.
LAYOUTS: dict[str, Callable[[Path], Listing | None]] = {
    "CUB_200_2011 with images.txt and classes.txt": _cub,
    "tiny-imagenet-200 with val/val_annotations.txt": _tiny_imagenet,
    "train/ and test/ with one folder per class each": _divided,
    "train.txt and test.txt that list images": _listed,
    "a single folder with any of these": _only_folder,
    "one folder of images per class": _undivided,
}


def _listing(directory: Path, parts: dict[str, list[tuple[str, Path]]]) -> Listing:
    """The listing of labelled files, undivided if only one part has any."""
    filled = {part: _grouped(own) for part, own in parts.items() if own}
    if len(filled) == 1:
        (only,) = filled.values()
        return Listing(directory, {WHOLE: only})
    return Listing(directory, filled)


def _grouped(labelled: Iterable[tuple[str, Path]]) -> Classes:
    """Files by class, both sorted by name, whatever folders the files are in."""
    found: Classes = {}
    for name, path in sorted({*labelled}, key=lambda x: (x[0], x[1].name, x[1])):
        found.setdefault(name, []).append(path)
    return found


def _places(directory: Path, *ends: str) -> Iterator[tuple[str, Path]]:
    """Each part with the paths that may hold it."""
    for part, names in _NAMES.items():
        for name in names:
            for end in ends:
                yield part, directory / f"{name}{end}"


def _lists(directory: Path) -> dict[str, Path]:
    """The list of images of each part; empty without train and another part."""
    for folder in (directory, *(directory / name for name in _LIST_FOLDERS)):
        paths = _places(folder, ".csv", ".txt")
        found = {part: path for part, path in paths if path.is_file()}
        if "train" in found and len(found) > 1:
            return found
    return {}


def _say_unlabelled(folder: Path) -> None:
    if images := images_in(folder):
        which = f"in {folder.name}/ without labels"
        say_ignored(folder.parent, len(images), "image", which)


def _contents(directory: Path) -> str:
    """What is at the top of a directory, for messages."""
    folders, images = folders_in(directory), loose_in(directory)
    others = {path for path in directory.glob("*") if path.is_file()} - {*images}
    shown = [counted(len(folders), "folder") if folders else "no folders"]
    if images:
        shown.append(counted(len(images), "image"))
    if others:
        shown.append(
            f"{counted(len(others), 'other file')}, such as {min(others).name}"
        )
    if not images:
        return ", ".join(shown)
    return (
        f"{', '.join(shown)}: if this is the folder of a class, give "
        f"{directory.parent}; jaxfer.data.loose_images reads images without labels"
    )
