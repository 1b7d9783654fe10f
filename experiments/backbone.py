"""The networks that experiments train on images, and how images come to them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfer import nets
from jaxfer.config import how
from jaxfer.data import Images, View, load, read_ahead
from jaxfer.types import Net, Params, State

# Of what is read and embedded at a time: images, and bytes of pixels.
_BLOCK = 1000
_BYTES = 10**8


@dataclass(frozen=True)
class Data:
    """Images with their classes; parts of it are by example."""

    name: str = "cifar100"
    train: str = "trainval"
    test: str = "test"
    classes: int | None = None
    """Only the first so many of the data set's; all, unless given."""
    min_images: int = 1
    """Classes with fewer training images are left out."""
    side: int | None = None
    """Pixels a side to shrink images to, or to resize photographs to; as they are, and
    256, unless given. A cache of photographs has the side it was written with."""
    exclude: str | None = None
    """File that names photographs to leave out."""
    limit: float = how(4.0)
    """Gigabytes of pixels that are kept on a device; more of them are streamed, by an
    experiment that can."""
    workers: int = how(2)
    """Threads that read what is streamed."""
    dir: str | None = how(None)
    """Data directory; else $JAXFER_DATA, else where TFDS keeps its data."""


@dataclass(frozen=True)
class Network:
    """A network of `jaxfer.nets`."""

    kind: Literal["eight", "eight_batch_norm", "inception_v1", "resnet20"] = "eight"
    width: int = 32
    dense: int = 256
    """Units of fc6 and fc7."""
    dropout: float = 0.5
    """Share of the units of fc6 and fc7 that is dropped, or of InceptionV1's pooled
    features."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters and statistics stay float32."""


def load_parts(data: Data, *, streams: bool = False) -> tuple[Images, Images]:
    """The training and the test images of all classes.

    Args:
        data: says which.
        streams: whether those above the limit are given as they are, to be streamed;
            others are in memory.

    Raises:
        ValueError: data that are not there, or more of them than the limit.
    """
    splits = (data.train, data.test)
    parts = load(
        data.name,
        splits,
        data.dir,
        by="example",
        limit=data.limit * 1e9,
        side=data.side,
        exclude=data.exclude,
    )
    train, test = (parts[split] for split in splits)
    counts = np.bincount(train.labels, minlength=train.num_classes)
    chosen = [
        name
        for name, count in zip(train.class_names, counts, strict=True)
        if count >= data.min_images
    ]
    chosen = chosen[: data.classes]
    if not chosen:
        raise ValueError(
            f"found {counts.max()} images in the largest class of {train.name}, needed "
            f"data.min_images = {data.min_images}"
        )
    if len(chosen) < train.num_classes:
        train, test = (x.take_classes(chosen, name=x.name) for x in (train, test))
    size = (train.images.nbytes + test.images.nbytes) / 1e9
    if size <= data.limit:
        return train.in_memory(), test.in_memory()
    found = f"{size:.3g} GB of pixels in {train.name} and {test.name}"
    if not streams:
        raise ValueError(
            f"found {found}, needed at most data.limit = {data.limit:g}: this "
            "experiment keeps images on the device (see also data.side)"
        )
    print(f"images are streamed: {found}, above data.limit = {data.limit:g}")
    return train, test


@lru_cache
def make_net(net: Network, outputs: int) -> Net:
    """The network with so many outputs."""
    dtype = jnp.dtype(net.precision)
    if net.kind == "resnet20":
        return nets.resnet20(outputs, width=net.width, dtype=dtype)
    if net.kind == "inception_v1":
        width, dropout = net.width, net.dropout
        return nets.inception_v1(outputs, width=width, dropout=dropout, dtype=dtype)
    return nets.eight_layers(
        outputs,
        width=net.width,
        dense=net.dense,
        dropout=net.dropout,
        normalize=net.kind == "eight_batch_norm",
        dtype=dtype,
    )


def moments(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """The mean of some images, and one over the standard deviation of their pixels."""
    total, squares = np.zeros(images.shape[1:]), 0.0
    # Some at a time: as floats all of them would take eight times their memory.
    for start in range(0, len(rows), _BLOCK):
        block = images[rows[start : start + _BLOCK]].astype(np.float64)
        total += block.sum(axis=0)
        squares += float((block * block).sum())
    mean = total / len(rows)
    variance = squares / (len(rows) * mean.size) - mean.mean() ** 2
    return mean.astype(np.float32), np.float32(1 / max(variance, 1e-12) ** 0.5)


def normalized(images: Array, centre: Array, scale: Array) -> Array:
    """Pixels less the mean image or another, times a scale."""
    return (images.astype(jnp.float32) - centre[None]) * scale


def pieces(
    piece: Callable[..., Array],
    params: Params,
    state: State,
    task: Any,
    images: Array | View,
    rows: np.ndarray,
    workers: int = 2,
) -> Iterator[Array]:
    """What a compiled function gives for some rows, a block after another.

    Args:
        piece: of parameters, statistics, task, the pixels of a block and its rows.
        params: of the network.
        state: of the network.
        task: says how pixels are normalised.
        images: all of them, on the device or to be read.
        rows: those wanted.
        workers: threads that read.
    """
    block = min(_BLOCK, len(rows), max(1, _BYTES // math.prod(images.shape[1:])))
    # The last block is filled up: there is one shape to compile.
    filled = np.resize(rows, (-(-len(rows) // block), block))
    if isinstance(images, View):
        pixels = read_ahead([*filled], images.__getitem__, workers=workers)
    else:
        pixels = (_take(images, at) for at in filled)
    for i, (at, x) in enumerate(zip(filled, pixels, strict=True)):
        yield piece(params, state, task, x, at)[: len(rows) - i * block]


@jax.jit
def _take(images: Array, rows: Array) -> Array:
    return images[rows]
