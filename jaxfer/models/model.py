"""Models: network, parameters, statistics, head, preprocessing and class names."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, Shaped

from jaxfer.compilation import Jitted, jit
from jaxfer.data import Images, View, augmented
from jaxfer.data.augment import Change
from jaxfer.data.flat import FlatItems
from jaxfer.keys import stable_draws
from jaxfer.memo import memoised
from jaxfer.types import EVAL, AnyArray, Head, Net, Params, State, TrainState

AnyImages = AnyArray | Images | FlatItems | View
_MEMOISED = 128


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pixels:
    """The preprocessing of images, which is part of a model.

    `x = (images - mean) / std`, in float32. `mean` and `std` are traced data, so models
    that differ in them share a compiled program.

    Attributes:
        mean: the mean to subtract: a number, one per channel, or a mean image
            `[height, width, channels]`.
        std: the divisor: a number or one per channel.
        size: height and width of the images; None accepts any size.
        window: the side in pixels of the centre crop that the network gets; None for
            the whole image.
        order: the order of colour channels that the network expects; images are RGB.
    """

    mean: Any = np.float32(0)
    std: Any = np.float32(255)
    size: tuple[int, int] | None = field(default=None, metadata={"static": True})
    window: int | None = field(default=None, metadata={"static": True})
    order: Literal["rgb", "bgr"] = field(default="rgb", metadata={"static": True})


def prepare(
    pixels: Pixels, images: Num[AnyArray, "n *item"]
) -> Float[Array, "n *item"]:
    """Preprocess images for a network, `(images - mean) / std`; this works within jit.

    Args:
        pixels: the preprocessing of the model.
        images: images as stored, uint8 pixels or floating features.

    Example:
        >>> prepare(Pixels(), np.full((1, 1, 1, 1), 255, np.uint8)).item()
        1.0
    """
    x = jnp.asarray(images).astype(jnp.float32)
    if pixels.order == "bgr":
        x = x[..., ::-1]
    mean, std = _mean_and_std(pixels, x)
    return (x - mean) / std


def vary(
    pixels: Pixels,
    keys: Shaped[Array, " n"],
    x: Float[Array, "n height width channels"],
    changes: Sequence[Change],
) -> Float[Array, "n h w channels"]:
    """Random augmentation of preprocessed images; see `augmented`.

    Args:
        pixels: their preprocessing, which determines the values of black and white.
        keys: `[n]`, one key per image.
        x: the preprocessed images.
        changes: limits of the changes, in order.
    """
    if not changes:
        return x
    mean, std = _mean_and_std(pixels, x[0])
    return augmented(keys, x, changes, black=-mean / std, white=(255 - mean) / std)


def _mean_and_std(pixels: Pixels, x: Array) -> tuple[Array, Array]:
    mean, std = (jnp.asarray(v, jnp.float32) for v in (pixels.mean, pixels.std))
    return _beside(mean, x), _beside(std, x)


def _beside(value: Array, x: Array) -> Array:
    """A number, one value per channel or an image, with leading axes to match x."""
    if not value.ndim:
        return value
    return value.reshape((1,) * (x.ndim - value.ndim) + value.shape)


@dataclass(frozen=True)
class Model:
    """A network with everything needed to use it.

    Functions take models and return new ones; none changes a model in place. A model
    can be saved and loaded, can embed images and predict classes, can be extended by
    classes, and can be the source of a transfer.

    Attributes:
        net: the backbone, without a classifier.
        params: its parameters.
        state: its running statistics.
        head: a classifier on its embeddings, or None.
        pixels: how images become its input.
        class_names: one name per class of the head; empty if classes have no names.
        about: its origin, such as the fingerprint of the training data, metrics and
            versions, as plain values that JSON can hold.
    """

    net: Net
    params: Params
    state: State
    head: Head | None = None
    pixels: Pixels = field(default_factory=Pixels)
    class_names: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Network, size and classes: the arrays themselves would fill pages."""
        net = type(self.net.spec).__name__ if self.net.spec else "Net"
        size = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.params))
        classes = "no head" if self.head is None else f"{self.head.num_classes} classes"
        return f"Model({net}: {size:,} parameters, {classes})"


