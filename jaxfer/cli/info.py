"""`info PATH`: what a model, classifier, bank or run is, and how good it was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfer.data import Bank, load_bank
from jaxfer.estimator import FewShotClassifier
from jaxfer.models import FILE, Model, load_model
from jaxfer.runlog import read_result
from jaxfer.tensors import read_tensors


def run(path: Path, as_json: bool) -> None:
    """Print what a path holds."""
    facts = facts_of(path)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {_shown(value)}")


def facts_of(path: Path) -> dict[str, Any]:
    """What a path holds, as plain values.

    Raises:
        ValueError: nothing that jaxfer wrote.
    """
    if path.is_dir():
        return _of_run(path)
    if not path.is_file():
        raise ValueError(f"expected a model, bank or run, got nothing at {path}")
    if path.suffix == ".npz":
        return _of_bank(load_bank(path))
    if path.suffix != ".safetensors":
        raise ValueError(
            f"expected a .safetensors, a .npz or a run's folder, got {path}"
        )
    try:
        texts, _ = read_tensors(path)
    except ValueError as e:
        raise ValueError(f"{path} cannot be read: {e}") from e
    if "jaxfer_bank" in texts:
        return _of_bank(load_bank(path))
    if "jaxfer_classifier" in texts:
        return _of_classifier(FewShotClassifier.load(path))
    if "jaxfer" in texts:
        return _of_model(load_model(path))
    raise ValueError(
        f"expected a file that jaxfer wrote, got {path} with weights of another "
        "library: see load_pretrained"
    )


def _of_model(model: Model) -> dict[str, Any]:
    spec = model.net.spec
    size = sum(int(np.size(x)) for x in jax.tree.leaves(model.params))
    classes = 0 if model.head is None else model.head.num_classes
    return {
        "kind": "model",
        "network": repr(spec) if spec else "a network of its own",
        "layers": ", ".join(model.net.layers),
        "parameters": size,
        "image size": model.pixels.size or model.about.get("image_shape"),
        "classes": classes,
        "class names": list(model.class_names),
        **_flat(model.about),
    }


def _of_classifier(classifier: FewShotClassifier) -> dict[str, Any]:
    counts = classifier.about_.get("pictures", {})
    more = {k: v for k, v in classifier.about_.items() if k != "names"}
    return {
        "kind": "classifier",
        "options": repr(classifier),
        "classes": len(classifier.classes_),
        "class names": [str(name) for name in classifier.classes_],
        "examples": len(classifier.examples()[1])
        if not counts
        else sum(counts.values()),
        "temperature": round(classifier.temperature_, 6),
        "threshold": classifier.threshold_,
        **_flat(more),
    }


def _of_bank(bank: Bank) -> dict[str, Any]:
    n, dim = bank.embeddings.shape
    return {
        "kind": "feature bank",
        "embeddings": n,
        "dimensions": dim,
        "classes": len(bank.class_names),
        "class names": list(bank.class_names),
        "training images": bank.num_train,
        **_flat(bank.about),
    }


def _of_run(path: Path) -> dict[str, Any]:
    if not (path / "config.json").is_file():
        raise ValueError(f"expected a run's folder with config.json, got {path}")
    done = (path / "result.json").is_file()
    facts: dict[str, Any] = {"kind": "run", "finished": done}
    if not done:
        members = [*path.glob("members/*/record.json")]
        return facts | ({"members done": len(members)} if members else {})
    result = read_result(path, ("metrics",))
    facts |= {"experiment": result["experiment"], "seconds": result.get("wall_s")}
    for name, metric in list(result["metrics"].items())[:20]:
        if "accuracy" in name:
            facts[name] = f"{metric['mean']:.2f} ± {metric['ci95']:.2f}"
    if (path / FILE).is_file():
        facts["model"] = str(path / FILE)
    facts["tables"] = str(path / "tables.md")
    return facts


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts by dotted name."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"{', '.join(map(str, value[:8]))} and {len(value) - 8} more"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if type(value) is int else str(value)
