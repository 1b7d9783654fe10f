"""What `FewShotClassifier` accepts, and what it refuses in scikit-learn's words."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxfer.support_set import KINDS


def check_options(
    *,
    model: Any,
    head: Any,
    normalize: Any,
    temperature: Any,
    unknown: Any,
    prototypes: Any,
    penalty: Any,
    shrinkage: Any,
) -> None:
    """Refuse options of a classifier outside their range.

    Raises:
        ValueError: the first such option.
    """
    del model
    if head not in KINDS:
        raise ValueError(f"expected head of {KINDS}, got {head!r}")
    if normalize not in ("none", "unit", "sqrt"):
        raise ValueError(f"expected normalize none, unit or sqrt, got {normalize!r}")
    by_number = not isinstance(temperature, str)
    if not (temperature > 0 if by_number else temperature == "leave_one_out"):
        raise ValueError(
            f"expected temperature 'leave_one_out' or above 0, got {temperature!r}"
        )
    if unknown is not None and not 0 < unknown < 1:
        raise ValueError(f"expected unknown in (0, 1), got {unknown!r}")
    several = head in ("prototype", "imprint")
    if prototypes < 1 or (prototypes > 1 and not several):
        raise ValueError(
            "expected prototypes of at least 1, and 1 for heads other than prototype "
            f"and imprint, got {prototypes!r} for {head}"
        )
    if not penalty > 0:
        raise ValueError(f"expected penalty above 0, got {penalty!r}")
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise ValueError(f"expected shrinkage in [0, 1], got {shrinkage!r}")


def checked(X: Any) -> Float[np.ndarray, "n dim"]:
    """Embeddings that a user gives, as a matrix of finite floating numbers.

    Raises:
        ValueError: anything else.
    """
    if hasattr(X, "toarray"):
        raise TypeError(
            "Sparse data was passed, but dense data is required. Use '.toarray()'"
        )
    z = np.asarray(X)
    if z.dtype.kind == "c":
        raise ValueError("Complex data not supported: expected real embeddings")
    if z.ndim != 2:
        raise ValueError(
            f"expected embeddings [n, dim], got shape {z.shape}. Reshape your data: "
            "one row per example"
        )
    if not z.shape[0]:
        raise ValueError(f"Found array with 0 sample(s) (shape={z.shape}): expected 1")
    if not z.shape[1]:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={z.shape}) while a minimum of 1 is "
            "required."
        )
    try:
        z = z.astype(np.float64)
    except (TypeError, ValueError) as e:
        if z.dtype.kind in "OUS":
            raise type(e)(f"expected numbers as embeddings, got others ({e})") from e
        raise
    if not np.isfinite(z).all():
        row = int(np.argmin(np.isfinite(z).all(axis=1)))
        raise ValueError(
            f"Input X contains NaN or infinity in example {row} of {len(z)}"
        )
    return z


def not_fitted_error() -> type[Exception]:
    """scikit-learn's error, a ValueError, where scikit-learn is installed."""
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        return ValueError
    return NotFittedError


def sklearn_tags() -> Any:
    """The tags of a classifier, for scikit-learn."""
    from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

    return Tags(
        estimator_type="classifier",
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags(),
        input_tags=InputTags(),
    )


def strange_label(classes: np.ndarray) -> np.ndarray:
    """The label of unknown pictures: -1 among integers, else 'unknown'.

    Raises:
        ValueError: a class that has this label.
    """
    whole = np.issubdtype(classes.dtype, np.integer)
    strange = np.asarray(-1 if whole else "unknown")
    if strange in classes:
        raise ValueError(f"expected no class {strange}, which means unknown")
    return strange


def changed_options(estimator: Any, options: Mapping[str, Any]) -> str:
    """The options that differ from their defaults, as arguments of a call."""
    given = {name: getattr(estimator, name) for name in options}
    return ", ".join(
        f"{name}={value!r}"
        for name, value in given.items()
        if value is not options[name].default and value != options[name].default
    )


def other_dim(found: int, expected: int) -> ValueError:
    """The error for embeddings of another dimension, in scikit-learn's words."""
    return ValueError(
        f"X has {found} features, but FewShotClassifier is expecting {expected} "
        "features as input"
    )


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Embeddings of several classes as one matrix.

    Raises:
        ValueError: parts with other dimensions.
    """
    for part in parts:
        if part.shape[1] != parts[0].shape[1]:
            raise other_dim(part.shape[1], parts[0].shape[1])
    return np.concatenate(parts)


def is_embeddings(X: Any) -> bool:
    """Whether X is a matrix of numbers, or meant to be one."""
    if hasattr(X, "toarray") or hasattr(X, "iloc"):
        return True
    if isinstance(X, np.ndarray) or hasattr(X, "__array__"):
        array = np.asarray(X)
        return array.ndim < 3 and not (array.ndim == 1 and array.dtype.kind in "OUS")
    if not isinstance(X, Sequence) or isinstance(X, str):
        return not hasattr(X, "images") and not isinstance(X, str | Path)
    first = X[0] if len(X) else None
    return isinstance(first, float | int) or (
        isinstance(first, Sequence | np.ndarray)
        and not isinstance(first, str)
        and np.ndim(first) == 1
    )


def labels_of(y: Any) -> np.ndarray:
    """The labels as a vector.

    Raises:
        ValueError: no labels, a matrix, or numbers that are not whole.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        _warn_column()
        labels = labels.ravel()
    if labels.ndim != 1:
        raise ValueError(f"expected labels of shape [n], got shape {labels.shape}")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise ValueError("expected labels without NaN or infinity, got others")
        if (labels != np.round(labels)).any():
            raise ValueError(
                "Unknown label type: expected classes as labels, got continuous values"
            )
    return labels


def _warn_column() -> None:
    try:
        from sklearn.exceptions import DataConversionWarning as Warned
    except ImportError:
        Warned = UserWarning
    warnings.warn(
        "A column-vector y was passed when a 1d array was expected",
        Warned,
        stacklevel=4,
    )


def check_lengths(z: np.ndarray, labels: np.ndarray) -> None:
    """Refuse another number of labels than of examples.

    Raises:
        ValueError: the numbers differ.
    """
    if len(z) != len(labels):
        raise ValueError(
            f"expected one label per example, got {len(z)} examples and "
            f"{len(labels)} labels"
        )
