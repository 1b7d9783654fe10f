"""Random augmentation inside the compiled step, with one key per image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from jaxfer.data.images import LUMINANCE
from jaxfer.keys import stable_draws
from jaxfer.ranges import Count, Range, check_ranges
from jaxfer.types import AnyArray


@dataclass(frozen=True)
class Affine:
    """Limits of a random affine map: parameters are uniform in [-limit, limit].

    Attributes:
        rotate: largest angle in degrees, in either direction, from 0 to 180.
        scale: largest natural logarithm of the scale factor, from 0 to 2, sampled
            separately for height and width; 0.1 is about a tenth smaller or larger.
        shear: largest vertical offset in pixels per column, from 0 to 1000.
        shift: largest offset in pixels, from 0 to 1000, sampled separately for height
            and width.
    """

    rotate: Annotated[float, Range(0, 180)] = 0.0
    scale: Annotated[float, Range(0, 2)] = 0.0
    shear: Annotated[float, Range(0, 1000)] = 0.0
    shift: Annotated[float, Range(0, 1000)] = 0.0

    def __post_init__(self) -> None:
        """Check the limits."""
        check_ranges(self)

    def __bool__(self) -> bool:
        """Whether any limit is nonzero."""
        return any((self.rotate, self.scale, self.shear, self.shift))


@dataclass(frozen=True)
class Crop:
    """How images are shifted, cropped and mirrored at random.

    Attributes:
        shift: largest shift in pixels, in either direction, less than a side of the
            image; whole shifts are sampled separately for height and width.
        mirror: whether to flip each image from left to right with probability 1/2.
        side: side in pixels of the square window cropped from each image, at a random
            position (`random_crop`) or at the centre (`centre_crop`); default: the
            whole image.
        area: the window has a random share of the image's area, in (0, 1), from this
            one on, and a random aspect ratio from 3/4 to 4/3; what lies outside the
            image is cut off. It is resized to `side` (the random-resized crop of
            Szegedy et al. 2015). Default: no such crop.
    """

    shift: Annotated[int, Range(0, 1000)] = 0
    mirror: bool = False
    side: Count | None = None
    area: Annotated[float, Range(0, 1, open_low=True, open_high=True)] | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_ranges(self)
        if self.area is not None and self.shift:
            raise ValueError(f"expected area without shift, got shift = {self.shift}")

    def __bool__(self) -> bool:
        """Whether any option changes the images."""
        return bool(self.shift or self.mirror or self.side or self.area)

    def window(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the window cropped from an image.

        Raises:
            ValueError: the window is larger than the image, or the shift moves all of
                the image out of sight.
        """
        if self.shift >= min(height, width):
            raise ValueError(
                f"expected a shift of less than {min(height, width)} pixels for images "
                f"of {height}x{width}, got {self.shift}"
            )
        if self.side is None:
            return height, width
        if not 0 < self.side <= min(height, width):
            raise ValueError(
                f"expected a crop side from 1 to {min(height, width)} for images of "
                f"{height}x{width}, got {self.side}"
            )
        return self.side, self.side


@dataclass(frozen=True)
class Jitter:
    """Limits of random changes of colour: factors are uniform in [1 - x, 1 + x].

    Attributes:
        brightness: limit of the factor of all values, in [0, 1].
        contrast: limit of the factor of the difference from the mean luminance of the
            image, in [0, 1].
        saturation: limit of the factor of the difference from the luminance of each
            pixel, in [0, 1]; images with one channel have none.
    """

    brightness: Annotated[float, Range(0, 1)] = 0.0
    contrast: Annotated[float, Range(0, 1)] = 0.0
    saturation: Annotated[float, Range(0, 1)] = 0.0

    def __post_init__(self) -> None:
        """Check the limits."""
        check_ranges(self)

    def __bool__(self) -> bool:
        """Whether any limit is nonzero."""
        return any((self.brightness, self.contrast, self.saturation))


Change = Affine | Crop | Jitter


