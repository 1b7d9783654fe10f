"""Classifiers on disk: one safetensors file with support set and model, no pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.models import Model
from jaxfer.models.files import pack_model, unpack_model
from jaxfer.support_set import Support
from jaxfer.tensors import read_tensors, seal, unseal, write_tensors

_FORMAT = 1
_KEY = "jaxfer_classifier"


def save(
    path: str | Path, facts: Mapping[str, Any], support: Support, model: Model | None
) -> Path:
    """Write a classifier to one file, completely or not at all.

    Args:
        path: the path of the file, which ends in .safetensors.
        facts: 'options', 'classes', 'temperature' and 'threshold'.
        support: the support set.
        model: the model that embeds; None if it never embedded a picture.

    Raises:
        ValueError: another suffix, labels that JSON cannot hold, or a file that cannot
            be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a path that ends in .safetensors, got {path}")
    arrays = {
        f"support/{name}": np.ascontiguousarray(x)
        for name, x in vars(support).items()
        if x is not None
    }
    header: dict[str, Any] = {"format": _FORMAT, "model": None, **facts}
    if model is not None:
        tensors, header["model"] = pack_model(model)
        arrays |= {f"model/{name}": x for name, x in tensors.items()}
    classes = facts["classes"]
    header["classes"], header["dtype"] = classes.tolist(), classes.dtype.str
    try:
        sealed = seal(header, arrays)
    except TypeError as e:
        raise ValueError(
            f"expected labels and options that JSON can hold, got others ({e})"
        ) from e
    try:
        write_tensors(path, arrays, {_KEY: sealed})
    except OSError as e:
        raise ValueError(
            f"the classifier {path} cannot be written ({e.strerror})"
        ) from e
    return path


def load(path: str | Path) -> tuple[dict[str, Any], Support, Model | None]:
    """Read a classifier, and verify it: the facts, the support set and the model.

    Raises:
        ValueError: no such file, or one that is damaged, of another kind or of another
            version.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected a classifier, got no file at {path}")
    try:
        texts, arrays = read_tensors(path)
        if _KEY not in texts:
            raise ValueError("it is no classifier of FewShotClassifier.save")
        header = unseal(texts[_KEY], arrays, _FORMAT)
        parts = {
            kind: {
                name.removeprefix(f"{kind}/"): x
                for name, x in arrays.items()
                if name.startswith(f"{kind}/")
            }
            for kind in ("support", "model")
        }
        model = header["model"] and unpack_model(header["model"], parts["model"])
        support = Support(**{"gram": None, **parts["support"]})
        kind = np.dtype(header["dtype"])
        return (
            {**header, "classes": np.array(header["classes"], kind)},
            support,
            model,
        )
    except (KeyError, TypeError, json.JSONDecodeError) as e:
        raise ValueError(f"the classifier {path} is damaged ({e})") from e
    except ValueError as e:
        raise ValueError(f"the classifier {path} cannot be read: {e}") from e
