"""Arrays too large for a device or for memory, stored on disk in several files."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Integer

_META = "meta.json"


class Shards:
    """An array on disk, read by rows.

    Args:
        directory: directory written by `write_shards`.

    Raises:
        ValueError: the directory is incomplete or damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        """Open the files, without reading them."""
        directory = Path(directory)
        try:
            meta = json.loads((directory / _META).read_text())
            files = [directory / name for name in meta["files"]]
            self._parts = [np.load(file, mmap_mode="r") for file in files]
        except (OSError, EOFError, KeyError, ValueError) as e:
            raise ValueError(
                f"the shards in {directory} are damaged ({e}): remove the folder to "
                "write them again"
            ) from e
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self.shape = (int(self._starts[-1]), *self._parts[0].shape[1:])
        self.dtype = self._parts[0].dtype

    def __getitem__(self, rows: Integer[np.ndarray, " m"]) -> np.ndarray:
        """The given rows, in the given order."""
        rows = np.asarray(rows)
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        part = np.searchsorted(self._starts, rows, side="right") - 1
        for i in np.unique(part):
            here = part == i
            found[here] = self._parts[i][rows[here] - self._starts[i]]
        return found


def write_shards(
    directory: str | Path, blocks: Iterable[np.ndarray], *, limit: float = 1e9
) -> Shards:
    """Write blocks of rows one after another, and open them as one array.

    Args:
        directory: created if missing; complete once it has a meta.json.
        blocks: arrays that differ in their first axis only; at least one.
        limit: largest size of a file in bytes; a larger block has its own file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shards = write_shards(folder, [np.arange(3), np.arange(3, 5)])
        ...     shards[np.array([4, 0])].tolist()
        [4, 0]
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files: list[str] = []
    waiting: list[np.ndarray] = []

    def write() -> None:
        files.append(f"{len(files):05d}.npy")
        np.save(directory / files[-1], np.concatenate(waiting))
        waiting.clear()

    for block in blocks:
        if waiting and sum(x.nbytes for x in waiting) + block.nbytes > limit:
            write()
        waiting.append(block)
    write()
    (directory / _META).write_text(json.dumps({"files": files}))
    return Shards(directory)
