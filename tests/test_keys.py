"""Keys from names and seeds, the same whatever JAX's defaults are."""

import hashlib

import jax
import numpy as np
import pytest

from jaxfer import keys
from jaxfer.keys import key_of, stable_draws


def _data(key):
    return jax.random.key_data(key).tolist()


def test_keys_are_threefry_keys_of_32_bits():
    digest = hashlib.sha256(b"seed0-base").digest()
    seed = int.from_bytes(digest[:4], "big")
    assert _data(key_of("seed0-base")) == _data(key_of(seed)) == [0, seed]
    for seed in (0, 7, 2**31, 2**32 - 1):
        expected = _data(jax.random.key(seed, impl="threefry2x32"))
        with jax.enable_x64(True), jax.default_prng_impl("rbg"):
            assert _data(key_of(seed)) == expected == [0, seed]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_of_more_bits_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed in \[0, 2\^32\), got {seed}"):
        key_of(seed)


def test_every_use_of_a_key_has_a_number_of_its_own():
    used = [keys.INIT, keys.HEAD, keys.ORDER, keys.DROPOUT, keys.CROP, keys.COPIES]
    assert used == [*range(6)]


def test_stable_draws_are_the_same_jitted_or_not():
    def draw(key):
        with stable_draws():
            return jax.random.bits(key, (3,), "uint32")

    expected = np.asarray(draw(key_of(1)))
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(draw(key_of(1)), expected)
        np.testing.assert_array_equal(jax.jit(lambda k: draw(k))(key_of(1)), expected)
        assert (jax.random.bits(key_of(1), (3,), "uint32") != expected).any()
