"""Records that TFDS has prepared, read at random and without TensorFlow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Records(NamedTuple):
    """A split's records.

    Attributes:
        source: by number, a dictionary each, images encoded as yet.
        features: of the builder, which know the names of classes.
        files: where they lie, for messages.
    """

    source: Any
    features: Any
    files: str

    def place(self, row: int) -> str:
        """Where a record is, for messages."""
        return f"record {row} of {self.files}"


def import_tfds(what: str) -> Any:
    """The module, which is optional, heavy, and slow to import.

    Args:
        what: it is for, for the message.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError as e:
        raise ValueError(
            f"found no tensorflow-datasets to {what} with ({e}): pip install "
            "'jaxfer[data]', or bring an array cache that tools/prepare_data.py made "
            "elsewhere"
        ) from e
    return tensorflow_datasets


def open_records(name: str, directory: Path, split: str) -> Records:
    """The records of a split of a data set.

    Args:
        name: of the data set.
        directory: a TFDS data directory that holds it.
        split: of TFDS.

    Raises:
        ValueError: no tensorflow-datasets, or files of another format.
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
    except (AssertionError, NotImplementedError, OSError, ValueError) as e:
        why = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(
            f"found {name} in {directory} in a form that cannot be read at random, "
            "needed ArrayRecord files: prepare it with `python tools/prepare_data.py "
            f"{name} --to DIR` ({why})"
        ) from e
    paths = [str(path) for path in builder.info.splits[split].filepaths]
    files = paths[0] if len(paths) == 1 else f"{paths[0]} to {paths[-1]}"
    return Records(source, builder.info.features, files)


@contextmanager
def naming(place: Callable[[], str]) -> Iterator[None]:
    """Name what was being read when reading failed.

    Args:
        place: of it: a file, or a record (see `Records.place`).

    Raises:
        ValueError: in place of what a decoder or a reader raised.
    """
    try:
        yield
    except (RuntimeError, OSError, SyntaxError, ValueError) as e:
        why = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(
            f"{place()} is damaged ({why}): copy or prepare the data set again"
        ) from e
