"""A model is a value: network, parameters, statistics, head, pixels and class names."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxfer.compilation import Jitted, jit
from jaxfer.data import Images, View
from jaxfer.keys import stable_draws
from jaxfer.memo import memoised
from jaxfer.types import EVAL, AnyArray, Head, Net, Params, State

AnyImages = AnyArray | Images | View
_MEMOISED = 128


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pixels:
    """How images become the input of a network: it belongs to the model.

    `x = (images - mean) / std`, in float32. `mean` and `std` are traced data, so models
    that differ in them share a compiled program.

    Attributes:
        mean: subtracted from images; a number, one per channel, or a mean image
            `[height, width, channels]`.
        std: what is divided by; a number or one per channel.
        size: height and width of the images; None accepts any.
        window: pixels per side of the middle window that the network sees of an image;
            None for the whole image.
        order: order of the colour channels that the network takes; images are RGB.
    """

    mean: Any = np.float32(0)
    std: Any = np.float32(255)
    size: tuple[int, int] | None = field(default=None, metadata={"static": True})
    window: int | None = field(default=None, metadata={"static": True})
    order: Literal["rgb", "bgr"] = field(default="rgb", metadata={"static": True})


def prepare(
    pixels: Pixels, images: Num[AnyArray, "n *item"]
) -> Float[Array, "n *item"]:
    """Images as a network takes them, `(images - mean) / std`; works within jit.

    Args:
        pixels: of the model.
        images: as they are stored, uint8 pixels or floating features.

    Example:
        >>> prepare(Pixels(), np.full((1, 1, 1, 1), 255, np.uint8)).item()
        1.0
    """
    x = jnp.asarray(images).astype(jnp.float32)
    if pixels.order == "bgr":
        x = x[..., ::-1]
    mean, std = (
        _beside(jnp.asarray(v, jnp.float32), x) for v in (pixels.mean, pixels.std)
    )
    return (x - mean) / std


def _beside(value: Array, x: Array) -> Array:
    """A number, a channel or an image with the axes that it lacks."""
    if not value.ndim:
        return value
    return value.reshape((1,) * (x.ndim - value.ndim) + value.shape)


@dataclass(frozen=True)
class Model:
    """A network with everything needed to use it.

    Functions take models and return new ones; none changes a model in place. A model
    can be saved, loaded, embedded and predicted with, extended by classes, and used as
    the source of a transfer.

    Attributes:
        net: the backbone, without a classifier.
        params: its parameters.
        state: its running statistics.
        head: a classifier on its embeddings, or None.
        pixels: how images become its input.
        class_names: one per class of the head; empty where classes have no names.
        about: where it comes from: fingerprint of the training data, metrics, versions;
            plain values that JSON can hold.
    """

    net: Net
    params: Params
    state: State
    head: Head | None = None
    pixels: Pixels = field(default_factory=Pixels)
    class_names: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


class Trained(NamedTuple):
    """What a training function returns.

    Attributes:
        model: the trained model; None where an earlier process has gone on to a later
            phase of the same run.
        steps: optimizer steps taken.
        best_step: step of the lowest validation loss; 0 without validation.
        rate: examples or episodes per second, compilation left out.
        wall_s: seconds of training, earlier parts of a resumed run included.
        compile_s: seconds until the first call was done, mostly compilation.
        compilations: programs that were compiled for the training steps; of a
            population, those of its first model are all.
        history: the evaluations during training: step and metrics of each.
    """

    model: Model | None
    steps: int
    best_step: int = 0
    rate: float | None = None
    wall_s: float = 0.0
    compile_s: float = 0.0
    compilations: int = 0
    history: tuple[Mapping[str, float | int], ...] = ()


@memoised(_MEMOISED)
def embedding_dim(net: Net, image_shape: tuple[int, ...]) -> int:
    """The length of a network's embeddings of images of a shape, without computing any.

    Args:
        net: the backbone.
        image_shape: `[height, width, channels]`.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> embedding_dim(Conv4(width=8).build(), (28, 28, 1))
        8
    """

    def run(key: Array) -> Array:
        params, state = net.init(key, image_shape)
        x = jnp.zeros((1, *image_shape), jnp.float32)
        return net.apply(params, state, x, mode=EVAL)[0].reshape(1, -1)

    return jax.eval_shape(run, jax.random.key(0)).shape[1]


@memoised(_MEMOISED)
def init_params(net: Net, image_shape: tuple[int, ...]) -> Jitted:
    """The compiled function from a key to a network's parameters and statistics.

    Args:
        net: the backbone.
        image_shape: `[height, width, channels]`.
    """

    def draw(key: Array) -> tuple[Params, State]:
        # The same parameters whatever the defaults of JAX.
        with stable_draws():
            return net.init(key, image_shape)

    return jit(draw, once=True)


def with_about(model: Model, about: Mapping[str, Any]) -> Model:
    """A model that says other things about where it comes from.

    Example:
        >>> from jaxfer.nets import Flatten
        >>> model = Model(Flatten().build(), {}, {})
        >>> dict(with_about(model, {"data": "none"}).about)
        {'data': 'none'}
    """
    return dataclasses.replace(model, about=dict(about))


def items_of(images: AnyImages) -> AnyArray | View:
    """The array or view that images of any kind hold."""
    return images.images if isinstance(images, Images) else images


def check_images(pixels: Pixels, images: AnyArray | View) -> None:
    """Refuse images that a model's preprocessing does not describe.

    Raises:
        ValueError: images of another size, number of channels or rank.
    """
    mean = np.shape(pixels.mean)
    shape = tuple(images.shape[1:])
    if pixels.size is not None and shape[:2] != pixels.size:
        raise ValueError(
            f"expected images of {pixels.size[0]}x{pixels.size[1]} pixels as the model "
            f"was trained on, got shape {tuple(images.shape)}: resize them first"
        )
    if mean and mean[-1] not in (1, shape[-1]):
        raise ValueError(
            f"expected images with {mean[-1]} channels as the model was trained on, "
            f"got shape {tuple(images.shape)}"
        )
