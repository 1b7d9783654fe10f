"""Exported classifiers in other programs give the same answers."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxfer import FewShotClassifier, export, init_model
from jaxfer.exported import templates
from jaxfer.nets import Conv4, EfficientNetLite

pytestmark = pytest.mark.once

pytest.importorskip("flatbuffers")
SIDE = 16
# A program that must not load jaxfer or flax.
READER = """
import sys
import jax, numpy as np
folder = sys.argv[1]
with open(f"{folder}/classify.stablehlo", "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))
given = np.load(f"{folder}/templates.npz")
images = np.load(f"{folder}/images.npy")
arrays = [given[name] for name in ("weight", "bias", "means")]
shares, similar = program.call(images, *arrays)
fewer, _ = program.call(images[:1], *(x[:2] for x in arrays))
np.savez(f"{folder}/found.npz", shares=shares, similar=similar, fewer=fewer)
assert not {"flax", "jaxfer"} & {name.split(".")[0] for name in sys.modules}
"""


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (9, SIDE, SIDE, 3), dtype=np.uint8)


def fitted(pictures, head, net=Conv4(width=4), **options):  # noqa: B008
    model = init_model(net, (SIDE, SIDE, 3), jax.random.key(0))
    classifier = FewShotClassifier(model, head, **options)
    return classifier.fit(pictures, ["kite", "wren", "gull"] * 3)


def run(folder):
    """What the program in another process returns for the images in the folder."""
    subprocess.run([sys.executable, "-c", READER, folder], check=True)
    with np.load(folder / "found.npz") as found:
        return dict(found)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("prototype", {}),
        ("imprint", {"normalize": "none"}),
        ("linear", {"normalize": "unit"}),
        ("lda", {"normalize": "none", "unknown": 0.1}),
    ],
)
def test_a_process_without_jaxfer_gives_the_same_answers(
    head, options, pictures, tmp_path
):
    classifier = fitted(pictures, head, **options)
    folder = export(classifier, tmp_path / "out")
    np.save(folder / "images.npy", pictures[:5])
    found = run(folder)
    expected = classifier.predict_proba(pictures[:5])
    np.testing.assert_allclose(found["shares"], expected, atol=1e-4)
    similar = classifier.similarity(pictures[:5])
    np.testing.assert_allclose(found["similar"], similar, atol=1e-5)
    assert found["fewer"].shape == (1, 2), "the number of classes is free"
    assert json.loads((folder / "classes.json").read_text()) == ["gull", "kite", "wren"]
    again = FewShotClassifier.load(folder / "classifier.safetensors")
    np.testing.assert_allclose(again.predict_proba(pictures[:5]), expected, atol=1e-5)


def test_new_classes_need_new_templates_only(pictures, tmp_path):
    classifier = fitted(pictures, "prototype")
    folder = export(classifier, tmp_path)
    classifier.add_classes({"owl": 255 - pictures[:2]})
    np.savez(folder / "templates.npz", **templates(classifier))
    np.save(folder / "images.npy", pictures)
    found = run(folder)["shares"]
    assert found.shape == (9, 4)
    np.testing.assert_allclose(found, classifier.predict_proba(pictures), atol=1e-4)


def test_onnx_gives_the_same_answers(pictures, tmp_path):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    for net in (Conv4(width=4), EfficientNetLite()):
        classifier = fitted(pictures, "lda", net)
        folder = export(classifier, tmp_path / type(net).__name__, formats=["onnx"])
        session = runtime.InferenceSession(str(folder / "classify.onnx"))
        given = {"images": pictures[:5].astype(np.float32), **templates(classifier)}
        shares, similar = session.run(["probabilities", "similarity"], given)
        expected = classifier.predict_proba(pictures[:5])
        np.testing.assert_allclose(shares, expected, atol=1e-4)
        np.testing.assert_allclose(similar, classifier.similarity(pictures[:5]), 1e-4)


def test_the_card_says_what_it_is(pictures, tmp_path):
    classifier = fitted(pictures, "linear")
    classifier.about_ = {"measured": {"accuracy": "90.0 ± 1.0", "on": "9 pictures"}}
    text = (export(classifier, tmp_path) / "README.md").read_text()
    for words in ("gull, kite, wren", "90.0 ± 1.0% on 9 pictures", "Head: linear"):
        assert words in text


def test_what_cannot_be_exported_is_refused(pictures, tmp_path, unchecked):
    with pytest.raises(ValueError, match="one row per class to export, .*'nearest'"):
        export(fitted(pictures, "nearest"), tmp_path)
    with pytest.raises(ValueError, match="got FewShotClassifier.*prototypes=2"):
        export(fitted(pictures, "imprint", prototypes=2), tmp_path)
    with pytest.raises(ValueError, match="expected formats of .* got 'tflite'"):
        export(fitted(pictures, "lda"), tmp_path, formats=["tflite"])
