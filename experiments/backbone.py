"""The networks that experiments train on images, and how images come to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfer import nets
from jaxfer.config import how
from jaxfer.data import Images, load, shrunk
from jaxfer.types import Net, Params, State

_BLOCK = 1000


@dataclass(frozen=True)
class Data:
    """Images with their classes; parts of it are by example."""

    name: str = "cifar100"
    train: str = "trainval"
    test: str = "test"
    classes: int | None = None
    """Only the first so many of the data set's; all, unless given."""
    side: int | None = None
    """Pixels a side to shrink images to, or to resize photographs to; as they are, and
    256, unless given."""
    exclude: str | None = None
    """File that names photographs to leave out."""
    limit: float = how(4.0)
    """Gigabytes of pixels that may be kept on a device."""
    dir: str | None = how(None)
    """Data directory; else $JAXFER_DATA, else where TFDS keeps its data."""


@dataclass(frozen=True)
class Network:
    """A network of `jaxfer.nets`."""

    kind: Literal["eight", "eight_batch_norm", "resnet20"] = "eight"
    width: int = 32
    dense: int = 256
    """Units of fc6 and fc7."""
    dropout: float = 0.5
    """Share of the units of fc6 and fc7 that is dropped."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters and statistics stay float32."""


def load_parts(data: Data) -> tuple[Images, Images]:
    """The training and the test images of all classes, in memory.

    Args:
        data: says which.

    Raises:
        ValueError: data that are not there, or more of them than the limit.
    """
    parts = load(data.name, [data.train, data.test], data.dir, by="example")
    train, test = (
        parts[split] if data.side is None else shrunk(parts[split], data.side)
        for split in (data.train, data.test)
    )
    size = (train.images.nbytes + test.images.nbytes) / 1e9
    if size > data.limit:
        raise ValueError(
            f"found {size:.3g} GB of pixels in {train.name} and {test.name}, needed at "
            f"most data.limit = {data.limit:g}: this experiment keeps images on the "
            "device (see also data.side)"
        )
    if data.classes is not None:
        chosen = train.class_names[: data.classes]
        train, test = (x.take_classes(chosen, name=x.name) for x in (train, test))
    return train.in_memory(), test.in_memory()


@lru_cache
def make_net(net: Network, outputs: int) -> Net:
    """The network with so many outputs."""
    dtype = jnp.dtype(net.precision)
    if net.kind == "resnet20":
        return nets.resnet20(outputs, width=net.width, dtype=dtype)
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
    """Pixels less the mean image, over their standard deviation."""
    return (images.astype(jnp.float32) - centre[None]) * scale


def pieces(
    piece: Callable[..., Array],
    params: Params,
    state: State,
    task: Any,
    images: Array,
    rows: np.ndarray,
) -> Iterator[Array]:
    """What a compiled function gives for some rows, a block after another.

    Args:
        piece: of parameters, statistics, task, images and the rows of a block.
        params: of the network.
        state: of the network.
        task: says how pixels are normalised.
        images: all of them.
        rows: those wanted.
    """
    # The last block is filled up: there is one shape to compile.
    block = min(_BLOCK, len(rows))
    filled = np.resize(rows, -(-len(rows) // block) * block)
    for start in range(0, len(rows), block):
        out = piece(params, state, task, images, filled[start : start + block])
        yield out[: len(rows) - start]
