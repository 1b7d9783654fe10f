import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import Head, nearest_rows
from jaxfer.heads.logits import row_scores
from jaxfer.sharding import make_mesh, param_shardings

DIM = 5


def many(rng, m, kind="linear"):
    rows = rng.normal(size=(m, DIM)).astype(np.float32)
    bias, scale = rng.normal(size=m), rng.uniform(0.5, 2, m)
    owner = np.where(np.arange(m) % 7 == 3, -1, np.arange(m))
    arrays = (rows, *(x.astype(np.float32) for x in (bias, scale)), owner)
    centre = jnp.ones(DIM) if kind == "centre" else None
    options = {"unit": kind == "unit", "centre": centre}
    return Head(*map(jnp.asarray, arrays), num_classes=m, **options)


@pytest.mark.parametrize("block", [4, 10, 1000])
@pytest.mark.parametrize("kind", ["linear", "unit", "centre"])
def test_blocks_find_what_all_scores_show(rng, block, kind):
    head = many(rng, 37, kind)
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    scores, rows = nearest_rows(head, z, 4, block=block)
    every = np.asarray(row_scores(head, z))
    expected = np.argsort(-every, axis=1)[:, :4]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(
        scores, np.take_along_axis(every, expected, 1), rtol=1e-5, atol=1e-5
    )
    assert (np.asarray(head.owner)[rows] >= 0).all()


@pytest.mark.parametrize(
    "kind, shape", [("linear", (2, 4)), ("unit", (1, 8)), ("centre", (1, 8))]
)
def test_a_mesh_finds_the_same(rng, shape, kind):
    head = many(rng, 40, kind)
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    expected = nearest_rows(head, z, 12)
    mesh = make_mesh(*shape)
    found = nearest_rows(head, z, 12, block=3, mesh=mesh)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6, atol=1e-6)
    run = jax.jit(lambda head, z: nearest_rows(head, z, 12, block=3, mesh=mesh))
    np.testing.assert_array_equal(run(head, z)[1], expected[1])


def test_a_mesh_gathers_only_the_best_of_each_device(rng):
    head, mesh = many(rng, 4096), make_mesh(1, 8)
    rows = param_shardings([("**", ("model",))], {"w": head.weight}, mesh)["w"]
    placed = jax.tree.map(lambda x: jax.device_put(x, rows) if x.ndim else x, head)
    z = jnp.asarray(rng.normal(size=(64, DIM)), jnp.float32)
    run = jax.jit(lambda head, z: nearest_rows(head, z, 3, block=256, mesh=mesh))
    text = run.lower(placed, z).compile().as_text()
    gathered = re.findall(r"= \(?(\w+\[[\d,]*\]).* all-gather", text)
    assert 0 < len(gathered) <= 2 and {*gathered} <= {"f32[64,24]", "s32[64,24]"}
    np.testing.assert_array_equal(run(placed, z)[1], nearest_rows(head, z, 3)[1])


def test_jit_equals_eager(rng):
    head = many(rng, 37)
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    run = jax.jit(lambda head, z: nearest_rows(head, z, 4, block=8))
    for one, other in zip(run(head, z), nearest_rows(head, z, 4, block=8), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


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
    with pytest.raises(ValueError, match="multiple of 8 devices, got 7"):
        nearest_rows(head, z, mesh=make_mesh(1, 8))
