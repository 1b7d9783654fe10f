"""Embedding of a folder of images into a feature bank."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from jaxfer.data import Photos, View
from jaxfer.data.bank import Bank, hash_of, load_bank, save_bank
from jaxfer.data.files import loose_in, place_in
from jaxfer.data.folders import loose_images, undivided_images
from jaxfer.models.files import model_hash
from jaxfer.models.inference import embed_on_host
from jaxfer.models.model import Model

# Images between two saves of an unfinished bank.
_PART = 2048


class Folder(NamedTuple):
    """The images of a folder, not yet decoded.

    Attributes:
        photos: the files.
        rows: the number of each image among the files.
        labels: `[n]`, its class; -1 for an image in no class.
        class_names: one name per class.
        names: the path of each image in the folder.
        num_train: the number of training images, which come first; None if the folder
            has no parts.
    """

    photos: Photos
    rows: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    num_train: int | None


def read_folder(directory: str | Path, side: int) -> Folder:
    """The images of a folder with one folder per class, or of one without classes.

    Args:
        directory: a folder in any layout of `jaxfer.data.image_folder`, or one that
            holds images itself, which then have no classes.
        side: side in pixels to which images are resized.

    Raises:
        ValueError: a folder that does not exist or has no images.
    """
    place = Path(directory).resolve()
    if place.is_dir() and loose_in(place):
        view, names = loose_images(place, side)
        labels, classes, first = np.full(len(view), -1, np.int32), (), None
    else:
        images = undivided_images(place, side)
        view = View.of(images.images)
        labels, classes, first = images.labels, images.class_names, images.num_train
    photos = view.store
    assert isinstance(photos, Photos)  # noqa: S101
    names = tuple(place_in(place, Path(photos.place(int(row)))) for row in view.rows)
    return Folder(photos, view.rows, labels, classes, names, first)


def model_side(model: Model) -> int:
    """The side of the square images that a model takes.

    Raises:
        ValueError: a model of images that are not square, or of any size.
    """
    size = model.pixels.size or tuple(model.about.get("image_shape", ()))[:2]
    if len(size) != 2 or size[0] != size[1]:
        raise ValueError(
            f"expected a model of square images to embed a folder, got one of {size}"
        )
    return int(size[0])


def embed_folder(
    model: Model,
    directory: str | Path,
    path: str | Path | None = None,
    *,
    workers: int = 2,
    progress: bool = True,
) -> Bank:
    """The embeddings of all images of a folder, as a bank that is kept in a file.

    An image whose hash is in the file already is not embedded again: new images can be
    added to a folder, and an interrupted call goes on where it stopped.

    Args:
        model: the model that embeds.
        directory: a folder with one folder per class, in any layout of
            `jaxfer.data.image_folder`; or a folder of images without classes.
        path: the file, which ends in .npz or .safetensors; default: none.
        workers: threads that decode.
        progress: whether to show progress bars.

    Raises:
        ValueError: a folder without images, an image that cannot be read, or a file
            with the embeddings of another model.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from jaxfer.nets import Flatten
        >>> about = {"image_shape": [2, 2, 3]}
        >>> model = Model(Flatten().build(), {}, {}, about=about)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "red").mkdir()
        ...     Image.new("RGB", (4, 4), "red").save(f"{folder}/red/1.png")
        ...     embed_folder(model, folder, progress=False)
        Bank(1 embeddings of 12 dimensions, 1 classes)
    """
    files = read_folder(directory, model_side(model))
    own = model_hash(model)
    about = {
        "model": own,
        "weights": model.about.get("weights"),
        "net": type(model.net.spec).__name__,
        "side": files.photos.shape[1],
        "folder": Path(directory).resolve().name,
    }
    place = None if path is None else Path(path)
    begun = place and place.with_name(f"{place.stem}.begun{place.suffix}")
    known = _known([place, begun], own)
    hashes = _hashes(files, workers, progress)
    # Copies of an image are embedded once.
    new = {hash_: i for i, hash_ in enumerate(hashes) if hash_ not in known}
    todo = np.array(sorted(new.values()), np.int64)
    view = View.of(files.photos).take(files.rows)
    with tqdm(
        total=len(todo), desc="embedding", unit="image", disable=not progress
    ) as bar:
        for start in range(0, len(todo), _PART):
            rows = todo[start : start + _PART]
            z = embed_on_host(model, view.take(rows), workers=workers)
            known |= {hashes[row]: x for row, x in zip(rows, z, strict=True)}
            bar.update(len(rows))
            if begun is not None and start + _PART < len(todo):
                save_bank(begun, _unfinished(known, own))
    bank = Bank(
        np.stack([known[hash_] for hash_ in hashes]),
        files.labels,
        files.class_names,
        files.names,
        tuple(hashes),
        files.num_train,
        about,
    )
    if place is not None:
        save_bank(place, bank)
    if begun is not None:
        begun.unlink(missing_ok=True)
    return bank


def _hashes(files: Folder, workers: int, progress: bool) -> list[str]:
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda row: hash_of(files.photos.read(int(row))), files.rows)
        return [
            *tqdm(
                found,
                desc="reading",
                total=len(files.rows),
                unit="image",
                leave=False,
                disable=not progress,
            )
        ]


def _known(paths: Sequence[Path | None], model: str) -> dict[str, np.ndarray]:
    """The embeddings by hash in the files that exist."""
    known: dict[str, np.ndarray] = {}
    for path in paths:
        if path is None or not path.exists():
            continue
        bank = load_bank(path)
        if bank.about.get("model") != model:
            raise ValueError(
                f"expected a bank of the model {model} in {path}, got one of "
                f"{bank.about.get('model')}: choose another path, or delete it"
            )
        known |= dict(zip(bank.hashes, bank.embeddings, strict=True))
    return known


def _unfinished(known: Mapping[str, Any], model: str) -> Bank:
    z = np.stack([*known.values()])
    labels = np.full(len(z), -1, np.int32)
    return Bank(z, labels, (), (*known,), (*known,), None, {"model": model})
