"""Heads whose rows are prototypes, examples, or trainable weights."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxfer.heads.sums import check_labelled, seen_classes, sums_means
from jaxfer.heads.vectors import mean_row, wide
from jaxfer.keys import stable_draws
from jaxfer.types import AnyArray, ClassSums, Head

Distance = Literal["sqeuclidean", "cosine"]


def _template_head(
    rows: Float[Array, "m dim"],
    owner: Int[Array, " m"],
    *,
    num_classes: int,
    distance: Distance,
    pool: Literal["max", "logsumexp"] | None,
    temperature: float | Float[Array, ""] = 1.0,
) -> Head:
    """The head that scores embeddings by their distance to rows, in either form."""
    if distance not in ("sqeuclidean", "cosine"):
        raise ValueError(
            f"expected distance 'sqeuclidean' or 'cosine', got {distance!r}"
        )
    rows = wide(rows)
    euclidean = distance == "sqeuclidean"
    return Head(
        weight=rows,
        bias=jnp.zeros_like(rows[:, 0]),
        scale=1 / jnp.asarray(temperature, rows.dtype),
        owner=owner.astype(jnp.int32),
        num_classes=num_classes,
        unit=not euclidean,
        pool=pool,
        centre=mean_row(rows, owner >= 0) if euclidean else None,
    )


def prototype_head(
    sums: ClassSums,
    *,
    distance: Distance = "sqeuclidean",
    temperature: float | Float[Array, ""] = 1.0,
) -> Head:
    """The prototype classifier, `p(k | z) = softmax_k(-d(z, c_k) / T)`.

    Snell et al. 2017, Eq. 2, where T is 1. For the squared Euclidean distance the
    logits are the negative distances plus `|z - m|^2`, the same for all classes, over
    T; m is the mean of the prototypes. With T = 1 and m = 0 this is the linear
    classifier of their Eq. 8, `w_k = 2 c_k` and `b_k = -c_k . c_k`, which is inaccurate
    where embeddings are far from the origin. 'cosine' is `1 - cos`, as in their Figure
    2; T = 0.1 gives the cosine classifier with scale 10. A class without examples has
    the logit -inf.

    Args:
        sums: class sums of raw embeddings.
        distance: 'sqeuclidean' or 'cosine'.
        temperature: T, above 0; it may be traced. The scale of the head is 1 / T.

    Raises:
        ValueError: an unknown distance.

    Example:
        >>> from jaxfer import head_logits, support_sums
        >>> head = prototype_head(support_sums(jnp.array([[[0.0]], [[1.0]]])))
        >>> head_logits(head, jnp.array([[0.9]])).argmax().item()
        1
    """
    means = sums_means(sums)
    return _template_head(
        means,
        seen_classes(sums),
        num_classes=means.shape[0],
        distance=distance,
        pool=None,
        temperature=temperature,
    )


def matching_head(
    z: Float[Array, "n dim"],
    labels: Int[AnyArray, " n"],
    *,
    num_classes: int,
    distance: Distance = "cosine",
    temperature: float | Float[Array, ""] = 1.0,
) -> Head:
    """Attention over the support points, `p(k | z) = sum over S_k of softmax(-d / T)`.

    Matching networks without full context embeddings, as re-implemented for the
    comparison of Snell et al. 2017, section 2.6. With one shot it is the prototype
    head.

    Args:
        z: `[n, dim]`, support embeddings.
        labels: `[n]`, their classes; an example with label -1 is ignored.
        num_classes: the number of classes.
        distance: 'cosine' or 'sqeuclidean'.
        temperature: T, above 0; it may be traced.

    Raises:
        ValueError: an unknown distance, or arguments that `class_sums` refuses.

    Example:
        >>> from jaxfer import head_logits
        >>> z, labels = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1])
        >>> head_logits(matching_head(z, labels, num_classes=2), z).argmax(1).tolist()
        [0, 1]
    """
    owner = check_labelled(z, labels, num_classes)
    return _template_head(
        z,
        owner,
        num_classes=num_classes,
        distance=distance,
        pool="logsumexp",
        temperature=temperature,
    )


def nearest_head(
    z: Float[Array, "n dim"],
    labels: Int[AnyArray, " n"],
    *,
    num_classes: int,
    distance: Distance = "sqeuclidean",
) -> Head:
    """Nearest neighbour: the score of a class is that of its nearest support point.

    Args:
        z: `[n, dim]`, support embeddings (or flat pixels, for the simplest baseline).
        labels: `[n]`, their classes; an example with label -1 is ignored.
        num_classes: the number of classes.
        distance: 'sqeuclidean' or 'cosine'.

    Raises:
        ValueError: an unknown distance, or arguments that `class_sums` refuses.

    Example:
        >>> from jaxfer import head_logits
        >>> z, labels = jnp.array([[0.0], [9.0], [1.0]]), jnp.array([0, 0, 1])
        >>> head = nearest_head(z, labels, num_classes=2)
        >>> head_logits(head, jnp.array([[8.0]])).argmax().item()
        0
    """
    owner = check_labelled(z, labels, num_classes)
    return _template_head(
        z, owner, num_classes=num_classes, distance=distance, pool="max"
    )


def linear_head(key: PRNGKeyArray, dim: int, num_classes: int) -> Head:
    """A linear classifier to train: Xavier uniform weights, zero biases.

    Args:
        key: the random key of the weights.
        dim: the dimension of the embeddings.
        num_classes: the number of rows.

    Raises:
        ValueError: a dimension or a number of classes below 1.

    Example:
        >>> linear_head(jax.random.key(0), 64, 10).weight.shape
        (10, 64)
    """
    if dim < 1 or num_classes < 1:
        raise ValueError(
            f"expected dim and num_classes of at least 1, got {dim} and {num_classes}"
        )
    init = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)
    with stable_draws():
        weight = init(key, (num_classes, dim), jnp.float32)
    return Head(
        weight=weight,
        bias=jnp.zeros((num_classes,), jnp.float32),
        scale=jnp.ones((), jnp.float32),
        owner=jnp.arange(num_classes, dtype=jnp.int32),
        num_classes=num_classes,
    )


def cosine_head(
    key: PRNGKeyArray, dim: int, num_classes: int, *, scale: float = 10.0
) -> Head:
    """A cosine classifier to train, `s <w_k/|w_k|, z/|z|>`: Xavier uniform rows.

    Qi et al. 2018, section 4.1: unit rows and embeddings, no bias, a trainable scale.
    Rows are normalised whenever they are used, so their length has no effect and their
    gradient is tangent to the sphere.

    Args:
        key: the random key of the rows.
        dim: the dimension of the embeddings.
        num_classes: the number of rows.
        scale: s before training; the paper does not state it, later work uses 10.

    Raises:
        ValueError: a dimension or a number of classes below 1.

    Example:
        >>> cosine_head(jax.random.key(0), 64, 10).scale.item()
        10.0
    """
    return dataclasses.replace(
        linear_head(key, dim, num_classes),
        scale=jnp.asarray(scale, jnp.float32),
        unit=True,
    )
