"""Leave-one-out logits of a support set, and the temperature that fits them.

The logits of an example are those of a classifier made from all other examples. They
have closed forms, which are computed on the host in float64: a support set is small.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from jaxfer.heads.discriminant import shrinkage_of
from jaxfer.heads.vectors import unit_rows

Kind = Literal["prototype", "imprint", "matching", "nearest", "linear", "lda"]
# Where no class has two examples, nothing can be left out. The temperature is then this
# share of the mean difference between the logits of an example for its own class and
# for the others: about the best share for photographs with EfficientNet-Lite0.
_SHARE = 0.1


def fit_temperature(
    kind: Kind,
    z: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    **options: Any,
) -> float:
    """The temperature with the lowest leave-one-out cross-entropy of a support set.

    `T = argmin_T - mean_i log softmax(l_i / T)[y_i]`, where l_i are the logits of
    example i by a classifier made without it, over the classes with at least two
    examples.

    Args:
        kind: the classifier.
        z: `[n, dim]`, embeddings.
        labels: `[n]`, classes from 0.
        **options: 'penalty' of `ridge_head` and 'shrinkage' of `lda_head`.

    Example:
        >>> z = np.array([[0.0], [1.0], [0.6], [1.6]])
        >>> 0.1 < fit_temperature("prototype", z, np.array([0, 0, 1, 1])) < 100
        True
    """
    z = np.asarray(z, np.float64)
    labels = np.unique(labels, return_inverse=True)[1]
    counts = np.bincount(labels)
    if len(counts) < 2:
        return 1.0
    held = counts[labels] > 1
    if not held.any():
        logits = support_logits(kind, z, labels, leave_out=False, **options)(1.0)
        return max(_SHARE * _gap(logits, labels), 1e-6)
    logits_at = support_logits(kind, z, labels, leave_out=True, **options)
    kept = labels[held]

    def loss(log_t: float) -> float:
        logits = logits_at(float(np.exp(log_t)))[held]
        return float(
            np.mean(logsumexp(logits, axis=1) - logits[range(len(kept)), kept])
        )

    middle = np.log(max(_spread(logits_at(1.0)[held]), 1e-9))
    bounds = (middle - 7, middle + 5)
    found: Any = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def support_logits(
    kind: Kind,
    z: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    *,
    leave_out: bool,
    penalty: float = 1.0,
    shrinkage: float | None = None,
) -> Callable[[float], np.ndarray]:
    """The logits of the support examples, as a function of the temperature.

    Args:
        kind: the classifier.
        z: `[n, dim]`, embeddings in float64.
        labels: `[n]`, classes from 0, each with an example.
        leave_out: whether each example is left out of its own classifier. If it is the
            only one of its class, its logit of that class has no meaning.
        penalty: see `ridge_head`.
        shrinkage: see `lda_head`.
    """
    hot = np.eye(int(labels.max()) + 1)[labels]
    if kind == "matching":
        return lambda t: _pooled(_cosines(z, leave_out) / t, hot)
    if kind == "nearest":
        logits = _highest(-_distances(z, z, leave_out), hot)
    elif kind == "prototype":
        logits = _prototype(z, hot, leave_out)
    elif kind == "imprint":
        logits = _imprint(z, hot, leave_out)
    elif kind == "linear":
        logits = _ridge(z, hot, leave_out, penalty)
    else:
        logits = _lda(z, hot, leave_out, shrinkage)
    return lambda t: logits / t


def _prototype(z: np.ndarray, hot: np.ndarray, leave_out: bool) -> np.ndarray:
    counts = hot.sum(0)
    distances = _distances(z, hot.T @ z / counts[:, None])
    if leave_out:
        # Without z the mean is c - (z - c) / (n - 1).
        further = (counts / np.maximum(counts - 1, 1)) ** 2
        distances = np.where(hot > 0, distances * further, distances)
    return -distances


def _imprint(z: np.ndarray, hot: np.ndarray, leave_out: bool) -> np.ndarray:
    unit = unit_rows(z)
    total = hot.T @ unit
    products = unit @ total.T
    squares = np.broadcast_to((total**2).sum(1), products.shape)
    if leave_out:
        squares = squares - hot * (2 * products - 1)
        products = products - hot
    return products / np.sqrt(np.maximum(squares, 1e-30))


def _ridge(
    z: np.ndarray, hot: np.ndarray, leave_out: bool, penalty: float
) -> np.ndarray:
    n = len(z)
    centred = z - z.mean(0)
    gram = centred @ centred.T
    ridge = penalty * max(np.trace(gram) / n, 1e-30)
    # The fitted values are this matrix times the targets.
    hat = np.linalg.solve(gram + ridge * np.eye(n), gram) + 1 / n
    fitted = hat @ hot
    if not leave_out:
        return fitted
    own = np.diag(hat)[:, None]
    return (fitted - own * hot) / (1 - own)


def _lda(
    z: np.ndarray, hot: np.ndarray, leave_out: bool, shrinkage: float | None
) -> np.ndarray:
    n, dim = z.shape
    counts = hot.sum(0)
    means = hot.T @ z / counts[:, None]
    several = n > len(counts)
    rest = z - (hot @ means if several else z.mean(0))
    freedom = max(n - len(counts) if several else n - 1, 1)
    inner = rest @ rest.T / freedom
    trace, squares = np.trace(inner), (inner**2).sum()
    if shrinkage is None:
        shrinkage = float(shrinkage_of(trace, squares, dim, freedom, xp=np))
    level = max(shrinkage * trace / dim, 1e-30)
    share = (1 - shrinkage) / freedom
    # S^-1 for S = level I + share R^T R, in products of examples and means.
    rows = np.concatenate([z, means])
    mixed = rows @ rest.T
    inverse = np.linalg.solve(level * np.eye(n) + share * rest @ rest.T, mixed.T)
    products = (rows @ rows.T - share * mixed @ inverse) / level
    own = products[:n, :n].diagonal()[:, None]
    cross, between = products[:n, n:], products[n:, n:]
    distances = own - 2 * cross + between.diagonal()[None]
    if not leave_out:
        return -0.5 * distances
    # With r = z - c and k examples in the class, leaving z out subtracts
    # k / (k - 1) r r^T from the scatter, and moves the mean by -r / (k - 1).
    size = (hot @ counts)[:, None]
    more = size / np.maximum(size - 1, 1)
    towards = own - cross - (hot * cross).sum(1)[:, None] + hot @ between
    length = (hot * distances).sum(1)[:, None]
    factor = share * more / np.maximum(1 - share * more * length, 1e-12)
    changed = distances + factor * towards**2
    changed = np.where(hot > 0, more**2 * (length + factor * length**2), changed)
    return -0.5 * changed


def _distances(a: np.ndarray, b: np.ndarray, leave_out: bool = False) -> np.ndarray:
    middle = a.mean(0)
    a, b = a - middle, b - middle
    found = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)[None]
    found = np.maximum(found, 0)
    if leave_out:
        np.fill_diagonal(found, np.inf)
    return found


def _cosines(z: np.ndarray, leave_out: bool) -> np.ndarray:
    unit = unit_rows(z)
    found = unit @ unit.T
    if leave_out:
        np.fill_diagonal(found, -np.inf)
    return found


def _highest(scores: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """The highest score among the examples of each class."""
    classes = [scores[:, column > 0].max(1) for column in hot.T]
    return np.stack(classes, axis=1)


def _pooled(scores: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """The log-sum-exp of the scores of the examples of each class."""
    classes = [logsumexp(scores[:, column > 0], axis=1) for column in hot.T]
    return np.stack(classes, axis=1)


def _gap(logits: np.ndarray, labels: np.ndarray) -> float:
    own = logits[range(len(labels)), labels]
    others = (logits.sum(1) - own) / (logits.shape[1] - 1)
    return float(np.mean(own - others))


def _spread(logits: np.ndarray) -> float:
    finite = np.where(np.isfinite(logits), logits, np.nan)
    return float(np.nanmean(np.nanmax(finite, axis=1) - np.nanmean(finite, axis=1)))
