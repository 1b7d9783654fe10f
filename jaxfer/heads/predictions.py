"""Predictions of a named head: class names, probabilities and logits."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxfer.heads.logits import head_logits
from jaxfer.heads.named import NamedHead, check_dim, padded
from jaxfer.heads.sums import check_finite
from jaxfer.types import AnyArray


class Predictions(NamedTuple):
    """Predicted classes.

    Attributes:
        names: `n` names, the most probable class of each embedding.
        probabilities: `[n, classes]`, float32; each row sums to 1.
        classes: the name of each column.

    Example:
        >>> Predictions(["b"], np.array([[0.1, 0.9]], np.float32), ("a", "b"))
        Predictions(1 images: b (90%))
    """

    names: list[str]
    probabilities: np.ndarray
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        """The first predictions, each with its probability."""
        best = self.probabilities[:3].max(axis=1)
        shown = [f"{self.names[i]} ({p:.0%})" for i, p in enumerate(best)]
        more = ", ..." if len(self.names) > 3 else ""
        return f"Predictions({len(self.names):,} images: {', '.join(shown)}{more})"


def class_logits(named: NamedHead, z: Float[AnyArray, "n dim"]) -> np.ndarray:
    """The logits `[n, classes]` of embeddings, one column per class of `classes`.

    Raises:
        ValueError: a head without classes, embeddings of another dimension, or an
            embedding that is not finite or has logits that are not; the message names
            the row.

    Example:
        >>> from jaxfer import add_classes, new_named_head
        >>> birds = add_classes(new_named_head(2), {"wren": np.array([[1.0, 0.0]])})
        >>> class_logits(birds, np.array([[5.0, 0.0], [0.0, 5.0]])).tolist()
        [[10.0], [0.0]]
    """
    if not named.classes:
        raise ValueError(
            "expected at least one class, got none: add classes with `add_classes`"
        )
    array = check_finite(z, "predictions")
    check_dim(named, "predictions", array)
    logits = np.asarray(_logits(named.head, padded(array)))[: len(array)]
    logits = logits[:, [name is not None for name in named.names]]
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        raise ValueError(
            "predictions: expected finite logits, got "
            f"{logits[np.argmax(bad)].tolist()[:5]} for example {np.argmax(bad)} of "
            f"{len(array)}"
        )
    return logits


def predict_classes(named: NamedHead, z: Float[AnyArray, "n dim"]) -> Predictions:
    """The most probable class of each embedding, and the probabilities of all classes.

    Args:
        named: a head with at least one class.
        z: `[n, dim]`; n may be 0.

    Raises:
        ValueError: see `class_logits`.

    Example:
        >>> from jaxfer import add_classes, new_named_head
        >>> birds = add_classes(new_named_head(2), {"wren": np.array([[1.0, 0.0]])})
        >>> predict_classes(birds, np.array([[5.0, 1.0]])).names
        ['wren']
    """
    logits = class_logits(named, z)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    best = [named.classes[i] for i in logits.argmax(axis=1)]
    return Predictions(best, shares / shares.sum(axis=1, keepdims=True), named.classes)


_logits = jax.jit(head_logits)
