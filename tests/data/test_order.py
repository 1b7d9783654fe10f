import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.data import shuffled
from jaxfer.keys import key_of


def _order(key, n, epoch=0):
    return np.asarray(jax.jit(lambda p: shuffled(key, epoch, p, n=n))(jnp.arange(n)))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 25_000])
def test_every_example_has_one_place(key, n):
    order = _order(key, n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    assert order.dtype == np.int32


def test_some_places_are_what_they_are_in_the_whole(key):
    places = jnp.array([7, 0, 99])
    np.testing.assert_array_equal(
        shuffled(key, 3, places, n=100), _order(key, 100, 3)[[7, 0, 99]]
    )


def test_epochs_and_keys_have_orders_of_their_own(key):
    orders = [_order(key, 100, e) for e in (0, 1)] + [_order(jax.random.key(1), 100)]
    for i in range(3):
        for j in range(i):
            # Two random orders of 100 agree at one position on average.
            assert (orders[i] == orders[j]).sum() < 8


def test_where_an_example_stands_is_uniform(key):
    """Chi-square over 2000 epochs of 10; fixed margins leave 81 degrees of freedom."""
    orders = jax.jit(
        jax.vmap(lambda e: shuffled(key, e, jnp.arange(10, dtype=jnp.int32), n=10))
    )(jnp.arange(2000))
    orders = np.asarray(orders)
    counts = np.stack([np.bincount(orders[:, p], None, 10) for p in range(10)])
    chi2 = ((counts - 200) ** 2 / 200).sum()
    assert 40 < chi2 < 140, chi2
    # Pairs of adjacent examples are uniform too.
    pairs = orders[:, 0] * 10 + orders[:, 1]
    counts = np.bincount(pairs, None, 100).reshape(10, 10)
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(10, dtype=bool)]
    assert 45 < ((off - 2000 / 90) ** 2 / (2000 / 90)).sum() < 145


@pytest.mark.parametrize(
    "default",
    [
        lambda: jax.enable_x64(True),
        lambda: jax.threefry_partitionable(False),
        lambda: jax.default_prng_impl("rbg"),
    ],
    ids=["x64", "partitionable", "rbg"],
)
def test_an_order_depends_on_no_default_of_jax(default):
    known = [0, 3, 4, 1, 2, 5]
    assert _order(key_of(0), 6).tolist() == known
    with default():
        assert shuffled(key_of(0), 0, jnp.arange(6), n=6).tolist() == known
        assert _order(key_of(0), 6).tolist() == known


def test_numbers_out_of_range_are_refused(key):
    with pytest.raises(ValueError, match=r"expected 1 to 2\^30 examples, got 0"):
        shuffled(key, 0, jnp.arange(1), n=0)
