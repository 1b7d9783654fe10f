import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jaxfer.data import (
    Affine,
    Crop,
    Jitter,
    augmented,
    centre_crop,
    random_affine,
    random_crop,
)
from jaxfer.data.augment import affine, draw_crop, jitter, recoloured, resized_crop
from jaxfer.keys import key_of


@pytest.fixture
def image(rng):
    return jnp.asarray(rng.random((9, 7, 2)), jnp.float32)


def _by_scipy(image, matrix, shift):
    image = np.asarray(image)
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre + shift - matrix @ centre
    return np.stack(
        [
            scipy.ndimage.affine_transform(
                np.pad(channel, 20), matrix, offset + 20 - matrix @ [20, 20], order=1
            )[20:-20, 20:-20]
            for channel in np.moveaxis(image, -1, 0)
        ],
        axis=-1,
    )


def test_it_is_the_affine_map_of_the_definition(image):
    limits = Affine(rotate=30.0, scale=0.4, shear=0.3, shift=2.0)
    draw = jnp.array([0.5, -0.7, 0.9, 1.0, 0.25, -0.6])
    angle = np.deg2rad(15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sizes = np.exp(0.4 * np.array([-0.7, 0.9]))
    matrix = turn @ np.array([[sizes[0], 0.3], [0, sizes[1]]])
    expected = _by_scipy(image, matrix, np.array([0.5, -1.2]))
    np.testing.assert_allclose(affine(image, draw, limits), expected, atol=1e-4)


def test_whole_shifts_and_right_angles_move_pixels_as_they_are(image):
    shifted = affine(image, jnp.array([0, 0, 0, 0, 1.0, -1.0]), Affine(shift=2.0))
    np.testing.assert_allclose(shifted[:7, 2:], image[2:, :5], atol=1e-6)
    assert (shifted[7:] == 0).all() and (shifted[:, :2] == 0).all()
    square = image[:7]
    turned = affine(square, jnp.array([1.0, 0, 0, 0, 0, 0]), Affine(rotate=90.0))
    same = [np.allclose(turned, np.rot90(square, k), atol=1e-4) for k in (1, 3)]
    assert sum(same) == 1


def test_every_image_has_its_own_map_and_the_key_decides(image, key):
    images = jnp.broadcast_to(image, (3, 4, *image.shape))
    limits = Affine(rotate=20.0, scale=0.2, shear=0.2, shift=1.0)
    moved = jax.jit(lambda key: random_affine(key, images, limits))(key)
    assert moved.shape == images.shape
    assert len({np.asarray(x).tobytes() for x in moved.reshape(12, -1)}) == 12
    np.testing.assert_allclose(moved, random_affine(key, images, limits), atol=1e-5)
    other = random_affine(jax.random.key(1), images, limits)
    assert not np.allclose(moved, other, atol=0.1)


def test_limits_are_reached_and_not_passed(key):
    """A bright pixel in the middle that is only shifted stays within the limit."""
    spot = jnp.zeros((400, 11, 11, 1)).at[:, 5, 5].set(1.0)
    moved = np.asarray(random_affine(key, spot, Affine(shift=3.0)))[..., 0]
    weights = moved.sum(axis=(1, 2))
    np.testing.assert_allclose(weights, 1, atol=1e-5)
    rows = (moved.sum(axis=2) * np.arange(11)).sum(axis=1) - 5
    assert 2.9 < np.abs(rows).max() <= 3.001 and abs(rows.mean()) < 0.4


@pytest.mark.parametrize("name", ["rotate", "scale", "shear", "shift"])
def test_any_limit_makes_it_true(name):
    assert not Affine() and dataclasses.replace(Affine(), **{name: 0.1})


def test_a_crop_shifts_by_whole_pixels_and_mirrors_half(rng):
    image = rng.random((5, 6, 2)).astype(np.float32)
    n = 400
    keys = jax.random.split(jax.random.key(0), n)
    same = jnp.broadcast_to(jnp.asarray(image)[None], (n, *image.shape))
    moved = np.asarray(random_crop(keys, same, Crop(shift=2, mirror=True)))
    wide = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    found = []
    for one in moved:
        (at,) = [
            (y, x, flip)
            for y, x, flip in np.ndindex(5, 5, 2)
            if (one == wide[y : y + 5, x : x + 6][:, :: -1 if flip else 1]).all()
        ]
        found.append(at)
    ys, xs, flips = np.transpose(found)
    # 25 shifts with 16 expected counts each; chi-square has 24 degrees of freedom.
    counts = np.bincount(5 * ys + xs, minlength=25)
    assert ((counts - n / 25) ** 2 / (n / 25)).sum() < 52
    assert 160 < flips.sum() < 240


def test_an_image_is_moved_by_its_own_key_alone(rng):
    images = jnp.asarray(rng.random((4, 5, 5, 1)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 4)
    whole = random_crop(keys, images, Crop(2, True))
    alone = random_crop(keys[2:3], images[2:3], Crop(2, True))
    np.testing.assert_array_equal(whole[2:3], alone)
    assert not Crop() and Crop(1) and Crop(mirror=True)


def test_a_window_is_cut_anywhere_and_in_tests_from_the_middle(rng):
    image = rng.random((6, 7, 2)).astype(np.float32)
    n, crop = 300, Crop(mirror=True, side=4)
    keys = jax.random.split(jax.random.key(2), n)
    same = jnp.broadcast_to(jnp.asarray(image)[None], (n, *image.shape))
    moved = np.asarray(random_crop(keys, same, crop))
    assert moved.shape == (n, 4, 4, 2)
    found = []
    for one in moved:
        (at,) = [
            (y, x)
            for y, x, flip in np.ndindex(3, 4, 2)
            if (one == image[y : y + 4, x : x + 4][:, :: -1 if flip else 1]).all()
        ]
        found.append(at)
    assert len(set(found)) == 12
    np.testing.assert_array_equal(centre_crop(image[None], crop)[0], image[1:5, 1:5])
    assert centre_crop(image[None], Crop(shift=2)).shape == (1, 6, 7, 2)
    np.testing.assert_array_equal(
        centre_crop(image[None], 4), centre_crop(image[None], crop)
    )
    with pytest.raises(ValueError, match="side from 1 to 6 for images of 6x7, got 32"):
        centre_crop(image[None], 32)
    assert Crop(side=4) and crop.window(6, 7) == (4, 4)
    wide = Crop(shift=1, side=6)
    assert random_crop(keys[:1], same[:1], wide).shape == (1, 6, 6, 2)
    with pytest.raises(ValueError, match="side from 1 to 6 for images of 6x7, got 7"):
        random_crop(keys, same, Crop(side=7))


@pytest.mark.parametrize("side", [None, 5, 8])
@pytest.mark.parametrize("draws", [(0, 0.5, 0.5, 0.5, 0.9), (0.7, 0.1, 0, 0.9, 0.2)])
def test_a_resized_window_is_interpolated(rng, side, draws):
    image = rng.random((12, 9, 3)).astype(np.float32)
    limits = Crop(mirror=True, side=side, area=0.3)
    found = resized_crop(jnp.asarray(image), jnp.asarray(draws, jnp.float32), limits)
    share, ratio = 0.3 + 0.7 * draws[0], np.exp((2 * draws[1] - 1) * np.log(4 / 3))
    # The aspect ratio of the window in shares of the image's sides.
    part = np.minimum(np.sqrt([share / ratio, share * ratio]), 1)
    size, corner = part * [12, 9], np.array(draws[2:4]) * (1 - part) * [12, 9]
    height, width = limits.window(12, 9)
    rows = (np.arange(height) + 0.5) * size[0] / height - 0.5 + corner[0]
    columns = (np.arange(width) + 0.5) * size[1] / width - 0.5 + corner[1]
    places = np.meshgrid(rows, columns, indexing="ij")
    expected = np.stack(
        [
            scipy.ndimage.map_coordinates(
                image[..., c], places, order=1, mode="nearest"
            )
            for c in range(3)
        ],
        axis=-1,
    )
    if draws[4] < 0.5:
        expected = expected[:, ::-1]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_random_windows_have_all_sizes_within_the_limits(key):
    """The image holds its own coordinates, so a window shows where it lies."""
    rows, columns = np.meshgrid(np.arange(30.0), np.arange(30.0), indexing="ij")
    image = jnp.asarray(np.stack([rows, columns], axis=-1), jnp.float32)
    n = 500
    same = jnp.broadcast_to(image[None], (n, *image.shape))
    found = np.asarray(random_crop(jax.random.split(key, n), same, Crop(area=0.25)))
    height = (found[:, 20, 15, 0] - found[:, 10, 15, 0]) * 3
    width = (found[:, 15, 20, 1] - found[:, 15, 10, 1]) * 3
    area = height * width / 900
    assert 0.2 < area.min() < 0.32 and area.max() > 0.9
    ratio = width / height
    assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.4
    assert found.min() >= 0 and found.max() <= 29
    assert Crop(area=0.5)
    for bad in ({"area": 0.0}, {"area": 3.0}, {"area": 0.5, "shift": 1}):
        with pytest.raises(ValueError, match="expected area"):
            Crop(**bad)


@pytest.mark.parametrize("draws", [(1, 0, 0), (0, -1, 0), (0, 0, 1), (-0.5, 1, -1)])
def test_colours_change_as_in_pillow(rng, draws):
    """Pillow rounds to whole pixel values after each change."""
    module = pytest.importorskip("PIL.Image")
    from PIL import ImageEnhance

    pixels = rng.integers(0, 255, (8, 6, 3), dtype=np.uint8)
    limits = Jitter(0.4, 0.5, 0.6)
    image = module.fromarray(pixels)
    kinds = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    for kind, draw, limit in zip(kinds, draws, (0.4, 0.5, 0.6), strict=True):
        image = kind(image).enhance(1 + draw * limit)
    given = jnp.asarray(pixels / 255, jnp.float32)
    found = recoloured(given, jnp.asarray(draws, jnp.float32), limits)
    np.testing.assert_allclose(found, np.asarray(image) / 255, atol=2.5 / 255)


def test_colours_change_between_black_and_white(rng, key):
    """Preprocessed images change as their pixels do."""
    pixels = jnp.asarray(rng.random((5, 6, 6, 3)), jnp.float32)
    keys, limits = jax.random.split(key, 5), Jitter(0.4, 0.4, 0.4)
    expected = jax.vmap(lambda key, x: jitter(key, x, limits))(keys, pixels)
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.3, 0.4])
    ends = {"black": -mean / std, "white": (1 - mean) / std}
    x = jnp.asarray((np.asarray(pixels) - mean) / std)
    found = np.asarray(augmented(keys, x, [limits], **ends))
    np.testing.assert_allclose(found * std + mean, expected, atol=2e-6)
    assert (np.asarray(expected) != np.asarray(pixels)).mean() > 0.9
    grey = augmented(keys, pixels[..., :1], [limits])
    assert grey.shape == (5, 6, 6, 1)
    assert not Jitter() and Jitter(saturation=0.1)
    with pytest.raises(ValueError, match=r"brightness from 0 to 1, got 2"):
        Jitter(brightness=2.0)


