"""Embed and predict with a model."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jaxfer.compilation import jit
from jaxfer.data.augment import centre_crop
from jaxfer.data.feed import in_blocks
from jaxfer.data.flat import FlatItems
from jaxfer.data.view import View
from jaxfer.heads import Predictions, head_logits
from jaxfer.memo import memoised
from jaxfer.models.model import (
    AnyImages,
    Model,
    Pixels,
    check_images,
    items_of,
    prepare,
)
from jaxfer.types import EVAL, AnyArray, Head, Net, Params, State

_MEMOISED = 128


def embed(
    model: Model,
    images: AnyImages,
    *,
    rows: Integer[AnyArray, " m"] | None = None,
    last: str | None = None,
    block: int | None = None,
    workers: int = 2,
) -> Float[Array, "m ..."]:
    """The embeddings of images, computed block by block with running statistics.

    The embedding of an image does not depend on any other image.

    Args:
        model: the model; its `pixels` say how images become its input.
        images: uint8 `[n, height, width, channels]` or floating features, in memory, on
            a device, or a view of images on disk.
        rows: the positions of the images to embed; default: all.
        last: the layer whose output is taken; default: the whole network.
        block: images per call; default: a power of two that depends on the size of an
            image, so that few programs serve any number of images.
        workers: threads that read a view.

    Raises:
        ValueError: images of another size than the model accepts.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> net = Conv4(width=8).build()
        >>> model = Model(net, *net.init(jax.random.key(0), (28, 28, 1)))
        >>> embed(model, np.zeros((3, 28, 28, 1), np.uint8)).shape
        (3, 8)
    """
    blocks = embed_blocks(
        model, images, rows=rows, last=last, block=block, workers=workers
    )
    return jnp.concatenate([*blocks])


def embed_blocks(
    model: Model,
    images: AnyImages,
    *,
    rows: Integer[AnyArray, " m"] | None = None,
    last: str | None = None,
    block: int | None = None,
    workers: int = 2,
) -> Iterator[Array]:
    """The embeddings of images, one block after another; see `embed`."""
    items = items_of(images)
    check_images(model, items)
    run = _embedding(model.net, last)
    params, state, pixels = model.params, model.state, model.pixels

    def piece(x: Array, at: np.ndarray) -> Array:
        del at
        return run(params, state, pixels, x)

    n = len(items) if rows is None else len(rows)
    own = block_of(n, items) if block is None else block
    fill = block is None
    return in_blocks(piece, items, rows, block=own, fill=fill, workers=workers)


def block_of(n: int, items: AnyArray | FlatItems | View) -> int:
    """The number of images per call: 1, or a power of two from 8 on.

    On a CPU, images of 224 pixels take the same time each in blocks of 8 to 128.
    """
    size = math.prod(items.shape[1:])
    most = (1.2e6 if jax.default_backend() == "cpu" else 1e8) / size
    wanted = min(max(n, 8), max(8, min(most, 1000)))
    return 1 if n == 1 else 2 ** math.ceil(math.log2(wanted))


def embed_on_host(
    model: Model, images: AnyImages, *, workers: int = 2
) -> Float[np.ndarray, "n dim"]:
    """The embeddings of images as float32 vectors in NumPy.

    Unlike `embed`, it compiles nothing for a new number of images, apart from one
    program for each size of a block, a power of two.

    Args:
        model: see `embed`.
        images: see `embed`.
        workers: see `embed`.

    Example:
        >>> from jaxfer.nets import Flatten
        >>> model = Model(Flatten().build(), {}, {})
        >>> embed_on_host(model, np.zeros((3, 2, 2, 1), np.uint8)).shape
        (3, 4)
    """
    n = len(items_of(images))
    block = block_of(n, items_of(images))
    # Full blocks only: cutting one would compile a program for each remainder.
    rows = np.resize(np.arange(n), -(-n // block) * block)
    blocks = embed_blocks(model, images, rows=rows, block=block, workers=workers)
    z = np.concatenate([np.asarray(x, np.float32) for x in blocks])[:n]
    return z.reshape(n, -1)


def predict(
    model: Model, images: AnyImages, *, block: int | None = None
) -> Predictions:
    """The class of each image with the probabilities of all classes.

    `p(k | x) = softmax_k(head_logits(head, f(x)))`.

    Args:
        model: a model with a head.
        images: see `embed`.
        block: see `embed`.

    Returns:
        The most probable class of each image; `[n, classes]` probabilities; and the
        name of each column.

    Raises:
        ValueError: a model without a head, images of another size than it accepts, or
            an image whose probabilities are not finite.

    Example:
        >>> from jaxfer.heads import linear_head
        >>> from jaxfer.nets import Flatten
        >>> head = linear_head(jax.random.key(0), 4, 3)
        >>> model = Model(Flatten().build(), {}, {}, head, class_names=("a", "b", "c"))
        >>> predict(model, np.zeros((5, 2, 2, 1), np.uint8)).probabilities.shape
        (5, 3)
    """
    if model.head is None:
        raise ValueError(
            "expected a model with a head, got one that only embeds: add a head with "
            "`with_prototypes(model, support)`"
        )
    z = embed(model, images, block=block)
    logits = _logits(model.head, z.reshape(len(z), -1))
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1))
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if bad.size:
        raise ValueError(
            f"expected finite probabilities, got others for image {bad[0]} of {len(z)}"
        )
    names = model.class_names or tuple(map(str, range(model.head.num_classes)))
    chosen = [names[i] for i in probabilities.argmax(axis=1)]
    return Predictions(chosen, probabilities, names)


def predict_labels(
    head: Head, z: Float[Array, "n dim"], *, block: int = 1000
) -> np.ndarray:
    """The class with the highest logit for each embedding; -1 if any logit is NaN.

    Args:
        head: the classifier.
        z: embeddings.
        block: embeddings per call; it limits memory for a head with many rows.
    """

    def piece(x: Array, at: np.ndarray) -> Array:
        del at
        return _highest(head, x)

    return np.concatenate([np.asarray(x) for x in in_blocks(piece, z, block=block)])


@memoised(_MEMOISED)
def _embedding(net: Net, last: str | None) -> Callable[..., Array]:
    def run(params: Params, state: State, pixels: Pixels, images: Array) -> Array:
        x = prepare(pixels, images)
        if pixels.window is not None:
            x = centre_crop(x, pixels.window)
        return net.apply(params, state, x, mode=EVAL, last=last)[0]

    return jit(run)


_logits = jit(head_logits)


@jit
def _highest(head: Head, z: Array) -> Array:
    logits = head_logits(head, z)
    highest = logits.argmax(axis=-1)
    return jnp.where(jnp.isnan(logits).any(axis=-1), -1, highest)
