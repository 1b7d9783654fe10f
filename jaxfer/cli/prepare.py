"""`prepare DATASET --to DIR`: a data set as an array cache."""

from pathlib import Path

from jaxfer.data.cache import read_cache, write_cache
from jaxfer.data.loading import cache_directory, load_source
from jaxfer.data.sources import SOURCES
from jaxfer.data.tfds import import_tfds


def run(
    name: str,
    to: Path,
    source: Path | None,
    lists: Path | None,
    side: int | None,
    exclude: Path | None,
) -> None:
    """Write DIR/NAME.cache, and print what it holds.

    If the source does not hold the prepared data set, TFDS downloads and prepares it,
    which needs TensorFlow.
    """
    place = source or to
    if name in SOURCES and (known := SOURCES[name].tfds):
        _prepare(known, place)
    data = load_source(name, place, side=side, exclude=exclude, lists=lists)
    folder = write_cache(data, cache_directory(name, to))
    data = read_cache(folder)
    shape = "x".join(str(size) for size in data.images.shape)
    print(
        f"{folder}: {shape} pixels, {data.num_classes} classes, "
        f"fingerprint {data.fingerprint}"
    )


def _prepare(name: str, directory: Path) -> None:
    """Download and prepare a data set as ArrayRecord, unless this is already done."""
    tfds = import_tfds(f"prepare {name}")
    builder = tfds.builder(name, data_dir=str(directory), file_format="array_record")
    if builder.info.splits:
        return
    try:
        import tensorflow  # noqa: F401 # pyright: ignore
    except ImportError as e:
        raise ValueError(
            f"expected a prepared {name} in {directory}, got none, and preparing it "
            "needs TensorFlow: pip install tensorflow-cpu, or pass --source with a "
            "folder that holds it"
        ) from e
    builder.download_and_prepare()
