"""Linear classifiers in closed form from class sums with second moments.

The sums add up, so both classifiers can be computed after any number of examples, in
any order, without keeping the examples.
"""

from typing import Any

import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from jaxtyping import Array, Float

from jaxfer.heads.sums import seen_classes, sums_means
from jaxfer.heads.vectors import HIGHEST
from jaxfer.types import ClassSums, Head

# A number, which may be traced.
Number = float | Float[Array, ""]
_TINY = float(np.finfo(np.float32).tiny)


def lda_head(
    sums: ClassSums, *, shrinkage: Number | None = None, scale: Number = 1.0
) -> Head:
    """Linear discriminant analysis with a shrunk covariance that all classes share.

    `logit_k = w_k . z - w_k . (c_k + m) / 2` with `w_k = S^-1 (c_k - m)`, where c_k is
    the mean of a class, m that of all examples, and `S = (1 - r) W + r tr(W) / dim I`
    with the covariance W within the classes: the logarithm of the posterior for
    Gaussian classes with equal priors. With r = 1 it is a prototype classifier. The
    default r is the oracle approximating shrinkage (Chen et al. 2010, Eq. 23), which
    needs the second moments alone. With one example per class W is zero, and the
    covariance of all examples takes its place.

    Args:
        sums: class sums with second moments, `class_sums(..., gram=True)`.
        shrinkage: r in [0, 1]; default: from the data.
        scale: a multiplier of all logits, 1 over the temperature.

    Raises:
        ValueError: sums without second moments.

    Example:
        >>> from jaxfer import class_sums, head_logits
        >>> z = jnp.array([[0.0, 0.0], [0.0, 4.0], [1.0, 0.0], [1.0, 4.0]])
        >>> sums = class_sums(z, jnp.array([0, 0, 1, 1]), num_classes=2, gram=True)
        >>> head = lda_head(sums, shrinkage=0.1)
        >>> head_logits(head, jnp.array([[0.2, 9.0], [0.8, -9.0]])).argmax(1).tolist()
        [0, 1]
    """
    covariance, means = shrunk_covariance(sums, shrinkage)
    middle = _mean(sums)
    weight = _solve(covariance, (means - middle[None]).T).T
    bias = -0.5 * jnp.einsum(
        "kd,kd->k", weight, means + middle[None], precision=HIGHEST
    )
    return _linear(sums, scale * weight, scale * bias)


def ridge_head(sums: ClassSums, *, penalty: Number = 1.0, scale: Number = 1.0) -> Head:
    """Ridge regression onto the classes, with an intercept, in closed form.

    `W = (G - N m m^T + penalty tr(V) I)^-1 (T - N m t^T)` for targets of 1 for the
    class of an example and 0 for the others, where G is the second moments, T the class
    sums, m and t the mean embedding and target of the N examples, and `tr(V)` the mean
    squared distance of an example from m, which makes the penalty independent of the
    scale of embeddings.

    Args:
        sums: class sums with second moments, `class_sums(..., gram=True)`.
        penalty: above 0.
        scale: a multiplier of all logits, 1 over the temperature.

    Raises:
        ValueError: sums without second moments.

    Example:
        >>> from jaxfer import class_sums, head_logits
        >>> z = jnp.array([[0.0, 0.0], [0.0, 4.0], [1.0, 0.0], [1.0, 4.0]])
        >>> sums = class_sums(z, jnp.array([0, 0, 1, 1]), num_classes=2, gram=True)
        >>> head = ridge_head(sums, penalty=1e-3)
        >>> head_logits(head, jnp.array([[0.0, 9.0]])).round(1).tolist()
        [[1.0, 0.0]]
    """
    gram = _gram(sums)
    n = jnp.maximum(jnp.sum(sums.count), 1)
    mean, shares = _mean(sums), sums.count / n
    scatter = gram - n * jnp.outer(mean, mean)
    spread = _positive(jnp.trace(scatter) / n)
    towards = sums.total.T - n * jnp.outer(mean, shares)
    weight = _solve(scatter + penalty * spread * jnp.eye(len(mean)), towards).T
    bias = shares - jnp.matmul(weight, mean, precision=HIGHEST)
    return _linear(sums, scale * weight, scale * bias)


def shrunk_covariance(
    sums: ClassSums, shrinkage: Number | None = None
) -> tuple[Float[Array, "dim dim"], Float[Array, "classes dim"]]:
    """The shrunk covariance within classes, and the class means; see `lda_head`.

    Args:
        sums: class sums with second moments.
        shrinkage: see `lda_head`.
    """
    gram, means = _gram(sums), sums_means(sums)
    dim = means.shape[1]
    classes, n = jnp.sum(sums.count > 0), jnp.sum(sums.count)
    # gram - sum_k n_k c_k c_k^T, and gram - n m m^T.
    within = gram - jnp.matmul(sums.total.T, means, precision=HIGHEST)
    mean = _mean(sums)
    whole = gram - n * jnp.outer(mean, mean)
    freedom = n - classes
    several = freedom > 0
    freedom = jnp.maximum(jnp.where(several, freedom, n - 1), 1)
    covariance = jnp.where(several, within, whole) / freedom
    variance = _positive(jnp.trace(covariance) / dim)
    share = shrinkage
    if share is None:
        squares = jnp.sum(covariance * covariance)
        share = shrinkage_of(jnp.trace(covariance), squares, dim, freedom)
    covariance = (1 - share) * covariance + share * variance * jnp.eye(dim)
    return covariance, means


def shrinkage_of(trace: Any, squares: Any, dim: int, n: Any, *, xp: Any = jnp) -> Any:
    """The oracle approximating shrinkage of a covariance (Chen et al. 2010, Eq. 23).

    Args:
        trace: the trace of the covariance.
        squares: the sum of the squares of its entries.
        dim: its number of rows.
        n: the number of examples it was computed from, minus their means.
        xp: the library to compute with, `jax.numpy` or `numpy`.

    Example:
        >>> shrinkage_of(2.0, 2.0, 2, 5, xp=np).item()
        1.0
    """
    top = (1 - 2 / dim) * squares + trace * trace
    bottom = (n + 1 - 2 / dim) * (squares - trace * trace / dim)
    # Below this share, rounding makes the covariance of few examples singular.
    return xp.clip(top / xp.where(bottom > _TINY, bottom, 1.0), 1e-4, 1.0)


def _gram(sums: ClassSums) -> Array:
    if sums.gram is None:
        raise ValueError(
            "expected class sums with second moments, got none: use "
            "class_sums(..., gram=True)"
        )
    return sums.gram


def _mean(sums: ClassSums) -> Array:
    return jnp.sum(sums.total, axis=0) / jnp.maximum(jnp.sum(sums.count), 1)


def _positive(value: Array) -> Array:
    """The value, or 1 where it is not above 0."""
    return jnp.where(value > _TINY, value, 1.0)


def _solve(matrix: Array, right: Array) -> Array:
    return jax.scipy.linalg.solve(matrix, right, assume_a="pos")


def _linear(sums: ClassSums, weight: Array, bias: Array) -> Head:
    return Head(
        weight=weight,
        bias=bias,
        scale=jnp.ones((), weight.dtype),
        owner=seen_classes(sums),
        num_classes=weight.shape[0],
    )
