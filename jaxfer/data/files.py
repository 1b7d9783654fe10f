"""Image files below a directory: in class folders, and by the paths in lists."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxfer.data.lists import counted

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

# The files of each class.
Classes = dict[str, list[Path]]


def images_in(directory: Path) -> list[Path]:
    """All image files below a directory, sorted, without hidden ones.

    Example:
        >>> images_in(Path("nowhere"))
        []
    """
    return sorted(_images(directory))


def folders_in(directory: Path) -> list[Path]:
    """The folders in a directory, sorted, without hidden ones and array caches."""
    return sorted(
        path
        for path in directory.glob("*")
        # A cache may be next to the folders from which it was made.
        if path.is_dir()
        and not path.name.startswith(".")
        and path.suffix != ".cache"
        and not (path.is_symlink() and _holds(path, directory))
    )


def _holds(above: Path, directory: Path) -> bool:
    return directory.resolve().is_relative_to(above.resolve())


def holding_images(directory: Path) -> list[Path]:
    """The folders in a directory with images at any depth."""
    return [f for f in folders_in(directory) if next(_images(f), None) is not None]


def loose_in(directory: Path) -> list[Path]:
    """The image files in a directory itself, sorted."""
    return sorted(filter(_is_image, directory.glob("*")))


def _images(directory: Path) -> Iterator[Path]:
    return filter(_is_image, directory.rglob("*"))


def _is_image(path: Path) -> bool:
    known = path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    return known and path.is_file()


def place_in(directory: Path, path: Path) -> str:
    """The path relative to a directory above it, faster than `Path.relative_to`.

    Example:
        >>> place_in(Path("birds"), Path("birds/wren/1.jpg"))
        'wren/1.jpg'
    """
    return path.as_posix().removeprefix(f"{directory.as_posix()}/")


def class_folders(directory: Path) -> Classes:
    """The image files below each folder in a directory, by the name of the folder.

    Prints what is ignored.

    Raises:
        ValueError: no folder has images.
    """
    folders = folders_in(directory)
    found = {folder.name: images_in(folder) for folder in folders}
    classes = {name: paths for name, paths in found.items() if paths}
    if not classes:
        raise ValueError(
            f"expected images in {(folders or [directory])[0]}, files that end in one "
            f"of {sorted(_SUFFIXES)}, got none"
        )
    if empty := [name for name, paths in found.items() if not paths]:
        say_ignored(directory, len(empty), "folder", f"without images: {empty[:3]}")
    if loose := loose_in(directory):
        say_ignored(directory, len(loose), "image", "in no class folder")
    above = {name: {path.parent for path in own} for name, own in classes.items()}
    direct = any(directory / name in inner for name, inner in above.items())
    if len(classes) > 1 and not direct and max(map(len, above.values())) > 1:
        print(
            f"{directory}: {len(classes)} classes, each with all images below its "
            "folder; if the classes are the folders inside, give the folder above "
            f"them, such as {directory / next(iter(classes))}"
        )
    return classes


def say_ignored(directory: Path, count: int, noun: str, which: str) -> None:
    """Print how many files or folders of a directory are ignored."""
    print(f"{directory.name}: ignored {counted(count, noun)} {which}")


class Found(NamedTuple):
    """An image file that a line of a list stands for.

    Attributes:
        label: what follows the path; empty if nothing does.
        folder: name of the class folder that the file is in; empty if it is in none.
        path: the file.
    """

    label: str
    folder: str
    path: Path


class FilesByName:
    """The image files of a directory, found by the paths that lists have.

    Args:
        directory: the directory; paths in lists are relative to it or to a folder in it
            that is not a class.
        not_classes: names of such folders, in lower case.
        anywhere: whether a name alone stands for the only file or for all folders with
            this name, wherever they are.
    """

    def __init__(
        self, directory: Path, not_classes: Iterable[str], *, anywhere: bool = False
    ) -> None:
        """Find all image files."""
        names = {*not_classes}
        tops = [f for f in folders_in(directory) if f.name.lower() in names]
        inner = [f for top in tops for f in folders_in(top) if f.name == "images"]
        self._bare = frozenset({directory, *tops, *inner})
        places = [place_in(directory, folder) for folder in (*tops, *inner)]
        self._bases = ["", *(f"{place}/" for place in places)]
        self._files: dict[str, Path] = {}
        self._below: dict[str, list[Path]] = defaultdict(list)
        for path in images_in(directory):
            name = place_in(directory, path)
            self._files[name] = path
            self._files.setdefault(name.removesuffix(path.suffix), path)
            while name := name.rpartition("/")[0]:
                self._below[name].append(path)
        if anywhere:
            self._add_names()

    def _add_names(self) -> None:
        """Add the bare names of unique files and of folders."""
        alone: dict[str, Path | None] = {}
        named: dict[str, list[Path]] = defaultdict(list)
        for path in self._files.values():
            for name in {path.name, path.stem}:
                known = alone.setdefault(name, path)
                alone[name] = path if known == path else None
        for folder, paths in self._below.items():
            named[folder.rpartition("/")[2]] += paths
        for name, path in alone.items():
            if path is not None:
                self._files.setdefault(name, path)
        for name, paths in named.items():
            self._below[name] = sorted({*paths})

    def find(self, name: str) -> Path | None:
        """The file with a path, with or without suffix."""
        name = name.removeprefix("./").lstrip("/")
        found = (self._files.get(base + name) for base in self._bases)
        return next((path for path in found if path is not None), None)

    def read_line(self, line: str) -> list[Found] | None:
        """The file that a line names, or all files below the folder that it names."""
        for name, label in _cuts(line):
            if (path := self.find(name)) is not None:
                return [Found(label, self._folder(path), path)]
        below = (self._below.get(base + line.strip("/")) for base in self._bases)
        paths = next((paths for paths in below if paths), [])
        return [Found("", self._folder(path), path) for path in paths] or None

    def _folder(self, path: Path) -> str:
        folder = path.parent
        if folder.name == "images" and folder not in self._bare:
            folder = folder.parent
        return "" if folder in self._bare else folder.name


def _cuts(line: str) -> Iterator[tuple[str, str]]:
    """The ways to cut a line into a path, which may have spaces, and a label."""
    yield line, ""
    for cut in (line.split("\t", 1), line.rsplit(None, 1), line.split(None, 1)):
        if len(cut) == 2:
            yield cut[0], cut[1].strip()
    name, _, label = line.partition(",")
    yield name, label.strip()
