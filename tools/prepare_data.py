"""Prepare a data set with TFDS, and write it as an array cache.

    python tools/prepare_data.py omniglot --to DIR [--source TFDS_DIR]

This writes DIR/omniglot.cache. Runs with `--data.dir DIR` load it directly, without
tensorflow-datasets and without an image decoder. If TFDS_DIR (default: DIR) does not
hold the prepared data set, TFDS downloads and prepares it, which needs TensorFlow.
"""

import argparse
import sys
from pathlib import Path

from jaxfer.config import clean_errors
from jaxfer.data.cache import read_cache, write_cache
from jaxfer.data.sources import NAMES, cache_directory, load_source
from jaxfer.data.tfds import import_tfds


def prepare_tfds(name: str, directory: Path) -> None:
    """Download and prepare a data set as ArrayRecord, unless this is already done."""
    tfds = import_tfds(f"prepare {name}")
    builder = tfds.builder(name, data_dir=str(directory), file_format="array_record")
    if builder.info.splits:
        return
    try:
        import tensorflow  # noqa: F401
    except ImportError as e:
        raise ValueError(
            f"expected a prepared {name} in {directory}, got none, and preparing it "
            "needs TensorFlow: pip install tensorflow-cpu, or pass --source with a "
            "folder that holds it"
        ) from e
    builder.download_and_prepare()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--to", type=Path, required=True, help="data directory")
    parser.add_argument("--source", type=Path, help="TFDS data directory, or folder")
    parser.add_argument("--side", type=int, help="side of photographs in pixels")
    parser.add_argument("--exclude", type=Path, help="list of photographs to leave out")
    args = parser.parse_args()
    with clean_errors():
        source = args.source or args.to
        if args.name in NAMES and args.name not in ("folder", "glyphs"):
            prepare_tfds(args.name, source)
        data = load_source(args.name, source, side=args.side, exclude=args.exclude)
        folder = write_cache(data, cache_directory(args.name, args.to))
        data = read_cache(folder)
    shape = "x".join(str(size) for size in data.images.shape)
    print(
        f"{folder}: {shape} pixels, {data.num_classes} classes, "
        f"fingerprint {data.fingerprint}"
    )


if __name__ == "__main__":
    sys.exit(main())
