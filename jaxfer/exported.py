"""Classifiers for other programs: StableHLO and ONNX, with the classes as inputs."""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxfer.estimator import FewShotClassifier
from jaxfer.heads import as_linear
from jaxfer.models import Model, model_side, prepare
from jaxfer.nets.convolution import plain_convolutions
from jaxfer.support_set import Normalize

Format = Literal["stablehlo", "onnx"]
TEMPLATES = ("weight", "bias", "means")


def export(
    classifier: FewShotClassifier,
    path: str | Path,
    *,
    formats: Sequence[Format] = ("stablehlo",),
) -> Path:
    """Write a classifier as a program that needs neither jaxfer nor its model.

    The program maps uint8 pictures `[n, side, side, 3]` and the templates of the
    classes to probabilities `[n, classes]` and similarities `[n]`:
    `softmax(W f(x) + b)`, and the largest cosine of `f(x)` with a class mean. Number of
    pictures and number of classes are free, so that new classes need new templates but
    no new program.

    The folder gets `classify.stablehlo` (read it with `jax.export.deserialize`) or
    `classify.onnx`; `templates.npz` with weight, bias and means; `classes.json`; the
    classifier itself, `classifier.safetensors`, from which all else can be made again;
    and `README.md`, a model card.

    Args:
        classifier: a fitted classifier that embeds pictures, with the head prototype,
            imprint, linear or lda. The others have one row per example, and
            `prototypes` above 1 has several rows per class.
        path: the folder.
        formats: 'stablehlo' needs flatbuffers, 'onnx' needs jax2onnx.

    Raises:
        ValueError: another head, or a package that is missing.

    Example:
        >>> export(FewShotClassifier(head="nearest"), "folder")
        Traceback (most recent call last):
            ...
        ValueError: expected one row per class to export, head prototype, imprint, \
linear or lda with prototypes = 1, got FewShotClassifier(head='nearest')
    """
    if classifier.head in ("matching", "nearest") or classifier.prototypes > 1:
        raise ValueError(
            "expected one row per class to export, head prototype, imprint, linear or "
            f"lda with prototypes = 1, got {classifier!r}"
        )
    path, model = Path(path), classifier.backbone()
    given = templates(classifier)
    path.mkdir(parents=True, exist_ok=True)
    makers: Mapping[str, Callable[..., None]] = {"stablehlo": _stablehlo, "onnx": _onnx}
    for form in formats:
        if form not in makers:
            raise ValueError(f"expected formats of {[*makers]}, got {form!r}")
        program = _program(model, classifier.normalize, classifier.head == "imprint")
        makers[form](program, model, given, path / f"classify.{form}")
    np.savez(path / "templates.npz", **given)  # type: ignore[arg-type]
    classes = [str(name) for name in classifier.classes_]
    (path / "classes.json").write_text(json.dumps(classes, indent=1) + "\n")
    classifier.save(path / "classifier.safetensors")
    (path / "README.md").write_text(_card(classifier, model, formats))
    return path


def templates(classifier: FewShotClassifier) -> dict[str, np.ndarray]:
    """The templates of the classes that the exported program takes, float32.

    Returns:
        'weight' `[classes, dim]` and 'bias' `[classes]` of the logits, and 'means'
        `[classes, dim]`, the unit means for the similarity.
    """
    support = classifier._support
    head = as_linear(classifier._head)
    count = len(support.count)
    arrays = (head.weight[:count], head.bias[:count], support.means())
    return {
        name: np.asarray(x, np.float32)
        for name, x in zip(TEMPLATES, arrays, strict=True)
    }