class Trained(NamedTuple):
    """The result of a training function.

    Attributes:
        model: the trained model; None if an earlier process had already begun a later
            phase of the same run.
        steps: the number of optimizer steps.
        best_step: the step of the lowest validation loss; 0 without validation.
        rate: examples or episodes per second, without compilation.
        wall_s: seconds of training, including earlier parts of a resumed run.
        compile_s: seconds until the first call was done; this is mostly compilation.
        compilations: the number of programs compiled for the training steps; in a
            population the first model has the total and the others have 0.
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
    """The dimension of a network's embeddings for images of a given shape.

    No embedding is computed.

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
        # The parameters do not depend on the defaults of JAX.
        with stable_draws():
            return net.init(key, image_shape)

    return jit(draw, rarely_called=True)


def support_encoder(model: Model) -> Model:
    """The model that embeds support examples: the model itself, unless it has another.

    See `jaxfer.methods.with_support_encoder`.

    Example:
        >>> from jaxfer.nets import Flatten
        >>> model = Model(Flatten().build(), {}, {})
        >>> support_encoder(model) is model
        True
    """
    if "support" not in model.params:
        return model
    params, state = model.params["support"], model.state["support"]
    return dataclasses.replace(model, params=params, state=state)


def with_about(model: Model, about: Mapping[str, Any]) -> Model:
    """The model with its `about` replaced.

    Example:
        >>> from jaxfer.nets import Flatten
        >>> model = Model(Flatten().build(), {}, {})
        >>> dict(with_about(model, {"data": "none"}).about)
        {'data': 'none'}
    """
    return dataclasses.replace(model, about=dict(about))


def training_facts(
    fingerprint: str, shape: tuple[int, ...], train_state: TrainState
) -> dict[str, Any]:
    """What a trained model knows `about` its training.

    Args:
        fingerprint: hash of the training data.
        shape: shape of the training images, `[n, ...]`.
        train_state: state at the end of training.
    """
    return {
        "data": fingerprint,
        "image_shape": [int(size) for size in shape[1:]],
        "steps": int(train_state.step),
    }


def items_of(images: AnyImages) -> AnyArray | FlatItems | View:
    """The array or view behind images of any kind.

    Raises:
        ValueError: anything else, such as a list of paths.
    """
    items = images.images if isinstance(images, Images) else images
    if not hasattr(items, "shape"):
        raise ValueError(
            "expected images as an array [n, height, width, channels], or as `Images` "
            f"that `jaxfer.data.load` returns, got a {type(images).__name__}"
        )
    return items


def check_images(model: Model, images: AnyArray | FlatItems | View) -> None:
    """Refuse images of another size or number of channels than a model was trained on.

    Raises:
        ValueError: images of another size, number of channels or rank.
    """
    pixels = model.pixels
    mean = np.shape(pixels.mean)
    shape = tuple(images.shape[1:])
    channels = model.about.get("image_shape", [None])[-1]
    if channels is not None and len(shape) == 3 and shape[-1] != channels:
        hint = ": convert them with `jaxfer.data.greyscale`" if channels == 1 else ""
        raise ValueError(
            f"expected images with {channels} channels as the model was trained on, "
            f"got shape {tuple(images.shape)}{hint}"
        )
    size = pixels.size
    if size is None and pixels.window is None and len(shape) == 3:
        size = tuple(model.about.get("image_shape", shape))[:2]
    if size is not None and shape[:2] != size:
        raise ValueError(
            f"expected images of {size[0]}x{size[1]} pixels as the model was trained "
            f"on, got shape {tuple(images.shape)}: load them with side = {size[0]}, or "
            "resize them"
        )
    if mean and mean[-1] not in (1, shape[-1]):
        raise ValueError(
            f"expected images with {mean[-1]} channels as the model was trained on, "
            f"got shape {tuple(images.shape)}"
        )
