"""Random augmentation inside the compiled step, with one key per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from jaxfer.keys import stable_draws
from jaxfer.types import AnyArray


@dataclass(frozen=True)
class Affine:
    """Limits of a random affine map: parameters are uniform in [-limit, limit].

    Attributes:
        rotate: largest angle in degrees, in either direction, at least 0.
        scale: largest natural logarithm of the scale factor, at least 0, sampled
            separately for height and width; 0.1 is about a tenth smaller or larger.
        shear: largest vertical offset in pixels per column, at least 0.
        shift: largest offset in pixels, at least 0, sampled separately for height and
            width.
    """

    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __bool__(self) -> bool:
        """Whether any limit is nonzero."""
        return any((self.rotate, self.scale, self.shear, self.shift))


@dataclass(frozen=True)
class Crop:
    """How images are shifted, cropped and mirrored at random.

    Attributes:
        shift: largest shift in pixels, in either direction; whole shifts are sampled
            separately for height and width.
        mirror: whether to flip each image from left to right with probability 1/2.
        side: side in pixels of the square window cropped from each image, at a random
            position (`random_crop`) or at the centre (`centre_crop`); default: the
            whole image.
    """

    shift: int = 0
    mirror: bool = False
    side: int | None = None

    def __bool__(self) -> bool:
        """Whether any option changes the images."""
        return bool(self.shift or self.mirror or self.side)

    def window(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the window cropped from an image.

        Raises:
            ValueError: the window is larger than the image.
        """
        if self.side is None:
            return height, width
        if not 0 < self.side <= min(height, width):
            raise ValueError(
                f"expected a crop side from 1 to {min(height, width)} for images of "
                f"{height}x{width}, got {self.side}"
            )
        return self.side, self.side


def augmented(
    keys: Shaped[Array, " n"],
    images: Float[Array, "n height width channels"],
    changes: Sequence[Affine | Crop],
) -> Float[Array, "n h w channels"]:
    """Change each image at random, with its own key.

    Args:
        keys: `[n]` typed keys, one per image.
        images: images whose background (or mean) is 0.
        changes: limits of the changes, in order.

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
