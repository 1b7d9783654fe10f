"""Attributes of classes, which describe classes that have no images."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from jaxfer.data.lists import counted, read_lines

# How attribute vectors are scaled.
Scale = Literal["raw", "unit", "standard"]
# Where attributes come from.
AttributeSource = Literal["table", "cub", "wordnet", "superclasses"]


@dataclass(frozen=True, eq=False)
class ClassAttributes:
    """The attribute vector of each class.

    Attributes:
        values: `[classes, dim]`, float32.
        class_names: one name per class.
        names: one name per attribute.

    Raises:
        ValueError: names whose numbers do not fit, values that are not finite, or a
            class that is named twice.

    Example:
        >>> ClassAttributes(np.eye(2, dtype=np.float32), ("kite", "wren"), ("a", "b"))
        ClassAttributes(2 classes, 2 attributes)
    """

    values: Float[np.ndarray, "classes dim"]
    class_names: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check sizes and values."""
        if self.values.shape != (len(self.class_names), len(self.names)):
            raise ValueError(
                f"expected attributes of {len(self.class_names)} classes and "
                f"{len(self.names)} names, got shape {self.values.shape}"
            )
        if not np.isfinite(self.values).all():
            row, column = np.argwhere(~np.isfinite(self.values))[0]
            raise ValueError(
                f"expected finite attributes, got {self.values[row, column]} for "
                f"{self.names[column]!r} of class {self.class_names[row]!r}"
            )
        if len({*self.class_names}) < len(self.class_names):
            twice = next(n for n in self.class_names if self.class_names.count(n) > 1)
            raise ValueError(
                f"expected one row of attributes per class, got two of {twice!r}"
            )

    def __repr__(self) -> str:
        """Sizes: the values themselves would fill pages."""
        classes = counted(len(self.class_names), "class", "es")
        return f"ClassAttributes({classes}, {counted(len(self.names), 'attribute')})"

    def of(self, class_names: Sequence[str]) -> "ClassAttributes":
        """The attributes of some classes, in their order.

        Numbers before the names, as in "001.Black_footed_Albatross", do not matter if
        the names without them differ.

        Raises:
            ValueError: a class without attributes.

        Example:
            >>> every = ClassAttributes(np.eye(2), ("1.kite", "2.wren"), ("a", "b"))
            >>> every.of(["wren"]).values.tolist()
            [[0.0, 1.0]]
        """
        exact = {name: row for row, name in enumerate(self.class_names)}
        plain = {_plain(name): row for row, name in enumerate(self.class_names)}
        if len(plain) < len(exact):
            plain = {}
        found = [exact.get(n, plain.get(_plain(n), -1)) for n in class_names]
        lost = [n for n, row in zip(class_names, found, strict=True) if row < 0]
        if lost:
            raise ValueError(
                f"expected attributes for every class, got none for "
                f"{counted(len(lost), 'class', 'es')} of {len(class_names):,}, such as "
                f"{lost[:3]}; there are attributes of {[*self.class_names[:3]]}"
            )
        return ClassAttributes(self.values[found], (*class_names,), self.names)


def scaled_attributes(
    attributes: ClassAttributes, scale: Scale, train: Sequence[str]
) -> ClassAttributes:
    """Attributes with scaled values.

    Args:
        attributes: attributes of all classes.
        scale: 'raw' leaves them as they are; 'unit' scales each class's vector to
            length 1; 'standard' subtracts the mean over the training classes from each
            attribute and divides by its standard deviation. Attributes that do not vary
            over the training classes are then 0.
        train: names of the training classes.

    Raises:
        ValueError: another scale, or a class without attributes.

    Example:
        >>> every = ClassAttributes(np.array([[3.0, 4.0]]), ("kite",), ("a", "b"))
        >>> scaled_attributes(every, "unit", ["kite"]).values.round(2).tolist()
        [[0.6..., 0.8...]]
    """
    values = np.asarray(attributes.values, np.float64)
    if scale == "unit":
        length = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(length > 0, length, 1)
    elif scale == "standard":
        known = np.asarray(attributes.of(train).values, np.float64)
        spread, varies = known.std(axis=0), np.ptp(known, axis=0) > 0
        values = np.where(
            varies, (values - known.mean(axis=0)) / np.where(varies, spread, 1), 0
        )
    elif scale != "raw":
        raise ValueError(f"expected a scale of {get_args(Scale)}, got {scale!r}")
    scaled = values.astype(np.float32)
    return ClassAttributes(scaled, attributes.class_names, attributes.names)


