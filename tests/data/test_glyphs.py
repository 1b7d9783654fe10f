"""Glyphs have fixed pixels, characters that differ, and a task that can be learned."""

import hashlib

import numpy as np
import pytest

from jaxfer.data.glyphs import SIDE, glyphs

GOLDEN = "45e1ea30ef03e3ff3214a5b6603c1deb073365e45aa63d9c8c73a5dc0e20cba6"


@pytest.fixture(scope="module")
def data():
    return glyphs(alphabets=12, characters=20, drawers=10)


@pytest.fixture(scope="module")
def pages(data):
    return data.images.reshape(12, 20, 10, SIDE, SIDE)


def test_golden_pixels():
    images = glyphs(alphabets=4, characters=5, drawers=3).images
    assert hashlib.sha256(images.tobytes()).hexdigest() == GOLDEN


def test_shapes_types_and_names(data):
    assert data.name == "glyphs"
    assert data.simulated
    assert data.images.shape == (2400, SIDE, SIDE, 1)
    assert data.images.dtype == np.uint8
    assert data.labels.dtype == np.int32
    assert (data.labels == np.arange(2400) // 10).all()
    assert len(data.class_names) == len(set(data.class_names)) == 240
    assert data.class_names[0] == "angular00/character00"
    assert data.class_names[21] == "curved00/character01"
    assert data.class_names[40] == "angular01/character00"


def test_same_again(pages):
    again = glyphs(alphabets=12, characters=20, drawers=10).images
    assert (again.reshape(pages.shape) == pages).all()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (12, 1, 1), (2, 20, 3), (3, 7, 10)])
def test_small_set_is_part_of_large_one(pages, sizes):
    a, c, d = sizes
    part = glyphs(alphabets=a, characters=c, drawers=d).images
    assert (part.reshape(*sizes, SIDE, SIDE) == pages[:a, :c, :d]).all()


@pytest.mark.parametrize("seed", [1, -1, 2**63, 2**64 - 2])
def test_seeds_differ(pages, seed):
    other = glyphs(alphabets=2, characters=2, drawers=2, seed=seed).images
    same = other.reshape(2, 2, 2, SIDE, SIDE) == pages[:2, :2, :2]
    assert not same.all(axis=(3, 4)).any()


def test_no_two_images_alike(data):
    assert len(np.unique(data.images.reshape(2400, -1), axis=0)) == 2400


def test_characters_of_an_alphabet_differ(pages):
    # In the mean over all drawers, two characters share little of their ink.
    mean = pages.astype(int).sum(axis=2).reshape(12, 20, -1)
    for alphabet in mean:
        shared = np.minimum(alphabet[:, None], alphabet).sum(-1)
        union = np.maximum(alphabet[:, None], alphabet).sum(-1)
        overlap = (shared / union)[~np.eye(20, dtype=bool)]
        assert overlap.max() < 0.8


def test_every_page_is_legibly_inked(data):
    ink = (data.images > 127).mean(axis=(1, 2, 3))
    assert 0.03 < ink.min()
    assert ink.max() < 0.5
    assert (data.images.max(axis=(1, 2, 3)) == 255).all()


def test_no_glyph_is_cut_off(data):
    inside = data.images[:, 1:-1, 1:-1]
    border = data.images.sum(dtype=int) - inside.sum(dtype=int)
    assert border < 0.002 * data.images.sum(dtype=int)
    edges = data.images.copy()
    edges[:, 1:-1, 1:-1] = 0
    assert edges.max() < 128


@pytest.mark.parametrize("what", ["alphabets", "characters", "drawers"])
@pytest.mark.parametrize("size", [0, -3])
def test_sizes_below_one_are_refused(what, size):
    with pytest.raises(ValueError, match=f"expected {what} of at least 1, got {size}"):
        glyphs(**{what: size})


def test_nearest_neighbour_is_neither_lost_nor_done(pages):
    """5-way 1-shot accuracy by Euclidean distance of pixels, over all alphabets."""
    flat = pages.reshape(240, 10, -1) / 255.0
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        way = flat[rng.choice(240, 5, replace=False)]
        support, query = way[:, 0], way[:, 1:6]
        distance = np.square(query[:, :, None] - support).sum(-1)
        hits.append((distance.argmin(-1) == np.arange(5)[:, None]).mean())
    assert 0.35 < np.mean(hits) < 0.70