@pytest.mark.parametrize(
    "default",
    [
        lambda: jax.enable_x64(True),
        lambda: jax.threefry_partitionable(False),
        lambda: jax.default_prng_impl("rbg"),
    ],
    ids=["x64", "partitionable", "rbg"],
)
def test_moves_depend_on_no_default_of_jax(rng, default):
    images = jnp.asarray(rng.random((3, 6, 7, 2)), jnp.float32)
    crop = Crop(shift=2, mirror=True, side=4)
    limits = Affine(rotate=20.0, scale=0.2, shear=0.2, shift=1.0)

    def moved(jit):
        keys = jnp.stack([key_of(seed) for seed in range(3)])
        at, flip = jit(lambda key: draw_crop(key, crop, 6, 7))(keys[0])
        cut = jit(lambda keys, x: random_crop(keys, x, crop))(keys, images)
        turned = jit(lambda key, x: random_affine(key, x, limits))(keys[1], images)
        return [np.asarray(x) for x in (at, flip, cut, turned)]

    expected = moved(jax.jit)
    with default():
        for jit in (jax.jit, lambda f: f):
            *same, turned = moved(jit)
            for one, other in zip(same, expected, strict=False):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
            assert turned.dtype == np.float32
            # Rounding differs between compiled and uncompiled code.
            np.testing.assert_allclose(turned, expected[-1], atol=1e-5)
