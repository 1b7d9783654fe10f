"""Networks from names, import paths, Linen modules, NNX modules and plain functions."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxfer import EVAL, TRAIN, Mode, Net, heads, models, nets
from jaxfer.data import Crop, Images
from jaxfer.optim import Optim
from jaxfer.trees import flatten
from jaxfer.types import layer_mode

SHAPE = (8, 8, 1)


def _body(module, x, *, batch, dropout):
    """A convolution, BatchNorm, a dense layer and dropout, called within a module."""
    x = nn.Conv(3, (3, 3), name="conv")(x)
    x = nn.BatchNorm(use_running_average=not batch, momentum=0.9, name="norm")(x)
    x = nn.Dense(64, name="dense")(nn.relu(x).reshape(x.shape[0], -1))
    return nn.Dropout(0.5, deterministic=not dropout)(x)


class _Train(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        return _body(self, x, batch=train, dropout=train)


class _IsTraining(nn.Module):
    @nn.compact
    def __call__(self, x, is_training: bool):
        return _body(self, x, batch=is_training, dropout=is_training)


class _Mode(nn.Module):
    @nn.compact
    def __call__(self, x, mode):
        batch = mode.batch_norm == "batch"
        return _body(self, x, batch=batch, dropout=mode.dropout)


class _Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic: bool = True):
        return _body(self, x, batch=False, dropout=not deterministic)


class _Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (3, 3), name="second")(x))
        return nn.Dense(5, name="first")(x.reshape(x.shape[0], -1))


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.normal(2, 1, (6, *SHAPE)), jnp.float32)


def test_a_name_gives_the_architecture_with_its_options():
    assert nets.by_name("Conv4", width=8) == nets.Conv4(width=8)
    assert nets.NAMES == (
        *("AlexNetSmall", "Conv4", "EfficientNetLite", "Flatten"),
        *("InceptionResNetV2", "InceptionV1", "MobileNetV2"),
        *("ResNet20", "ViT"),
    )
    for name in nets.NAMES:
        assert nets.as_net(nets.by_name(name)).spec == getattr(nets, name)()


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match=r"expected a network of \['Alex.*'Conv5'"):
        nets.by_name("Conv5")
    with pytest.raises(ValueError, match=r"Conv4 has no option \['depth'\]: it has"):
        nets.by_name("Conv4", depth=3)


def test_an_import_path_gives_what_its_function_returns(monkeypatch):
    module = types.ModuleType("my_nets")
    module.make = lambda width=2: nets.Conv4(width=width)
    module.broken = lambda: {}["absent"]
    monkeypatch.setitem(sys.modules, "my_nets", module)
    assert nets.by_name("my_nets:make", width=4) == nets.Conv4(width=4)
    for path in ("my_nets:absent", "no_such_module:make"):
        with pytest.raises(ValueError, match=f"network '{path}' cannot be made"):
            nets.by_name(path)
    with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
        nets.by_name("my_nets:make", depth=1)


def test_equal_architectures_are_one_net():
    one, other = (nets.as_net(nets.Conv4(width=8)) for _ in range(2))
    assert one is other
    built = nets.Conv4(width=8).build()
    assert built == one and hash(built) == hash(one) and built is not one
    assert nets.as_net(nets.Conv4(width=9)) != one
    assert nets.as_net(one) is one


def test_nets_without_an_architecture_are_equal_by_their_functions():
    conv = nets.Conv4().build()
    bare = dataclasses.replace(conv, spec=None)
    assert bare == dataclasses.replace(conv, spec=None) and bare != conv
    other = dataclasses.replace(nets.Conv4().build(), spec=None)
    assert bare != other


def test_what_is_no_network_is_refused(unchecked):
    for wrong in ("Conv4", 3, nets.Conv4, None):
        with pytest.raises(ValueError, match="expected a Net, an architecture of"):
            nets.as_net(wrong)
    with pytest.raises(ValueError, match="expected image_shape with a Linen module"):
        nets.as_net(_Plain())


def test_the_layers_of_a_linen_module_are_in_its_own_order(key, images):
    net = nets.as_net(_Plain(), SHAPE)
    assert net.layers == ("second", "first")
    assert net is nets.as_net(_Plain(), SHAPE)
    params, state = net.init(key, SHAPE)
    assert state == {} and set(params) == {"first", "second"}
    expected = _Plain().apply({"params": params}, images)
    np.testing.assert_array_equal(net.apply(params, state, images)[0], expected)


@pytest.mark.parametrize("module", [_Train(), _IsTraining(), _Mode()], ids=repr)
def test_a_linen_module_is_told_how_to_run(module, key, images):
    """Whatever its argument is called: BatchNorm and dropout follow the mode."""
    net = nets.as_net(module, SHAPE)
    assert net.layers == ("conv", "norm", "dense") == net.stochastic
    params, state = net.init(key, SHAPE)
    z, after = net.apply(params, state, images, mode=EVAL)
    assert not (z == 0).all(axis=0).any()
    jax.tree.map(np.testing.assert_array_equal, after, state)
    z, after = net.apply(params, state, images, mode=TRAIN, rng=key)
    assert 0.3 < float((z == 0).mean()) < 0.7
    x, _ = nn.Conv(3, (3, 3)).apply({"params": params["conv"]}, images), None
    mean = 0.1 * x.mean((0, 1, 2))
    np.testing.assert_allclose(after["norm"]["mean"], mean, rtol=1e-4, atol=1e-5)
    modes = dict.fromkeys(net.layers, EVAL)
    np.testing.assert_array_equal(
        net.apply(params, state, images, mode=modes)[0],
        net.apply(params, state, images)[0],
    )


def test_a_linen_module_with_deterministic_has_dropout_alone(key, images):
    net = nets.as_net(_Deterministic(), SHAPE)
    params, state = net.init(key, SHAPE)
    z, after = net.apply(params, state, images, mode=Mode(dropout=True), rng=key)
    assert 0.3 < float((z == 0).mean()) < 0.7
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_a_linen_module_runs_as_a_whole_or_says_so(key, images):
    net = nets.as_net(_Train(), SHAPE)
    params, state = net.init(key, SHAPE)
    with pytest.raises(ValueError, match="a plain Linen module runs as a whole"):
        net.apply(params, state, images, last="conv")
    modes = {"conv": EVAL, "norm": EVAL, "dense": TRAIN}
    with pytest.raises(ValueError, match="with BatchNorm cannot be frozen in part"):
        net.apply(params, state, images, mode=modes, rng=key)
    with pytest.raises(ValueError, match="_Train cannot run: .*dropout"):
        net.apply(params, state, images, mode=TRAIN)
    with pytest.raises(ValueError, match="_Train cannot run: "):
        net.apply(params, state, images[..., :0])


def test_a_linen_module_without_batch_norm_can_be_frozen_in_part(key, images):
    net = nets.as_net(_Plain(), SHAPE)
    params, state = net.init(key, SHAPE)
    modes = {"second": EVAL, "first": TRAIN}
    found = net.apply(params, state, images, mode=modes)[0]
    np.testing.assert_array_equal(found, net.apply(params, state, images)[0])


def test_a_linen_module_with_other_collections_is_refused():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("counts", "calls", jnp.zeros, ())
            return nn.Dense(2)(x.reshape(x.shape[0], -1))

    with pytest.raises(ValueError, match=r"got collections \['counts'\]"):
        nets.as_net(Counting(), SHAPE)


def test_two_functions_make_a_net(key, images):
    def init(key, image_shape):
        return {"top": {"w": jnp.ones((int(np.prod(image_shape)), 2))}}, {}

    def apply(params, state, x, *, mode=EVAL, rng=None, first=None, last=None):
        return x.reshape(x.shape[0], -1) @ params["top"]["w"], state

    net = Net(init, apply, ("top",))
    assert nets.as_net(net) is net
    params, state = net.init(key, SHAPE)
    z = net.apply(params, state, images)[0]
    np.testing.assert_allclose(z[:, 0], images.sum((1, 2, 3)), rtol=1e-4)


def test_anything_that_builds_a_net_is_an_architecture():
    @dataclasses.dataclass(frozen=True)
    class Mine:
        width: int = 4

        def build(self):
            return nets.Conv4(width=self.width).build()

    assert nets.as_net(Mine()) is nets.as_net(Mine())
    assert nets.as_net(Mine(5)).spec == nets.Conv4(width=5)


def nnx_net(make, layers):
    """A Net of an NNX module with BatchNorm: what the how-to shows."""
    graph = nnx.graphdef(make(nnx.Rngs(0)))

    def init(key, image_shape):
        _, params, state = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(params, state, x, *, mode=EVAL, rng=None, first=None, last=None):
        module = nnx.merge(graph, params, state)
        running = layer_mode(mode, layers[0]).batch_norm == "running"
        module.set_attributes(use_running_average=running)
        z = module(x)
        return z, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))

    return Net(init, apply, layers)


class _Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dense = nnx.Linear(8 * 8 * 3, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.dense(x.reshape(x.shape[0], -1))


def test_an_nnx_module_is_adapted_in_ten_lines(key, images):
    net = nnx_net(_Nnx, ("conv", "norm", "dense"))
    params, state = net.init(key, SHAPE)
    assert set(params) == set(net.layers)
    again = net.init(jax.random.key(1), SHAPE)[0]
    assert (params["conv"]["kernel"] != again["conv"]["kernel"]).any()
    run = jax.jit(net.apply, static_argnames="mode")
    z, after = run(params, state, images, mode=EVAL)
    assert z.shape == (6, 4)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    trained, after = run(params, state, images, mode=TRAIN)
    assert (after["norm"]["mean"] != state["norm"]["mean"]).any()
    assert (trained != z).any()

    def loss(params):
        return (net.apply(params, state, images, mode=TRAIN)[0] ** 2).sum()

    grads = jax.jit(jax.grad(loss))(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_foreign_modules_train(kind, key, rng):
    net = _Train() if kind == "linen" else nnx_net(_Nnx, ("conv", "norm", "dense"))
    pixels = rng.integers(0, 256, (24, *SHAPE), dtype=np.uint8)
    data = Images("two", pixels, np.repeat([0, 1], 12).astype(np.int32), ("a", "b"))
    recipe = models.Recipe(Optim("sgd", 0.1), steps=2, batch=8, augment=Crop())
    head = heads.linear_head(key, 64 if kind == "linen" else 4, 2)
    model = models.train_batches(net, data, recipe, key=key, head=head).model
    before = models.init_model(net, SHAPE, key)
    for name in ("conv", "norm", "dense"):
        after, at_first = flatten(model.params[name]), flatten(before.params[name])
        moved = {path for path in after if (after[path] != at_first[path]).any()}
        # A bias before BatchNorm has no gradient but rounding errors.
        assert moved >= {path for path in after if path != "bias"}, name
    assert (model.state["norm"]["mean"] != before.state["norm"]["mean"]).any()
    assert len(models.predict(model, data).names) == 24