def load_attributes(
    source: AttributeSource,
    path: str | Path | None,
    class_names: Sequence[str] | None = None,
) -> ClassAttributes:
    """The attributes of classes, from a file or from the classes' names.

    Args:
        source: 'table' is a .csv or .tsv file whose first line names the attributes and
            each other line describes one class; 'cub' the folder of CUB-200-2011 with
            its 312 attributes; 'wordnet' a JSON file with a graph of WordNet, as
            Meta-Dataset releases it, where attributes are ancestors in the graph; and
            'superclasses' takes the superclass before the slash of a class's name.
        path: the file or folder; None for 'superclasses'.
        class_names: names of the classes; default: all classes of a table or of CUB.

    Raises:
        ValueError: a file that is missing or damaged, a class without attributes, or a
            source that needs the names of the classes.

    Example:
        >>> load_attributes("superclasses", None, ["fish/ray", "fish/cod", "tree/oak"])
        ClassAttributes(3 classes, 2 attributes)
    """
    if source not in get_args(AttributeSource):
        raise ValueError(
            f"expected a source of {get_args(AttributeSource)}, got {source!r}"
        )
    if (path is None) != (source == "superclasses"):
        some = "a" if path is None else "no"
        raise ValueError(
            f"expected {some} path for attributes of the source {source!r}, got {path}"
        )
    if path is not None and source in ("table", "cub"):
        every = (_table if source == "table" else _cub)(Path(path))
        return every if class_names is None else every.of(class_names)
    if class_names is None:
        raise ValueError(
            f"expected the names of the classes for attributes of the source "
            f"{source!r}, got none"
        )
    return _superclasses(class_names) if path is None else _wordnet(path, class_names)


def _superclasses(class_names: Sequence[str]) -> ClassAttributes:
    if plain := [name for name in class_names if "/" not in name]:
        raise ValueError(
            f"expected classes with names such as 'fish/ray', whose superclass is an "
            f"attribute, got {plain[:3]}"
        )
    own = [name.partition("/")[0] for name in class_names]
    names = tuple(sorted({*own}))
    values = np.array([[name == one for name in names] for one in own], np.float32)
    return ClassAttributes(values, (*class_names,), names)


def _table(path: Path) -> ClassAttributes:
    """A table of text, with one line per class; empty lines are skipped."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as a table ({e})") from e
    read = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    cells = [(number, row) for number, row in enumerate(read, 1) if any(row)]
    if len(cells) < 2 or len(cells[0][1]) < 2:
        raise ValueError(
            f"expected a line of attribute names and one line per class in {path}, got "
            f"{counted(len(cells), 'line')}"
        )
    _, *names = cells[0][1]
    rows = []
    for number, row in cells[1:]:
        if len(row) != len(names) + 1:
            raise ValueError(
                f"expected a class and {counted(len(names), 'number')} in line "
                f"{number} of {path}, got {counted(len(row), 'cell')}"
            )
        rows.append(_numbers(row[1:], path, number))
    values = np.array(rows, np.float32)
    classes = tuple(row[0].strip() for _, row in cells[1:])
    return ClassAttributes(values, classes, tuple(names))


def _cub(directory: Path) -> ClassAttributes:
    """The share of annotators who see each attribute in a class of CUB-200-2011."""
    path = directory / "attributes" / "class_attribute_labels_continuous.txt"
    lines = enumerate(read_lines(path), 1)
    rows = [_numbers(line.split(), path, number) for number, line in lines]
    classes = [line.split()[-1] for line in read_lines(directory / "classes.txt")]
    listed = directory / "attributes" / "attributes.txt"
    listed = listed if listed.is_file() else directory / "attributes.txt"
    names = [line.split()[-1] for line in read_lines(listed)]
    if {len(row) for row in rows} != {len(names)} or len(rows) != len(classes):
        raise ValueError(
            f"expected {len(classes)} lines of {len(names)} numbers in {path}, got "
            f"{len(rows)} of {sorted({len(row) for row in rows})}"
        )
    values = np.array(rows, np.float32) / 100
    return ClassAttributes(values, tuple(classes), tuple(names))


def _wordnet(path: str | Path, class_names: Sequence[str]) -> ClassAttributes:
    """1 where a synset is an ancestor of a class; those of all classes are left out."""
    try:
        found = json.loads("\n".join(read_lines(path)))
        # A synset may be in the graphs of several parts, with other parents in each.
        above, words = defaultdict(set), {}
        for graph in found["split_subgraphs"].values():
            for node in graph:
                above[node["wn_id"]] |= {*node["parents_ids"]}
                words[node["wn_id"]] = node["words"]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(
            f"expected a graph of WordNet with split_subgraphs in {path}, got another "
            f"file ({type(e).__name__}: {e})"
        ) from e
    if lost := [name for name in class_names if name not in words]:
        raise ValueError(
            f"expected classes that are synsets in {path}, got {lost[:3]}: name the "
            "classes by their WordNet ids, such as n01532829"
        )

    def ancestors(name: str) -> set[str]:
        reached, new = set(), [name]
        while new:
            parents = {p for one in new for p in above.get(one, ())} - reached
            reached |= parents
            new = [*parents]
        return reached

    own = [ancestors(name) for name in class_names]
    differing = sorted(set().union(*own) - set.intersection(*own))
    values = np.array([[one in each for one in differing] for each in own], np.float32)
    names = tuple(words[one].partition(",")[0] for one in differing)
    return ClassAttributes(values.reshape(len(own), len(names)), (*class_names,), names)


def _plain(name: str) -> str:
    """The name of a class without a number before it, as in "001.Crested_Auklet"."""
    return re.sub(r"^\d+[. ]\s*", "", name)


def _numbers(cells: Sequence[str], path: Path, line: int) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as e:
        raise ValueError(f"expected numbers in line {line} of {path}: {e}") from e
