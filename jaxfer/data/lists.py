"""Lists of names in files; a printed line counts the names that stand for nothing."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file, without blank lines and surrounding spaces.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as a list of names ({e})") from e
    return [line.strip() for line in lines if line.strip()]


def read_names(path: str | Path) -> list[str]:
    """The names in a list: one per line, or a JSON list.

    Lines that begin with "#" are headings. A list in a JSON list is a name in parts, as
    in the class lists of CIFAR-FS: `["fish", "ray"]` is the name "fish/ray".

    Raises:
        ValueError: the file cannot be read, or has no names.
    """
    lines = read_lines(path)
    if Path(path).suffix == ".json":
        names = _json_names("\n".join(lines), path)
    else:
        names = [line for line in lines if not line.startswith("#")]
    if not names:
        raise ValueError(f"expected one name per line in {path}, got none")
    return names


def _json_names(text: str, path: str | Path) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError as e:
        raise ValueError(f"{path} cannot be read as a JSON list ({e})") from e
    if isinstance(found, dict):
        found = found.get("class_names")
    if not isinstance(found, list):
        raise ValueError(f"expected a list of names in {path}, got other JSON")
    return ["/".join(map(str, x)) if isinstance(x, list) else str(x) for x in found]


def read_excluded(path: str | Path) -> frozenset[str]:
    """Read names of files to leave out: one per line, after a `#` if there is one.

    The published list of CUB-200-2011 images that are in ImageNet has this format: each
    name follows the name in ImageNet. Lines that begin with a `#` are headings.

    Raises:
        ValueError: the file cannot be read, or has no names.
    """
    found = [
        re.split(r"\s#\s+", line)[-1].strip()
        for line in read_lines(path)
        if not re.match(r"#+\s", line)
    ]
    if not any(found):
        raise ValueError(f"expected one file name per line in {path}, got none")
    return frozenset(found) - {""}


def find_lists(directory: str | Path, *, together: bool = False) -> dict[str, Path]:
    """The lists of train, val and test in a directory.

    Args:
        directory: the directory of files such as `train.txt` or `train_classes.txt`.
        together: whether one list of train and val, such as `trainval.txt`, may take
            the place of theirs.

    Raises:
        ValueError: there is no list to train on.
    """
    directory = Path(directory)
    paths = {
        part: path
        for part in ("train", "val", "trainval", "test")
        for name in (f"{part}_classes", part)
        for end in (".txt", ".json", ".csv")
        if (path := directory / f"{name}{end}").is_file()
    }
    if "train" in paths or not together:
        paths.pop("trainval", None)
    if not {"train", "trainval"} & {*paths}:
        raise ValueError(
            f"expected lists such as train.txt and test.txt in {directory}, got "
            f"{sorted(path.name for path in directory.glob('*'))[:3]}"
        )
    return paths


def look_up(
    names: Iterable[str],
    find: Callable[[str], T | None],
    *,
    what: str,
    where: str,
    header: bool = False,
    strict: bool = False,
) -> list[T]:
    """What each name stands for; print how many names stand for nothing.

    Args:
        names: names from a list or a command line.
        find: function that returns what a name stands for, or None.
        what: what names should stand for, such as "classes of birds".
        where: where the names come from, for messages.
        header: whether the first name may be a heading, such as the names of the
            columns of a table: it is skipped if it stands for nothing.
        strict: whether every name has to stand for something.

    Raises:
        ValueError: no name stands for anything; with `strict`, one does not.

    Example:
        >>> ages = {"wren": 3, "kite": 5}
        >>> look_up(["wren", "owl"], ages.get, what="birds", where="list.txt")
        ignored 1 of 2 names in list.txt, such as 'owl': expected birds
        [3]
    """
    found = [(name, find(name)) for name in names]
    if header and found and found[0][1] is None:
        del found[0]
    lost = [name for name, x in found if x is None]
    if len(lost) == len(found) or (strict and lost):
        some = f" among {len(found):,}" if len(lost) < len(found) else ""
        raise ValueError(
            f"expected {what}; got {counted(len(lost), 'other name')}{some} in "
            f"{where}, such as {lost[:3]}"
        )
    if lost:
        print(
            f"ignored {len(lost):,} of {counted(len(found), 'name')} in {where}, such "
            f"as {lost[0]!r}: expected {what}"
        )
    return [x for _, x in found if x is not None]


def look_up_classes(
    names: Iterable[str],
    class_names: Collection[str],
    *,
    data: str,
    where: str,
    header: bool = False,
    strict: bool = False,
) -> list[str]:
    """The classes that names stand for, each once; see `look_up` and `class_in`.

    A superclass stands for its classes: "fish" for "fish/ray" and "fish/trout".

    Args:
        names: names from a list or a command line.
        class_names: names of all classes.
        data: name of the data set, for messages.
        where: where the names come from, for messages.
        header: whether the first name may be a heading; see `look_up`.
        strict: whether every name has to stand for a class.

    Raises:
        ValueError: no name stands for a class; with `strict`, one does not.

    Example:
        >>> look_up_classes(["7 wren"], ["wren"], data="birds", where="list.txt")
        ['wren']
    """
    known, below = frozenset(class_names), defaultdict(list)
    for name in class_names:
        if "/" in name:
            below[name.partition("/")[0]].append(name)

    def find(name: str) -> list[str] | None:
        one = class_in(name, known)
        return [one] if one is not None else below.get(name)

    some = ", ".join(map(repr, [*class_names][:2]))
    what = f"classes of {data}, such as {some}"
    how = {"what": what, "where": where, "header": header, "strict": strict}
    found = look_up(names, find, **how)
    return [*dict.fromkeys(name for own in found for name in own)]


def without_classes(
    class_names: Collection[str], excluded: Iterable[str], *, data: str
) -> list[str]:
    """The classes that are left when some are excluded; see `look_up_classes`.

    Args:
        class_names: names of all classes.
        excluded: names of classes to leave out.
        data: name of the data set, for messages.

    Raises:
        ValueError: no name stands for a class, or no class is left.

    Example:
        >>> without_classes(["kite", "wren"], ["wren"], data="birds")
        ['kite']
    """
    where = "exclude_classes"
    out = {*look_up_classes(excluded, class_names, data=data, where=where)}
    if not {*class_names} - out:
        raise ValueError(
            f"expected classes of {data} that are not excluded, got none of "
            f"{len(class_names)}"
        )
    return [name for name in class_names if name not in out]


def class_in(line: str, class_names: Collection[str]) -> str | None:
    """The class that a line names, or None.

    The name is the whole line, what follows numbers, or what precedes a tab or a comma.

    Example:
        >>> lines = ["tit", "0 1 great tit", "tit,Paridae", "tit 3"]
        >>> [class_in(line, {"tit", "great tit"}) for line in lines]
        ['tit', 'great tit', 'tit', None]
    """
    forms = (line, _after_numbers(line), re.split(r"[\t,]", line)[0])
    return next((form for form in forms if form in class_names), None)


def class_after_number(line: str, class_names: Collection[str]) -> str | None:
    """The class that a line names after numbers, perhaps with words after it, or None.

    Example:
        >>> lines = ["0 3 tit", "1 tit in flight", "tit", "2 wren"]
        >>> [class_after_number(line, {"tit"}) for line in lines]
        ['tit', 'tit', None, None]
    """
    rest = _after_numbers(line)
    if rest == line:
        return None
    return class_in(rest, class_names) or class_in(rest.split()[0], class_names)


def _after_numbers(line: str) -> str:
    return re.sub(r"^(\d+\s+)+", "", line)


def counted(count: int, noun: str, ending: str = "s") -> str:
    """A number with a noun, for messages.

    Example:
        >>> counted(1, "image"), counted(1234, "class", "es")
        ('1 image', '1,234 classes')
    """
    return f"{count:,} {noun}{'' if count == 1 else ending}"
