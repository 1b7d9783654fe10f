"""Records prepared by TFDS, read in any order and without TensorFlow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Records(NamedTuple):
    """The records of a split.

    Attributes:
        source: sequence of records; each is a dictionary whose images are encoded.
        features: features of the builder, which have the class names.
        files: location of the records, for messages.
    """

    source: Any
    features: Any
    files: str

    def place(self, row: int) -> str:
        """The location of a record, for messages."""
        return f"record {row} of {self.files}"


def import_tfds(what: str) -> Any:
    """Import tensorflow-datasets, which is optional, large and slow to import.

    Args:
        what: its purpose, for the message.

    Raises:
        ValueError: tensorflow-datasets is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError as e:
        raise ValueError(
            f"expected tensorflow-datasets to {what}, got an import error ({e}): pip "
            "install 'jaxfer[data]', or copy an array cache that `python -m jaxfer "
            "prepare` wrote elsewhere"
        ) from e
    return tensorflow_datasets


# What TFDS raises for text files that are cut or changed.
_DAMAGE = (
    *(AssertionError, AttributeError, IndexError, KeyError, NotImplementedError),
    *(OSError, TypeError, ValueError),
)


def _of_protobuf() -> tuple[type[Exception], ...]:
    from google.protobuf import json_format, message, text_format

    return json_format.Error, message.Error, text_format.ParseError


def open_records(name: str, directory: Path, split: str) -> Records:
    """The records of a split of a data set.

    Args:
        name: name of the data set.
        directory: TFDS data directory that contains the data set.
        split: name of the split in TFDS.

    Raises:
        ValueError: tensorflow-datasets is missing, or the files have another format.
    """
    tfds = import_tfds(f"read {name} in {directory}")
    try:
        builder = tfds.builder(name, data_dir=str(directory))
        encoded = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        source = builder.as_data_source(split=split, decoders=encoded)
    except (*_DAMAGE, *_of_protobuf()) as e:
        why = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(
            f"expected {name} in {directory} as ArrayRecord files, got files that "
            f"cannot be read in any order ({why}): prepare it with "
            f"`python -m jaxfer prepare {name} --to DIR`"
        ) from e
    paths = [str(path) for path in builder.info.splits[split].filepaths]
    files = paths[0] if len(paths) == 1 else f"{paths[0]} to {paths[-1]}"
    return Records(source, builder.info.features, files)


class TooLarge(ValueError):
    """An image that is not damaged, but larger than what is decoded."""


@contextmanager
def naming(place: Callable[[], str]) -> Iterator[None]:
    """Add the location of the item that is read to an error.

    Args:
        place: function that returns a file or a record (see `Records.place`).

    Raises:
        ValueError: a decoder or a reader raised an error.
    """
    try:
        yield
    except TooLarge as e:
        raise TooLarge(f"{place()}: {e}") from e
    except (RuntimeError, OSError, SyntaxError, ValueError) as e:
        why = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(
            f"{place()} is damaged ({why}): copy or prepare the data set again"
        ) from e
