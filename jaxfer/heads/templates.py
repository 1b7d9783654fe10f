"""Heads by what their rows are: prototypes, examples, or rows to train."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxfer.heads.memory import memory_means, seen_classes
from jaxfer.heads.vectors import wide
from jaxfer.types import Head, Memory

Distance = Literal["sqeuclidean", "cosine"]


def _template_head(
    rows: Float[Array, "m dim"],
    owner: Int[Array, " m"],
    *,
    num_classes: int,
    distance: Distance,
    pool: Literal["max", "logsumexp"] | None,
) -> Head:
    """The head that scores by nearness to rows: the one place that knows both forms.

    -|z - c|^2 is 2 <c, z> - |c|^2 less |z|^2, which all classes share.
    """
    if distance not in ("sqeuclidean", "cosine"):
        raise ValueError(
            f"unknown distance {distance!r}: needed 'sqeuclidean' or 'cosine'"
        )
    rows = wide(rows)
    euclidean = distance == "sqeuclidean"
    squared = jnp.sum(rows * rows, axis=1)
    return Head(
        weight=2 * rows if euclidean else rows,
        bias=-squared if euclidean else jnp.zeros_like(squared),
        scale=jnp.ones((), rows.dtype),
        owner=owner.astype(jnp.int32),
        num_classes=num_classes,
        unit=not euclidean,
        pool=pool,
    )


def prototype_head(memory: Memory, *, distance: Distance = "sqeuclidean") -> Head:
    """The prototype classifier, `p(k | z) = softmax_k(-d(z, c_k))`.

    Snell et al. 2017, Eq. 2; for the squared Euclidean distance it is linear, with
    `w_k = 2 c_k` and `b_k = -c_k . c_k` (their Eq. 8), and the logits are the negative
    distances plus `|z|^2`, a constant of the query. 'cosine' is `1 - cos` with no
    scale, as in their Figure 2. A class never seen has the logit -inf.

    Args:
        memory: of raw embeddings.
        distance: 'sqeuclidean' or 'cosine'.

    Raises:
        ValueError: an unknown distance.

    Example:
        >>> from jaxfer import head_logits, support_memory
        >>> head = prototype_head(support_memory(jnp.array([[[0.0]], [[1.0]]])))
        >>> head_logits(head, jnp.array([[0.9]])).argmax().item()
        1
    """
    means = memory_means(memory)
    return _template_head(
        means,
        seen_classes(memory),
        num_classes=means.shape[0],
        distance=distance,
        pool=None,
    )


def matching_head(
    z: Float[Array, "n dim"],
    labels: Int[Array, " n"],
    *,
    num_classes: int,
    distance: Distance = "cosine",
) -> Head:
    """Attention over the support points, `p(k | z) = sum over S_k of softmax(-d)`.

    Matching networks without full context embeddings, as re-implemented for the
    comparison of Snell et al. 2017, section 2.6. With one shot it is the prototype
    head.

    Args:
        z: support embeddings.
        labels: their classes.
        num_classes: how many classes there are.
        distance: 'cosine' or 'sqeuclidean'.

    Example:
        >>> from jaxfer import head_logits
        >>> z, labels = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1])
        >>> head_logits(matching_head(z, labels, num_classes=2), z).argmax(1).tolist()
        [0, 1]
    """
    return _template_head(
        z, labels, num_classes=num_classes, distance=distance, pool="logsumexp"
    )


def nearest_head(
    z: Float[Array, "n dim"],
    labels: Int[Array, " n"],
    *,
    num_classes: int,
    distance: Distance = "sqeuclidean",
) -> Head:
    """Nearest neighbour: a class scores as its nearest support point does.

    Args:
        z: support embeddings (or flat pixels, for the plainest baseline).
        labels: their classes.
        num_classes: how many classes there are.
        distance: 'sqeuclidean' or 'cosine'.

    Example:
        >>> from jaxfer import head_logits
        >>> z, labels = jnp.array([[0.0], [9.0], [1.0]]), jnp.array([0, 0, 1])
        >>> head = nearest_head(z, labels, num_classes=2)
        >>> head_logits(head, jnp.array([[8.0]])).argmax().item()
        0
    """
    return _template_head(
        z, labels, num_classes=num_classes, distance=distance, pool="max"
    )


def linear_head(key: PRNGKeyArray, dim: int, num_classes: int) -> Head:
    """A linear classifier to train: Xavier uniform weights, zero biases.

    Example:
        >>> linear_head(jax.random.key(0), 64, 10).weight.shape
        (10, 64)
    """
    init = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)
    return Head(
        weight=init(key, (num_classes, dim), jnp.float32),
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
    Rows are normalised whenever they are used, so their length means nothing, and a
    gradient is tangent to the sphere.

    Args:
        key: draws the rows.
        dim: of the embeddings.
        num_classes: how many rows.
        scale: s, in the paper trained from an unstated start; 10 in later work.

    Example:
        >>> cosine_head(jax.random.key(0), 64, 10).scale.item()
        10.0
    """
    return dataclasses.replace(
        linear_head(key, dim, num_classes),
        scale=jnp.asarray(scale, jnp.float32),
        unit=True,
    )
