"""Feature banks: the embeddings of a data set in one file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxfer.data.images import Images
from jaxfer.data.resident import Resident, table_of
from jaxfer.tensors import read_tensors, seal, unseal, whole_file, write_tensors

_FORMAT = 1
_ARRAYS = ("embeddings", "labels")
_TEXTS = ("names", "hashes", "class_names", "about", "num_train")


@dataclass(frozen=True)
class Bank:
    """The embeddings of images, with labels, names and hashes.

    Attributes:
        embeddings: `[n, dim]`, float32.
        labels: `[n]`, int32 from 0; -1 for an image without a label.
        class_names: one name per class.
        names: the name of each image, such as its path in its folder.
        hashes: the hash of each image, the first 16 hexadecimal digits of SHA-256.
        num_train: the number of training images, which come first; None if the images
            are not divided.
        about: the model and the data, as plain values; 'model' is the model's hash.

    Raises:
        ValueError: arrays or names whose lengths differ, or labels without a name.

    Example:
        >>> z, labels = np.eye(2, dtype=np.float32), np.array([0, 1], np.int32)
        >>> Bank(z, labels, ("kite", "wren"), ("1.jpg", "2.jpg"), ("00", "01"))
        Bank(2 embeddings of 2 dimensions, 2 classes)
    """

    embeddings: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    hashes: tuple[str, ...]
    num_train: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check lengths and labels."""
        n = len(self.embeddings)
        lengths = {len(self.labels), len(self.names), len(self.hashes)}
        if self.embeddings.ndim != 2 or lengths != {n}:
            raise ValueError(
                f"expected labels, names and hashes for {n} embeddings [n, dim], got "
                f"{sorted(lengths)} and shape {self.embeddings.shape}"
            )
        low, high = self.labels.min(initial=-1), self.labels.max(initial=-1)
        if low < -1 or high >= len(self.class_names):
            raise ValueError(
                f"expected labels from -1 to {len(self.class_names) - 1}, got {low} to "
                f"{high}"
            )

    def __repr__(self) -> str:
        """Sizes: the arrays themselves would fill pages."""
        n, dim = self.embeddings.shape
        classes = f", {len(self.class_names):,} classes" if self.class_names else ""
        return f"Bank({n:,} embeddings of {dim:,} dimensions{classes})"

    def images(self, name: str = "bank") -> Images:
        """The labelled embeddings as a data set of "images" of 1x1 pixels.

        Functions that take images then train and test on them, with a network such as
        `jaxfer.nets.Flatten`.

        Raises:
            ValueError: an embedding without a label.
        """
        if (self.labels < 0).any():
            first = self.names[int(np.argmax(self.labels < 0))]
            raise ValueError(f"expected a label for every embedding, got none: {first}")
        return Images(
            name,
            self.embeddings[:, None, None, :],
            self.labels,
            self.class_names,
            num_train=self.num_train,
        )

    def resident(self) -> Resident:
        """The labelled embeddings to sample episodes from, see `measure_episodes`.

        Raises:
            ValueError: an embedding without a label.
        """
        return Resident(self.embeddings, table_of(self.images()))


def save_bank(path: str | Path, bank: Bank) -> Path:
    """Write a bank to one file, completely or not at all.

    Args:
        path: a path that ends in .npz or .safetensors.
        bank: the bank.

    Raises:
        ValueError: another suffix, or a file that cannot be written.
    """
    path = Path(path)
    arrays = {
        "embeddings": np.ascontiguousarray(bank.embeddings, np.float32),
        "labels": np.ascontiguousarray(bank.labels, np.int32),
    }
    header = {name: getattr(bank, name) for name in _TEXTS}
    header |= {"format": _FORMAT, "about": dict(bank.about)}
    sealed = seal(header, arrays)
    _check_suffix(path)
    try:
        if path.suffix == ".safetensors":
            write_tensors(path, arrays, {"jaxfer_bank": sealed})
        else:
            with whole_file(path) as part, part.open("wb") as file:
                np.savez(file, header=np.array(json.dumps(sealed)), **arrays)
    except OSError as e:
        raise ValueError(f"the bank {path} cannot be written ({e.strerror})") from e
    return path


def load_bank(path: str | Path) -> Bank:
    """Read a bank, and verify it.

    Args:
        path: a file that `save_bank` wrote.

    Raises:
        ValueError: no such file, or one that is damaged or of another format.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise ValueError(f"expected a bank of embeddings, got no file at {path}")
    try:
        if path.suffix == ".npz":
            # NumPy leaves a damaged file open that it opened itself.
            with path.open("rb") as opened:
                file = np.load(opened, allow_pickle=False)
                text = str(file["header"])
                arrays = {name: file[name] for name in _ARRAYS}
        else:
            texts, arrays = read_tensors(path)
            text = texts["jaxfer_bank"]
        header = unseal(text, arrays, _FORMAT)
        facts = {"num_train": header["num_train"], "about": header["about"]}
        facts |= {name: tuple(header[name]) for name in _TEXTS[:3]}
        return Bank(**arrays, **facts)
    except Exception as e:  # noqa: BLE001
        # A damaged archive may end in almost any error.
        raise ValueError(f"the bank {path} cannot be read: {e}") from e


def hash_of(content: bytes | memoryview) -> str:
    """The hash of an image in a bank.

    Example:
        >>> hash_of(b"")
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(content).hexdigest()[:16]


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"expected a bank's path to end in .npz or .safetensors, got {path}"
        )
