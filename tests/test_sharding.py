import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxfer import sharding
from jaxfer.heads import cosine_head, linear_head


def test_one_device_is_a_mesh_of_one():
    mesh = sharding.make_mesh(1)
    assert dict(mesh.shape) == {"data": 1, "model": 1}


def test_a_mesh_takes_what_it_is_told_and_all_that_is_left():
    assert dict(sharding.make_mesh(2, 4).shape) == {"data": 2, "model": 4}
    assert dict(sharding.make_mesh(model=2).shape) == {"data": 4, "model": 2}


@pytest.mark.parametrize(("data", "model"), [(9, 1), (4, 4), (0, 1), (1, 0)])
def test_more_devices_than_there_are_or_none_are_refused(data, model):
    with pytest.raises(ValueError, match=f"from 1 to 8 .*, got {data}( x {model})?$"):
        sharding.make_mesh(data, model)


def test_placed_arrays_are_whole_everywhere():
    mesh = sharding.make_mesh(4)
    x = sharding.place({"a": np.arange(8)}, mesh)["a"]
    assert [s.data.shape for s in x.addressable_shards] == [(8,)] * 4


@pytest.mark.parametrize("model", [1, 2])
def test_each_device_computes_its_own_rows(model, collectives):
    """The rows of all devices are those of one device, and nothing is said."""
    mesh = sharding.make_mesh(4, model)

    def rows(numbers, power):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), numbers)
        return numbers, jax.vmap(lambda key: jax.random.bits(key, (2,)))(keys) * power

    of_mesh = jax.jit(lambda power: sharding.rows_by_device(rows, 8, mesh, power))
    power = sharding.place(jnp.uint32(3), mesh)
    numbers, bits = of_mesh(power)
    owned = [s.data.tolist() for s in numbers.addressable_shards]
    assert owned[::model] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    expected = sharding.rows_by_device(rows, 8, None, jnp.uint32(3))
    np.testing.assert_array_equal(bits, expected[1])
    assert not collectives(of_mesh.lower(power).compile())


@pytest.mark.parametrize("make", [linear_head, cosine_head])
def test_a_head_is_made_in_parts(make):
    """The same bits as at once, and no device has the whole of it."""
    mesh = sharding.make_mesh(2, 4)
    whole = make(jax.random.key(1), 3, 8)
    parts = sharding.init_rows(lambda: make(jax.random.key(1), 3, 8), 8, mesh)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert {s.data.shape for s in parts.weight.addressable_shards} == {(2, 3)}
    assert parts.scale.sharding.is_fully_replicated
    one = sharding.init_rows(lambda: jnp.arange(8), 8, sharding.make_mesh(2))
    assert len(one.sharding.device_set) == 1


def test_host_rows_make_the_global_batch():
    mesh = sharding.make_mesh(4)
    x = sharding.from_host({"x": np.arange(8).reshape(8, 1)}, mesh)["x"]
    np.testing.assert_array_equal(x, np.arange(8).reshape(8, 1))
    assert x.addressable_shards[1].data.tolist() == [[2], [3]]


def test_rules_place_parameters():
    mesh = sharding.make_mesh(2, 4)
    params = {"head": {"weight": jnp.ones((8, 3)), "bias": jnp.ones(8)}}
    rules = [("head/weight", ("model", None)), ("**", ())]
    placed = jax.device_put(params, sharding.param_shardings(rules, params, mesh))
    assert placed["head"]["weight"].sharding.spec == PartitionSpec("model", None)
    assert placed["head"]["weight"].addressable_shards[0].data.shape == (2, 3)
    assert placed["head"]["bias"].addressable_shards[0].data.shape == (8,)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            ("model",),
            "axis of head/weight that is a multiple of the 4 .*, got 6",
        ),
        ((None, None, "data"), "at most the 2 axes of head/weight, got one for 3"),
    ],
)
def test_axes_that_do_not_fit_are_refused(axes, message):
    params = {"head": {"weight": jnp.ones((6, 3))}}
    with pytest.raises(ValueError, match=message):
        sharding.param_shardings([("**", axes)], params, sharding.make_mesh(2, 4))