def augmented(
    keys: Shaped[Array, " n"],
    images: Float[Array, "n height width channels"],
    changes: Sequence[Change],
    *,
    black: Any = 0.0,
    white: Any = 1.0,
) -> Float[Array, "n h w channels"]:
    """Change each image at random, with its own key.

    Args:
        keys: `[n]` typed keys, one per image.
        images: images whose background (or mean) is 0.
        changes: limits of the changes, in order.
        black: the values of a black pixel, a number or an array that broadcasts with an
            image.
        white: the values of a white pixel.

    Raises:
        ValueError: see `random_crop`.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> changes = Affine(rotate=9.0), Crop(side=3, mirror=True)
        >>> augmented(keys, jnp.zeros((2, 4, 4, 1)), changes).shape
        (2, 3, 3, 1)
    """
    for number, limits in enumerate(changes):
        own = keys
        if number:
            own = jax.vmap(lambda key, n=number: jax.random.fold_in(key, n))(keys)
        if isinstance(limits, Crop):
            images = random_crop(own, images, limits)
        elif isinstance(limits, Jitter):
            low, high = (jnp.broadcast_to(x, images.shape) for x in (black, white))
            shares = (images - low) / (high - low)
            shares = jax.vmap(lambda key, x, to=limits: jitter(key, x, to))(own, shares)
            images = low + shares * (high - low)
        else:
            images = jax.vmap(lambda key, x, to=limits: random_affine(key, x, to))(
                own, images
            )
    return images


def random_crop(
    keys: Shaped[Array, " n"],
    images: Float[Array, "n height width channels"],
    limits: Crop,
) -> Float[Array, "n h w channels"]:
    """Shift, crop and mirror each image with its own key, and pad with 0.

    Args:
        keys: `[n]` typed keys, one per image.
        images: images whose background (or mean) is 0.
        limits: see `Crop`.

    Raises:
        ValueError: the window is larger than the images.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 1)
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> bool((random_crop(keys, image, Crop()) == image).all())
        True
    """
    shift = limits.shift
    _, height, width, channels = images.shape
    window = limits.window(height, width)
    if limits.area is not None:

        def resized(key: PRNGKeyArray, image: Array) -> Array:
            with stable_draws():
                draws = jax.random.uniform(key, (5,), jnp.float32)
            return resized_crop(image, draws, limits)

        return jax.vmap(resized)(keys, images)

    def one(key: PRNGKeyArray, image: Float[Array, "height width channels"]):
        at, flip = draw_crop(key, limits, height, width)
        wide = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        zero = jnp.zeros((), jnp.int32)
        cut = jax.lax.dynamic_slice(wide, (at[0], at[1], zero), (*window, channels))
        return jnp.where(flip, cut[:, ::-1], cut)

    return jax.vmap(one)(keys, images)


def draw_crop(
    key: PRNGKeyArray, limits: Crop, height: int, width: int
) -> tuple[Int[Array, "2"], Bool[Array, ""]]:
    """Corner of the window in the padded image, and whether to mirror the image."""
    h, w = limits.window(height, width)
    free = np.array([height - h, width - w], np.int32) + 2 * limits.shift
    with stable_draws():
        where, side = jax.random.split(key)
        at = jax.random.randint(where, (2,), 0, free + 1, dtype=jnp.int32)
        flip = jax.random.bits(side, dtype=jnp.uint32) >> 31 == 1
    return at, limits.mirror & flip


def resized_crop(
    image: Float[Array, "height width channels"],
    draws: Float[Array, "5"],
    limits: Crop,
) -> Float[Array, "h w channels"]:
    """A window of random size, resized by linear interpolation, and mirrored.

    Args:
        image: the image.
        draws: numbers in [0, 1) for the area, the aspect ratio, the row, the column and
            whether to mirror.
        limits: see `Crop`.
    """
    window = limits.window(*image.shape[:2])
    least = 1.0 if limits.area is None else limits.area
    share = least + (1 - least) * draws[0]
    ratio = jnp.exp((2 * draws[1] - 1) * np.float32(np.log(4 / 3)))
    size = np.array(image.shape[:2], np.float32)
    # In shares of the image's height and width; a window never leaves the image.
    part = jnp.minimum(jnp.sqrt(share * jnp.stack([1 / ratio, ratio])), 1)
    corner = draws[2:4] * (1 - part) * size
    scale = np.array(window, np.float32) / (part * size)
    cut = jax.image.scale_and_translate(
        image,
        (*window, image.shape[2]),
        (0, 1),
        scale,
        -corner * scale,
        "linear",
        antialias=False,
    )
    return jnp.where(limits.mirror & (draws[4] < 0.5), cut[:, ::-1], cut)


def jitter(
    key: PRNGKeyArray, image: Float[Array, "height width channels"], limits: Jitter
) -> Float[Array, "height width channels"]:
    """Change brightness, contrast and saturation of an image at random, in this order.

    Values are clipped to [0, 1] after each change. Three channels are red, green and
    blue.

    Args:
        key: the key of the image.
        image: values from 0, black, to 1, white.
        limits: see `Jitter`.

    Example:
        >>> image = jnp.full((2, 2, 3), 0.5)
        >>> bool((jitter(jax.random.key(0), image, Jitter()) == image).all())
        True
    """
    with stable_draws():
        draws = jax.random.uniform(key, (3,), jnp.float32, minval=-1.0, maxval=1.0)
    return recoloured(image, draws, limits)


