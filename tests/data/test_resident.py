import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import class_table, episode_key, sample_episode
from jaxfer.data import draw, resident, to_float

SHAPE = {"way": 4, "shot": 2, "n_query": 3}


def test_pixels_become_floats_from_0_to_1_exactly():
    floats = to_float(jnp.arange(256, dtype=jnp.uint8))
    np.testing.assert_allclose(floats, np.arange(256) / 255, rtol=1e-7)
    assert floats.dtype == jnp.float32 and floats[0] == 0 and floats[-1] == 1


@pytest.mark.parametrize("number", [0, 9])
def test_a_drawn_episode_is_the_sampled_one(blobs, number):
    data = jax.device_put(resident(blobs))
    episode = jax.jit(lambda k: draw(data, 3, "train", k, **SHAPE))(number)
    table = class_table(blobs.labels, num_classes=blobs.num_classes)
    rows = sample_episode(episode_key(3, "train", number), table, **SHAPE)
    np.testing.assert_allclose(
        episode.query, blobs.images[np.asarray(rows.query)] / 255.0, rtol=1e-6
    )
    np.testing.assert_array_equal(episode.classes, rows.classes)


def test_features_are_drawn_as_they_are(blobs, rng):
    features = rng.normal(size=(len(blobs.images), 5)).astype(np.float32)
    data = resident(blobs)._replace(items=jnp.asarray(features))
    episode = draw(data, 3, "train", 0, **SHAPE)
    images = draw(jax.device_put(resident(blobs)), 3, "train", 0, **SHAPE)
    np.testing.assert_array_equal(episode.classes, images.classes)
    by_row = {image.tobytes(): row for row, image in enumerate(blobs.images)}
    for image, feature in zip(images.support[:, 0], episode.support[:, 0], strict=True):
        row = by_row[np.round(np.asarray(image) * 255).astype(np.uint8).tobytes()]
        np.testing.assert_array_equal(feature, features[row])


def test_vmap_over_numbers_equals_a_loop(blobs):
    data = jax.device_put(resident(blobs))
    batch = jax.vmap(lambda k: draw(data, 0, "train", k, **SHAPE))(jnp.arange(3))
    for k in range(3):
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.tree.map(lambda x, k=k: x[k], batch),
            draw(data, 0, "train", k, **SHAPE),
        )
