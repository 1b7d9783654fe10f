import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import EVAL, TRAIN, Mode
from jaxfer.nets import Conv4

WIDTH = 6
NET = Conv4(width=WIDTH).build()
KEY = jax.random.key(0)
_leaves = jax.tree_util.tree_leaves_with_path


@pytest.fixture(scope="module")
def variables():
    params, state = NET.init(jax.random.key(1), (18, 18, 2))
    # Statistics and offsets away from 0 and 1, so that a mistake in either shows.
    shift = jax.random.normal(jax.random.key(2), (WIDTH,))
    params = jax.tree.map(lambda x: x + 0.1 * shift if x.ndim == 1 else x, params)
    state = jax.tree.map(lambda x: x + 0.2 * jnp.abs(shift), state)
    return params, state


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(3), (3, 18, 18, 2))


def _conv(x, kernel):
    n, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((n, height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            window = padded[:, i : i + 3, j : j + 3]
            y[:, i, j] = np.einsum("nhwc,hwco->no", window, kernel)
    return y


def _pool(x):
    n, height, width, c = x.shape
    y = np.zeros((n, height // 2, width // 2, c))
    for i in range(height // 2):
        for j in range(width // 2):
            y[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(1, 2))
    return y


def _oracle(params, state, x, *, batch):
    """The published block, in the published order, in float64 loops."""
    x, new_state = np.asarray(x, np.float64), {}
    for name in NET.layers:
        p, s = jax.tree.map(np.float64, (params[name], state[name]))
        x = _conv(x, p["Conv_0"]["kernel"])
        mean, var = s["BatchNorm_0"]["mean"], s["BatchNorm_0"]["var"]
        if batch:
            flat = x.reshape(-1, WIDTH)
            new = flat.mean(axis=0), flat.var(axis=0)
            new_state[name] = [0.9 * mean + 0.1 * new[0], 0.9 * var + 0.1 * new[1]]
            mean, var = new
        x = (x - mean) / np.sqrt(var + 1e-5)
        x = x * p["BatchNorm_0"]["scale"] + p["BatchNorm_0"]["bias"]
        x = _pool(np.maximum(x, 0))
    return x.reshape(len(x), -1), new_state


@pytest.mark.parametrize("batch", [False, True], ids=["running", "batch"])
def test_blocks_are_convolution_norm_relu_pool(variables, x, batch):
    params, state = variables
    z, new_state = NET.apply(params, state, x, mode=TRAIN if batch else EVAL)
    expected, statistics = _oracle(params, state, x, batch=batch)
    np.testing.assert_allclose(z, expected, rtol=1e-3, atol=1e-4)
    for name, (mean, var) in statistics.items():
        norm = new_state[name]["BatchNorm_0"]
        np.testing.assert_allclose(norm["mean"], mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm["var"], var, rtol=1e-3, atol=1e-4)


def test_no_parameter_is_without_a_gradient(variables, x):
    """A bias before BatchNorm would have a true gradient of 0."""
    params, state = variables
    names = {"/".join(p.key for p in path) for path, _ in _leaves(params["conv1"])}
    assert names == {"Conv_0/kernel", "BatchNorm_0/scale", "BatchNorm_0/bias"}
    assert sum(leaf.size for _, leaf in _leaves(_full_size())) == 111_680

    def value(params):
        return jnp.sin(NET.apply(params, state, x, mode=TRAIN)[0]).sum()

    for path, gradient in _leaves(jax.grad(value)(params)):
        assert np.abs(gradient).max() > 1e-4, path


def _full_size():
    return jax.eval_shape(lambda key: Conv4().build().init(key, (28, 28, 1)), KEY)[0]


@pytest.mark.parametrize(("side", "dim"), [(28, 64), (84, 1600)])
def test_embedding_sizes_of_the_paper(side, dim):
    net = Conv4().build()
    shapes = jax.eval_shape(
        lambda key, x: net.apply(*net.init(key, x.shape[1:]), x)[0],
        jax.random.key(0),
        jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32),
    )
    assert shapes.shape == (2, dim)


def test_weights_start_uniform_within_one_over_root_fan_in(key):
    params, state = Conv4().build().init(key, (28, 28, 1))
    for name, fan_in in [("conv1", 9), ("conv2", 576), ("conv4", 576)]:
        bound = fan_in**-0.5
        kernel = params[name]["Conv_0"]["kernel"]
        assert np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.2)
        np.testing.assert_array_equal(params[name]["BatchNorm_0"]["bias"], 0)
        np.testing.assert_array_equal(state[name]["BatchNorm_0"]["mean"], 0)
        np.testing.assert_array_equal(state[name]["BatchNorm_0"]["var"], 1)


def test_batchnorm_scales_start_uniform_or_at_one(unchecked, key):
    shape = (28, 28, 1)
    scales = [
        np.concatenate(
            [
                layer["BatchNorm_0"]["scale"]
                for layer in Conv4(bn_scale_init=how)
                .build()
                .init(key, shape)[0]
                .values()
            ]
        )
        for how in ("uniform", "ones")
    ]
    assert 0 <= scales[0].min() < 0.1 < 0.9 < scales[0].max() <= 1
    assert scales[0].mean() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(scales[1], 1)
    with pytest.raises(ValueError, match="expected bn_scale_init .*, got 'one'"):
        Conv4(bn_scale_init="one").build()


def test_a_prediction_does_not_depend_on_the_other_queries(variables, x):
    # A peer evaluates in training mode: test images move each other's embeddings, and
    # the running statistics with them.
    params, state = variables
    apply = jax.jit(NET.apply)
    together, after = apply(params, state, x)
    other = apply(params, state, x.at[1:].set(0.3))[0]
    np.testing.assert_array_equal(together[0], other[0])
    jax.tree.map(np.testing.assert_array_equal, after, state)
    transductive = [
        NET.apply(params, state, y, mode=TRAIN)[0][0] for y in (x, x.at[1:].set(0.3))
    ]
    assert np.abs(transductive[0] - transductive[1]).max() > 1e-3


def test_running_mode_returns_the_very_statistics(variables, x):
    params, state = variables
    _, after = NET.apply(params, state, x, mode=EVAL)
    same = jax.tree.map(lambda a, b: a is b, after, state)
    assert all(jax.tree.leaves(same))


def test_momentum_0_gives_statistics_of_the_support_alone(variables, x):
    # One 'batch' pass over the support with momentum 0, then the queries in 'running'
    # mode on the state it returned: the support comes out as in its own batch.
    params, state = variables
    alone = Mode("batch", momentum=0.0)
    in_batch, support_state = NET.apply(params, state, x, mode=alone)
    again, _ = NET.apply(params, support_state, x, mode=EVAL)
    np.testing.assert_allclose(again, in_batch, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=["running", "batch"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_two_pieces_make_the_whole(variables, x, mode, cut):
    params, state = variables
    whole, whole_state = NET.apply(params, state, x, mode=mode)
    before, after = NET.layers[cut - 1], NET.layers[cut]
    middle, half = NET.apply(params, state, x, mode=mode, last=before)
    y, pieces_state = NET.apply(params, half, middle, mode=mode, first=after)
    np.testing.assert_allclose(y, whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        pieces_state,
        whole_state,
    )
    untouched = jax.tree.map(lambda a, b: a is b, half[after], state[after])
    assert all(jax.tree.leaves(untouched))


def test_each_layer_has_its_own_mode(variables, x):
    params, state = variables
    modes = {name: EVAL if name < "conv3" else TRAIN for name in NET.layers}
    _, after = NET.apply(params, state, x, mode=modes)
    for name in NET.layers:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), after[name], state[name])
        assert all(jax.tree.leaves(same)) == (name < "conv3")


def test_jit_equals_eager_and_vmap_equals_a_loop(variables, x):
    params, state = variables
    episodes = jnp.stack([x, x[::-1] * 0.5])

    def run(x):
        return NET.apply(params, state, x, mode=TRAIN)

    batched = jax.vmap(run)(episodes)
    for i in range(2):
        eager = run(episodes[i])
        one = jax.tree.map(lambda a, i=i: a[i], batched)
        for other in (one, jax.jit(run)(episodes[i])):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                eager,
                other,
            )


def test_bfloat16_activations_keep_float32_parameters_and_statistics(key):
    net = Conv4(width=4, precision="bfloat16").build()
    params, state = net.init(key, (16, 16, 1))
    z, after = net.apply(params, state, jnp.ones((2, 16, 16, 1)), mode=TRAIN)
    assert z.dtype == jnp.bfloat16
    assert {x.dtype.name for x in jax.tree.leaves((params, after))} == {"float32"}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            jnp.zeros((18, 18, 2)),
            r"expected floating .*, got shape \(18, 18, 2\) and type float32",
        ),
        (
            jnp.zeros((1, 18, 18, 2), jnp.uint8),
            "expected floating images .* type uint8",
        ),
        (jnp.zeros((1, 18, 18, 3)), r"parameters of conv1, got shape \(1, 18, 18, 3\)"),
        (
            jnp.zeros((1, 12, 12, 2)),
            "expected .* at least 16x16 .*, got a map of 1x1",
        ),
    ],
    ids=["rank", "type", "channels", "size"],
)
def test_images_that_do_not_fit_are_refused(variables, images, message):
    with pytest.raises(ValueError, match=message):
        NET.apply(*variables, images)


def test_strange_layers_and_shapes_are_refused(variables, x):
    with pytest.raises(ValueError, match=r"a layer among \['conv1'.*, got 'conv5'"):
        NET.apply(*variables, x, last="conv5")
    with pytest.raises(
        ValueError, match=r"expected image shape \[height.*, got \(28, 28\)"
    ):
        NET.init(jax.random.key(0), (28, 28))
