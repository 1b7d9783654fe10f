"""Pretrained weights in every experiment: where they go, and what trains how fast."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.imprinting import config as imprinting_config
from experiments.imprinting.run import run as run_imprinting
from experiments.inputs import Network
from experiments.layer_transfer import config as layers_config
from experiments.layer_transfer.run import run as run_layers
from experiments.options import Mesh
from experiments.prototypes import config as prototypes_config
from experiments.prototypes.run import run as run_prototypes
from jaxfer import init_model, load_model, save_model
from jaxfer.models import Options
from jaxfer.nets import Conv4
from jaxfer.optim import Optim
from jaxfer.study import member_folder
from tests.experiments.tiny import ONE_BASE

pytestmark = pytest.mark.usefixtures("small_glyphs")
QUIET = Options(save_every=0, log_every=1, progress=False)
# So small that weights stay close to where they began, but not equal.
SLOW = Optim("sgd", 1e-6, momentum=0.0)
SHAPE = (28, 28, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    return save_model(path, init_model(Conv4(width=4), SHAPE, jax.random.key(7)))


@pytest.fixture(scope="module")
def source(weights):
    return load_model(weights)


def close(found, expected):
    """Equal up to a few steps of a small learning rate, but not to the bit."""
    pairs = [*zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)]
    assert any(not np.array_equal(a, b) for a, b in pairs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found, expected
    )


def test_prototypes_start_from_them(weights, source, tmp_path):
    config = prototypes_config.Config(
        data=prototypes_config.Data("glyphs", train="train", test="val"),
        net=Network(pretrained=str(weights), batch_norm="running"),
        task=prototypes_config.Task(way=5, shot=1, query=2),
        test=prototypes_config.Evaluation(ways=(2,), shots=(1,), query=2, episodes=2),
        optim=SLOW,
        episodes=2,
        mesh=Mesh(1),
        run=QUIET,
        figures=False,
    )
    run_prototypes(config, tmp_path, ())
    found = load_model(tmp_path)
    close(found.params, source.params)
    jax.tree.map(np.testing.assert_array_equal, found.state, source.state)
    assert found.net == source.net
    config = dataclasses.replace(config, net=Network(pretrained=str(weights)))
    run_prototypes(config, tmp_path / "batch", ())
    moved = load_model(tmp_path / "batch").state["conv1"]["BatchNorm_0"]["mean"]
    assert not np.array_equal(moved, source.state["conv1"]["BatchNorm_0"]["mean"])


@pytest.mark.slow
def test_base_networks_of_imprinting_start_from_them(weights, source, tmp_path):
    config = imprinting_config.Config(
        data=imprinting_config.Data("glyphs", classes=12, base=8, pixels="range"),
        net=Network(pretrained=str(weights)),
        dim=8,
        optim=SLOW,
        epochs=1,
        run=QUIET,
        **ONE_BASE,
        figures=False,
    )
    run_imprinting(config, tmp_path)
    found = load_model(member_folder(tmp_path, "seed0-base-softmax-d8"))
    trunk = {name: found.params[name] for name in source.params}
    close(trunk, source.params)
    assert found.params["embedding"]["Dense_0"]["kernel"].shape[1] == 8
    assert float(found.pixels.std) == 255, "the preprocessing is that of the weights"


@pytest.mark.slow
def test_layers_are_copied_from_them(weights, source, tmp_path):
    grid = layers_config.Grid("whole", (0,), treatments=("base", "AnB", "AnB+"))
    none = dataclasses.replace(grid, splits=())
    config = layers_config.Config(
        data=layers_config.Data("glyphs", classes=8),
        net=Network(pretrained=str(weights)),
        optim=SLOW,
        similar=none,
        dissimilar=none,
        untrained=grid,
        layers=(2,),
        epochs=1,
        batch=20,
        run=QUIET,
        figures=False,
    )
    layers_config.check(config)
    run_layers(config, tmp_path)
    name = "untrained-0W-seed0-AnB"
    frozen, tuned = (
        load_model(member_folder(tmp_path, f"{name}{more}-n2")) for more in ("", "+")
    )
    for layer in ("conv1", "conv2"):
        jax.tree.map(
            np.testing.assert_array_equal, frozen.params[layer], source.params[layer]
        )
        close(tuned.params[layer], source.params[layer])
    kernels = (x.params["conv3"]["Conv_0"]["kernel"] for x in (frozen, source))
    assert not np.allclose(*kernels, atol=1e-3)
    with pytest.raises(ValueError, match="unless net.pretrained names weights"):
        layers_config.check(dataclasses.replace(config, net=Network("Conv4")))


def test_new_layers_learn_ten_times_as_fast(weights):
    network = Network(pretrained=str(weights))
    assert network.rates(["conv1"]) == (("net/conv1/**", 1.0), ("**", 10.0))
    slower = dataclasses.replace(network, new_rate=2.0)
    assert slower.rates([]) == (("**", 2.0),)
    assert Network("Conv4").rates(["conv1"]) == ()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Network(pretrained="resnet51"), r"expected weights of \['efficientnet_lite0'"),
        (Network(pretrained="none.safetensors"), "got nothing at none.safetensors"),
        (Network("Conv4", width=3, pretrained="x"), "without options of a network"),
        (Network("Conv4", new_rate=0.0), "expected net.new_rate above 0, got 0"),
    ],
)
def test_wrong_options_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        network.build()


def test_images_of_another_size_are_refused(weights):
    network = Network(pretrained=str(weights))
    with pytest.raises(ValueError, match=r"of the shape \(28, 28, 1\) .*--data.side"):
        network.build((32, 32, 1))
