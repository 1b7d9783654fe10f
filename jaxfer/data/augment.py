"""Augmentation inside the compiled step: each image moved a little, by its own key."""

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
    """How far a random affine map goes, at most and to either side.

    Attributes:
        rotate: degrees.
        scale: of the logarithm of the size, in height and width apart: 0.1 for about a
            tenth smaller or larger.
        shear: columns moved a row.
        shift: pixels, in height and width apart.
    """

    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __bool__(self) -> bool:
        """Whether it moves anything."""
        return any((self.rotate, self.scale, self.shear, self.shift))


@dataclass(frozen=True)
class Crop:
    """How images are shifted, cut and mirrored at random.

    Attributes:
        shift: whole pixels, at most and to either side, in height and width apart.
        mirror: whether every other one, on average, is flipped from left to right.
        side: pixels a side of the window that is cut out of an image, anywhere in it or
            from its middle (see `centre_crop`); the whole image, unless given.
    """

    shift: int = 0
    mirror: bool = False
    side: int | None = None

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self.shift or self.mirror or self.side)

    def window(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is cut out of an image.

        Raises:
            ValueError: a window larger than the image.
        """
        if self.side is None:
            return height, width
        if not 0 < self.side <= min(height, width):
            raise ValueError(
                f"found a window of {self.side} pixels a side and images of "
                f"{height}x{width}, needed one that fits into them"
            )
        return self.side, self.side


def random_crop(
    keys: Shaped[Array, " n"],
    images: Float[Array, "n height width channels"],
    limits: Crop,
) -> Float[Array, "n h w channels"]:
    """Each image shifted, cut and mirrored by its own key, 0 where it was not.

    Args:
        keys: `[n]` typed keys, one an image.
        images: of which 0 is the background (or the mean).
        limits: see `Crop`.

    Raises:
        ValueError: a window larger than the images.

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
    """Where in a (widened) image its window begins, and whether it is mirrored."""
    h, w = limits.window(height, width)
    free = np.array([height - h, width - w], np.int32) + 2 * limits.shift
    with stable_draws():
        where, side = jax.random.split(key)
        at = jax.random.randint(where, (2,), 0, free + 1, dtype=jnp.int32)
        flip = jax.random.bits(side, dtype=jnp.uint32) >> 31 == 1
    return at, limits.mirror & flip


def centre_crop(
    images: Shaped[AnyArray, "n height width channels"], limits: Crop
) -> Shaped[AnyArray, "n h w channels"]:
    """The middle window of each image, where a crop has one; else the whole images.

    Raises:
        ValueError: a window larger than the images.

    Example:
        >>> centre_crop(np.arange(9).reshape(1, 3, 3, 1), Crop(side=1)).ravel()
        array([4])
    """
    _, height, width, _ = images.shape
    h, w = limits.window(height, width)
    top, left = (height - h) // 2, (width - w) // 2
    return images[:, top : top + h, left : left + w]


def random_affine(
    key: PRNGKeyArray,
    images: Float[Array, "*batch height width channels"],
    limits: Affine,
) -> Float[Array, "*batch height width channels"]:
    """Each image under its own affine map about its centre, drawn uniformly.

    Pixel x of the result is that of `A (x - c) + c + t` in the image, interpolated
    linearly, and 0 outside of it, where `A = R(angle) [[s1, shear], [0, s2]]`.

    Args:
        key: of all draws.
        images: background 0.
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
    """One image under the map of six numbers from -1 to 1, times the limits.

    Args:
        image: background 0.
        draw: angle, two of size, shear, two of shift.
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