def recoloured(
    image: Float[Array, "height width channels"],
    draws: Float[Array, "3"],
    limits: Jitter,
) -> Float[Array, "height width channels"]:
    """One change of colour, given as three numbers in [-1, 1] times the limits.

    Args:
        image: values from 0, black, to 1, white.
        draws: brightness, contrast and saturation.
        limits: see `Jitter`.
    """
    colours = image.shape[-1] == 3
    weights = np.array(LUMINANCE if colours else [1.0], np.float32)

    def mixed(image: Array, other: Array, factor: Array) -> Array:
        return jnp.clip(other + factor * (image - other), 0, 1)

    image = jnp.clip(image * (1 + draws[0] * limits.brightness), 0, 1)
    mean = jnp.broadcast_to((image @ weights).mean(), image.shape)
    image = mixed(image, mean, 1 + draws[1] * limits.contrast)
    if not colours:
        return image
    grey = jnp.broadcast_to((image @ weights)[..., None], image.shape)
    return mixed(image, grey, 1 + draws[2] * limits.saturation)


def centre_crop(
    images: Shaped[AnyArray, "*batch height width channels"], limits: Crop | int
) -> Shaped[AnyArray, "*batch h w channels"]:
    """The centre window of each image, or the whole image if the side is None.

    Args:
        images: images of one size.
        limits: the side of the window in pixels, or a `Crop` that has it.

    Raises:
        ValueError: the window is larger than the images.

    Example:
        >>> centre_crop(np.arange(9).reshape(1, 3, 3, 1), 1).ravel()
        array([4])
    """
    limits = Crop(side=limits) if isinstance(limits, int) else limits
    height, width, _ = images.shape[-3:]
    h, w = limits.window(height, width)
    top, left = (height - h) // 2, (width - w) // 2
    return images[..., top : top + h, left : left + w, :]


def random_affine(
    key: PRNGKeyArray,
    images: Float[Array, "*batch height width channels"],
    limits: Affine,
) -> Float[Array, "*batch height width channels"]:
    """Apply a random affine map about the centre to each image.

    Pixel x of the result is the input at `A (x - c) + c + t`, interpolated linearly, or
    0 outside the image. Here `A = R(angle) [[s1, shear], [0, s2]]`, c is the centre and
    t is the shift. Parameters are sampled uniformly within the limits.

    Args:
        key: key for the parameters of all images.
        images: images with background 0.
        limits: see `Affine`.

    Example:
        >>> image = jnp.eye(3)[..., None]
        >>> same = random_affine(jax.random.key(0), image, Affine())
        >>> bool(jnp.allclose(same, image))
        True
    """
    *batch, height, width, channels = images.shape
    flat = images.reshape(-1, height, width, channels)
    shape = (len(flat), 6)
    with stable_draws():
        draws = jax.random.uniform(key, shape, jnp.float32, minval=-1.0, maxval=1.0)
    moved = jax.vmap(lambda image, draw: affine(image, draw, limits))(flat, draws)
    return moved.reshape(images.shape)


def affine(
    image: Float[Array, "height width channels"],
    draw: Float[Array, "6"],
    limits: Affine,
) -> Float[Array, "height width channels"]:
    """Apply one affine map, given as six numbers in [-1, 1] times the limits.

    Args:
        image: image with background 0.
        draw: angle, two scales, shear, two shifts.
        limits: see `Affine`.
    """
    angle = draw[0] * np.float32(np.deg2rad(limits.rotate))
    size = jnp.exp(draw[1:3] * limits.scale)
    shear, shift = draw[3] * limits.shear, draw[4:6] * limits.shift
    turn = jnp.array(
        [[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]]
    )
    matrix = turn @ jnp.array([[size[0], shear], [jnp.zeros_like(shear), size[1]]])
    height, width, _ = image.shape
    centre = jnp.array([height - 1, width - 1], jnp.float32)[:, None] / 2
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = jnp.stack([rows.ravel(), columns.ravel()]).astype(jnp.float32)
    places = matrix @ (places - centre) + centre + shift[:, None]

    def one_channel(pixels: Float[Array, "height width"]) -> Float[Array, "n"]:
        return map_coordinates(pixels, list(places), order=1, mode="constant", cval=0.0)

    moved = jax.vmap(one_channel, in_axes=-1, out_axes=-1)(image)
    return moved.reshape(image.shape)
