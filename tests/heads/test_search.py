import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import Head, nearest_rows
from jaxfer.heads.logits import row_scores

DIM = 5


def many(rng, m, **options):
    rows = rng.normal(size=(m, DIM)).astype(np.float32)
    bias, scale = rng.normal(size=m), rng.uniform(0.5, 2, m)
    owner = np.where(np.arange(m) % 7 == 3, -1, np.arange(m))
    arrays = (rows, *(x.astype(np.float32) for x in (bias, scale)), owner)
    return Head(*map(jnp.asarray, arrays), num_classes=m, **options)


@pytest.mark.parametrize("block", [1, 4, 10, 37, 1000])
@pytest.mark.parametrize("kind", ["linear", "unit", "centre"])
def test_blocks_find_what_all_scores_show(rng, block, kind):
    options = {"unit": kind == "unit"}
    if kind == "centre":
        options["centre"] = jnp.ones(DIM)
    head = many(rng, 37, **options)
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    scores, rows = nearest_rows(head, z, 4, block=block)
    every = np.asarray(row_scores(head, z))
    expected = np.argsort(-every, axis=1)[:, :4]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(
        scores, np.take_along_axis(every, expected, 1), rtol=1e-5, atol=1e-5
    )
    assert (np.asarray(head.owner)[rows] >= 0).all()


def test_all_scores_are_never_in_memory(rng):
    head = many(rng, 4096)
    z = jax.ShapeDtypeStruct((64, DIM), jnp.float32)
    run = jax.jit(lambda head, z: nearest_rows(head, z, 3, block=256))
    memory = run.lower(head, z).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 64 * 4096 * 4 / 2


def test_too_many_rows_are_refused(rng):
    head = many(rng, 7)
    z = jnp.zeros((1, DIM))
    for k, block in ((0, 4), (8, 4), (1, 0)):
        with pytest.raises(ValueError, match="expected k from 1 to 7"):
            nearest_rows(head, z, k, block=block)