def _program(model: Model, how: Normalize, unit: bool) -> Callable[..., Any]:
    """The function from pictures and templates to probabilities and similarities."""

    def classify(
        images: Array,
        weight: Float[Array, "classes dim"],
        bias: Float[Array, " classes"],
        means: Float[Array, "classes dim"],
    ) -> tuple[Array, Array]:
        x = prepare(model.pixels, images)
        z, _ = model.net.apply(model.params, model.state, x)
        z = z.reshape(z.shape[0], -1).astype(jnp.float32)
        if how == "sqrt":
            z = jnp.sign(z) * jnp.sqrt(jnp.abs(z))
        # Plain operations, which every format has.
        squares = jnp.sum(z * z, axis=-1, keepdims=True)
        direction = z * jax.lax.rsqrt(jnp.maximum(squares, 1e-30))
        z = direction if unit or how != "none" else z
        logits = z @ weight.T + jnp.broadcast_to(bias, (z.shape[0], bias.shape[0]))
        return jax.nn.softmax(logits, axis=-1), (direction @ means.T).max(axis=-1)

    return classify


def _stablehlo(
    program: Callable[..., Any],
    model: Model,
    given: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    n, classes = jax.export.symbolic_shape("n, classes")
    side = model_side(model)
    shapes = [
        jax.ShapeDtypeStruct((n, side, side, 3), jnp.uint8),
        *(
            jax.ShapeDtypeStruct((classes, *x.shape[1:]), jnp.float32)
            for x in given.values()
        ),
    ]
    platforms = ("cpu", "cuda", "tpu")
    exported = jax.export.export(jax.jit(program), platforms=platforms)(*shapes)
    try:
        path.write_bytes(exported.serialize())
    except ImportError as e:
        raise ValueError(
            f"expected flatbuffers to write {path}, got an import error ({e}): pip "
            "install 'jaxfer[export]'"
        ) from e


def _onnx(
    program: Callable[..., Any],
    model: Model,
    given: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    try:
        import onnx
        from jax2onnx import to_onnx
    except ImportError as e:
        raise ValueError(
            f"expected jax2onnx to write {path}, got an import error ({e}): pip "
            "install 'jaxfer[export]' && pip install --no-deps jax2onnx"
        ) from e
    side = model_side(model)
    inputs = [("n", side, side, 3)]
    inputs += [("classes", *x.shape[1:]) for x in given.values()]
    with plain_convolutions():
        made: Any = to_onnx(program, inputs=inputs, model_name="classify")
    names = ("images", *given, "probabilities", "similarity")
    onnx.save(_renamed(made, names), str(path))


def _renamed(made: Any, names: Sequence[str]) -> Any:
    """The ONNX model with names for its inputs and outputs, in order."""
    old = [value.name for value in (*made.graph.input, *made.graph.output)]
    new = dict(zip(old, names, strict=True))
    for value in (*made.graph.input, *made.graph.output):
        value.name = new[value.name]
    for node in made.graph.node:
        for ends in (node.input, node.output):
            for i, name in enumerate(ends):
                ends[i] = new.get(name, name)
    return made


def _card(
    classifier: FewShotClassifier, model: Model, formats: Sequence[Format]
) -> str:
    """A model card in Markdown."""
    about = dict(classifier.about_)
    measured = about.get("measured", {})
    counts = np.asarray(classifier._support.count, int)
    side = model_side(model)
    lines = [
        "# A few-shot classifier",
        "",
        f"- Classes: {', '.join(str(name) for name in classifier.classes_)}",
        f"- Examples: {counts.sum()}, {counts.min()} to {counts.max()} per class",
        f"- Head: {classifier.head}; embeddings: {classifier.normalize}",
        f"- Backbone: {model!r}, trained on {model.about.get('data', 'unknown data')}",
        f"- Licence of the weights: {model.about.get('licence', 'not known')}",
        f"- Temperature: {classifier.temperature_:.6g}",
        f"- Threshold of similarity for unknown pictures: {classifier.threshold_}",
    ]
    if measured:
        lines.append(f"- Accuracy: {measured['accuracy']}% on {measured['on']}")
    if "folder" in about:
        lines.append(f"- Data: {about['folder']}")
    files = ", ".join(f"`classify.{form}`" for form in formats)
    return "\n".join(
        [
            *lines,
            f"- Written: {datetime.date.today().isoformat()}",
            "",
            f"{files} maps uint8 pictures `[n, {side}, {side}, 3]` (RGB, resized to",
            "squares) and the arrays of `templates.npz` to probabilities and",
            "similarities.",
            "",
        ]
    )
