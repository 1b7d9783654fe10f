"""Models on disk: exact, verified, and never a pickle."""

import dataclasses
import json
from importlib import metadata

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxfer import (
    Pixels,
    cosine_head,
    embed,
    init_model,
    linear_head,
    load_model,
    predict,
    save_model,
    with_classes,
    with_prototypes,
)
from jaxfer.nets import AlexNetSmall, Conv4, chain
from tests.models.conftest import SHAPE

# A file names its network, which is one of jaxfer.nets.
NET = AlexNetSmall(width=2, dense=6, dropout=0.0, normalize=True)


@pytest.fixture
def model():
    head = cosine_head(jax.random.key(2), 6, 4)
    pixels = Pixels(np.full(SHAPE, 7, np.float32), np.float32(3), SHAPE[:2])
    made = init_model(NET, SHAPE, jax.random.key(0), head=head, pixels=pixels)
    return dataclasses.replace(made, class_names=("a", "b", "c", "d"), about={"k": [1]})


def test_a_model_comes_back_as_it_was(tmp_path, model, task):
    path = save_model(tmp_path / "deep" / "model.safetensors", model)
    for where in (path, tmp_path / "deep"):
        back = load_model(where)
        assert back.net == model.net and back.about == {"k": [1]}
        assert back.class_names == model.class_names
        found = [
            jax.tree.leaves((m.params, m.state, m.head, m.pixels))
            for m in (model, back)
        ]
        for x, y in zip(*found, strict=True):
            assert np.shape(x) == np.shape(y)
            np.testing.assert_array_equal(x, y)
        assert predict(back, task).names == predict(model, task).names
    # Reading leaves nothing behind.
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["model.safetensors"]


def test_a_model_is_saved_by_a_source_tree_that_is_not_installed(
    tmp_path, model, monkeypatch
):
    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    assert load_model(save_model(tmp_path, model)).net == model.net


def test_prototypes_come_back_with_their_centre(tmp_path, task):
    model = with_prototypes(init_model(NET, SHAPE, jax.random.key(0)), task)
    back = load_model(save_model(tmp_path / "m.safetensors", model))
    np.testing.assert_array_equal(
        predict(back, task).probabilities, predict(model, task).probabilities
    )


@pytest.mark.parametrize("place", [9, 400, -5])
def test_a_flipped_byte_is_named(tmp_path, model, place):
    path = save_model(tmp_path / "m.safetensors", model)
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.safetensors"):
        load_model(path)


def test_a_cut_file_and_others_are_named(tmp_path, model):
    path = save_model(tmp_path / "m.safetensors", model)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="m.safetensors cannot be read: damaged"):
        load_model(path)
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a model of jaxfer"):
        load_model(tmp_path / "other.safetensors")


def test_a_later_format_is_refused(tmp_path, model):
    path = save_model(tmp_path / "m.safetensors", model)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["jaxfer"])
    header["format"] = 99
    save_file(load_file(path), path, metadata={"jaxfer": json.dumps(header)})
    with pytest.raises(ValueError, match="expected format 1, got 99"):
        load_model(path)


def test_a_wrong_path_is_named_and_nothing_is_made(tmp_path, model):
    with pytest.raises(ValueError, match="got nothing at"):
        load_model(tmp_path / "nosuch")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="got a folder without it"):
        load_model(tmp_path)
    for name in ("one", "two"):
        save_model(tmp_path / "members" / name / "model.safetensors", model)
    with pytest.raises(ValueError, match=r"study of several models.*one, two"):
        load_model(tmp_path)


def test_a_run_that_has_not_finished_is_said(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(ValueError, match="has not finished; run its command again"):
        load_model(tmp_path)


def test_a_linen_module_is_passed_as_it_is(tmp_path):
    from flax import linen as nn

    class Small(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x.reshape(len(x), -1))

    model = init_model(Small(), SHAPE, jax.random.key(0))
    back = load_model(save_model(tmp_path / "m.safetensors", model), net=Small())
    images = np.zeros((2, *SHAPE), np.uint8)
    np.testing.assert_array_equal(embed(model, images), embed(back, images))


def test_a_network_of_ones_own_is_passed(tmp_path):
    from jaxfer.nets.layers import Linear

    net = chain([("only", Linear(3))])
    model = init_model(net, SHAPE, jax.random.key(0))
    path = save_model(tmp_path / "m.safetensors", model)
    with pytest.raises(ValueError, match="pass it as net="):
        load_model(path)
    x = np.zeros((2, *SHAPE), np.uint8)
    np.testing.assert_array_equal(embed(load_model(path, net), x), embed(model, x))


def test_another_network_is_refused(tmp_path, model):
    path = save_model(tmp_path / "m.safetensors", model)
    assert load_model(path, NET).net == model.net
    for other in (Conv4(), AlexNetSmall(width=3)):
        with pytest.raises(ValueError, match="as in the file"):
            load_model(path, other)


def test_new_classes_join_a_head_and_the_others_keep_their_bits(model, task):
    more = with_classes(model, {"e": task.images[:5], "f": task.images[5:6]})
    assert more.class_names == ("a", "b", "c", "d", "e", "f")
    np.testing.assert_array_equal(more.head.weight[:4], model.head.weight)
    z = np.asarray(embed(model, task.images[:5]), np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    mean = z.mean(0) / np.linalg.norm(z.mean(0))
    np.testing.assert_allclose(more.head.weight[4], mean, atol=1e-6)
    assert predict(more, task).probabilities.shape == (40, 6)
    with pytest.raises(ValueError, match="a"):
        with_classes(model, {"a": task.images[:1]})


def test_prototypes_are_class_means(task):
    model = with_prototypes(init_model(NET, SHAPE, jax.random.key(0)), task)
    z = np.asarray(embed(model, task), np.float64)
    means = np.stack([z[task.labels == k].mean(0) for k in range(4)])
    squared = ((z[:, None] - means) ** 2).sum(-1)
    p = np.exp(-squared + squared.min(1, keepdims=True))
    found = predict(model, task)
    np.testing.assert_allclose(
        found.probabilities, p / p.sum(1, keepdims=True), atol=1e-5
    )
    assert found.classes == task.class_names


def test_linear_heads_are_kept(tmp_path):
    head = linear_head(jax.random.key(0), 6, 3)
    model = init_model(NET, SHAPE, jax.random.key(0), head=head)
    back = load_model(save_model(tmp_path / "m.safetensors", model))
    assert back.head.unit is False and back.head.num_classes == 3
