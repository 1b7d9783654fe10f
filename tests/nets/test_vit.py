import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.nets import ViT
from jaxfer.nets.positions import resized_positions

SMALL = ViT(patch=4, width=12, depth=2, heads=3, side=16)


def test_it_has_the_parameters_of_the_published_ones():
    """ViT-S/16 and ViT-B/16 in timm, without classifiers."""
    for spec, published in (
        (ViT(), 21_665_664),
        (ViT(width=768, heads=12), 85_798_656),
    ):
        net = spec.build()
        params, state = jax.eval_shape(
            lambda key, net=net: net.init(key, (224, 224, 3)), jax.random.key(0)
        )
        assert sum(x.size for x in jax.tree.leaves(params)) == published
        assert jax.tree.leaves(state) == []
    assert net.layers == ("embed", *(f"block{i}" for i in range(1, 13)), "norm")


def outputs_of(spec, image_shape):
    """Parameters, and the output of each layer, without computing them."""
    net = spec.build()

    def run(key):
        x = jnp.zeros((2, *image_shape))
        params, state = net.init(key, image_shape)
        applied = {
            name: net.apply(params, state, x, last=name)[0] for name in net.layers
        }
        return params, applied

    return jax.eval_shape(run, jax.random.key(0))


def test_layers_give_tokens_and_the_last_the_class_token():
    _, found = outputs_of(SMALL, (8, 12, 3))
    assert found["embed"].shape == found["block2"].shape == (2, 1 + 2 * 3, 12)
    assert found["norm"].shape == (2, 12)


def test_parameters_do_not_depend_on_the_size_of_images(drawn):
    net = SMALL.build()
    one, other = (drawn(net, (side, side, 3))[0] for side in (16, 40))
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (one, other)]
    assert shapes[0] == shapes[1]
    assert one["embed"]["pos_embed"].shape == (1, 17, 12)


def test_a_block_is_attention_and_an_mlp(rng, drawn):
    """Against loops over images, heads and tokens, in double precision."""
    net = SMALL.build()
    params, state = drawn(net, (16, 16, 3))
    params["block1"]["norm1"]["bias"] += 0.5
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["block1"])
    x = rng.normal(size=(2, 5, 12))

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return scaled * p[name]["scale"] + p[name]["bias"]

    def dense(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    expected = []
    for image in x:
        q, k, v = np.split(dense(norm(image, "norm1"), "qkv"), 3, axis=-1)
        heads = []
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            weights = np.exp(q[:, own] @ k[:, own].T / np.sqrt(4))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, own])
        y = image + dense(np.concatenate(heads, -1), "proj")
        inner = dense(norm(y, "norm2"), "fc1")
        inner *= 0.5 * (1 + np.asarray(jax.scipy.special.erf(inner / np.sqrt(2))))
        expected.append(y + dense(inner, "fc2"))
    found, _ = net.apply(
        params, state, jnp.asarray(x, jnp.float32), first="block1", last="block1"
    )
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-5)


def _slowly_resized(grid, rows, columns):
    """Bicubic interpolation one element at a time, with values clamped at the edges."""
    a, side = -0.75, len(grid)

    def kernel(d):
        if d < 1:
            return 1 - (a + 3) * d**2 + (a + 2) * d**3
        return -4 * a + 8 * a * d - 5 * a * d**2 + a * d**3 if d < 2 else 0.0

    found = np.zeros((rows, columns, grid.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            y = (i + 0.5) / ((rows + 0.1) / side) - 0.5
            x = (j + 0.5) / ((columns + 0.1) / side) - 0.5
            for k in range(-2, side + 2):
                for m in range(-2, side + 2):
                    value = grid[np.clip(k, 0, side - 1), np.clip(m, 0, side - 1)]
                    found[i, j] += kernel(abs(y - k)) * kernel(abs(x - m)) * value
    return found


@pytest.mark.parametrize(("rows", "columns"), [(3, 9), (6, 5), (1, 2), (7, 6)])
def test_positions_are_interpolated(rng, rows, columns):
    grid = rng.normal(size=(6, 6, 3))
    found = resized_positions(jnp.asarray(grid, jnp.float32), rows, columns)
    expected = _slowly_resized(grid, rows, columns)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(6, 14), (14, 20), (30, 13), (1, 2)])
def test_positions_are_interpolated_as_in_dino(rng, rows, columns):
    torch = pytest.importorskip("torch")
    grid = rng.normal(size=(14, 14, 5))
    own = torch.nn.functional.interpolate(
        torch.tensor(grid.transpose(2, 0, 1))[None],
        scale_factor=((rows + 0.1) / 14, (columns + 0.1) / 14),
        mode="bicubic",
        align_corners=False,
    )
    with jax.enable_x64(True):
        found = resized_positions(jnp.asarray(grid), rows, columns)
    expected = own[0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_same_grid_is_unchanged(rng):
    grid = jnp.asarray(rng.normal(size=(4, 4, 3)), jnp.float32)
    np.testing.assert_array_equal(resized_positions(grid, 4, 4), grid)


def test_other_sizes_and_widths_are_refused():
    with pytest.raises(ValueError, match="multiples of the patch of 4 .* got 16 x 18"):
        SMALL.build().init(jax.random.key(0), (16, 18, 3))
    with pytest.raises(ValueError, match="multiple of the 5 heads, got 384"):
        ViT(heads=5).build()
    with pytest.raises(ValueError, match="multiple of the patch 16, got 100"):
        ViT(side=100).build()


def test_activations_have_the_chosen_precision():
    spec = dataclasses.replace(SMALL, precision="bfloat16")
    params, found = outputs_of(spec, (8, 8, 3))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {x.dtype for x in found.values()} == {jnp.dtype("bfloat16")}


def test_names_are_those_of_timm_and_dino():
    timm, dino = ViT().names()
    assert (timm.library, dino.library) == ("timm", "dino")
    assert timm.modules == dino.modules
    assert timm.modules["block12/qkv"] == "blocks.11.attn.qkv"
    assert len({*timm.modules.values()}) == 4 + 12 * 6
