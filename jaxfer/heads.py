"""Heads: prototypes, imprinted weights, matching, nearest neighbour, linear.

All are rows of templates on an embedding, so one `Head` and one `head_logits` serve
them all. Functions take one episode (or one batch of one classifier); `jax.vmap` gives
many. Scores are computed in float32 or wider, at the highest matmul precision, since a
squared distance in matrix form is a small difference of large numbers.
"""

from typing import Literal

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from jaxfer.types import Head, Memory

Distance = Literal["sqeuclidean", "cosine"]
_HIGHEST = jax.lax.Precision.HIGHEST


def _wide(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))


def normalize(z: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Embeddings scaled to length 1, `z / |z|`.

    A zero embedding, or one shorter than 1e-12, becomes zero, with a zero gradient.

    Example:
        >>> normalize(jnp.array([3.0, 4.0])).round(3).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    z = _wide(z)
    squared = jnp.sum(z * z, axis=-1, keepdims=True)
    long = squared > 1e-24
    # The inner where keeps what the outer one leaves out from giving NaN gradients.
    return jnp.where(long, z * jax.lax.rsqrt(jnp.where(long, squared, 1)), 0)


def squared_euclidean(
    a: Float[Array, "n dim"], b: Float[Array, "m dim"]
) -> Float[Array, "n m"]:
    """Squared Euclidean distances, `|a|^2 - 2 <a, b> + |b|^2`.

    Snell et al. 2017, section 2.7: the Bregman divergence under which the class mean
    is the right representative. In matrix form, whose absolute error is near float32's
    epsilon times the squared norms; a distance smaller than that may come out slightly
    negative.

    Args:
        a: one embedding a row.
        b: one embedding a row.

    Example:
        >>> squared_euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).item()
        25.0
    """
    chex.assert_rank([a, b], 2)
    a, b = _wide(a), _wide(b)
    inner = jnp.matmul(a, b.T, precision=_HIGHEST)
    return jnp.sum(a * a, 1)[:, None] - 2 * inner + jnp.sum(b * b, 1)[None, :]


def cosine_distance(
    a: Float[Array, "n dim"], b: Float[Array, "m dim"]
) -> Float[Array, "n m"]:
    """Cosine distances, `1 - <a, b> / (|a| |b|)`, from 0 to 2.

    Example:
        >>> cosine_distance(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])).item()
        1.0
    """
    chex.assert_rank([a, b], 2)
    return 1 - jnp.matmul(normalize(a), normalize(b).T, precision=_HIGHEST)


def remember(
    z: Float[Array, "n dim"], labels: Int[Array, " n"], *, num_classes: int
) -> Memory:
    """The memory of labelled embeddings: their sum and number in each class.

    Two memories add up: `jax.tree.map(jnp.add, memory, more)` is the memory of both.

    Args:
        z: one embedding a row, raw or unit as the head will need.
        labels: their classes, 0 to `num_classes` - 1, in any order; a class may be
            absent, and a label outside the range is not counted.
        num_classes: how many classes the memory has room for.

    Example:
        >>> z = jnp.array([[1.0], [3.0], [5.0]])
        >>> remember(z, jnp.array([0, 0, 2]), num_classes=3).count.tolist()
        [2.0, 0.0, 1.0]
    """
    chex.assert_rank([z, labels], [2, 1])
    z = _wide(z)
    # A negative label would count from the end; one past the end is dropped.
    labels = jnp.where(labels < 0, num_classes, labels)
    total = jax.ops.segment_sum(z, labels, num_classes)
    count = jax.ops.segment_sum(jnp.ones_like(z[:, 0]), labels, num_classes)
    return Memory(total, count)


def support_memory(support: Float[Array, "way shot dim"]) -> Memory:
    """The memory of an episode's support set, whose classes are its rows.

    Example:
        >>> support_memory(jnp.ones((5, 2, 3))).count.tolist()
        [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    chex.assert_rank(support, 3)
    support = _wide(support)
    way, shot, _ = support.shape
    return Memory(support.sum(axis=1), jnp.full((way,), shot, support.dtype))


def memory_means(memory: Memory) -> Float[Array, "classes dim"]:
    """The mean embedding of each class; zero for a class never seen.

    Example:
        >>> memory_means(Memory(jnp.array([[4.0], [0.0]]), jnp.array([2.0, 0.0])))
        Array([[2.],
               [0.]], dtype=float32)
    """
    return memory.total / jnp.maximum(memory.count, 1)[:, None]


def class_means(
    z: Float[Array, "n dim"], labels: Int[Array, " n"], *, num_classes: int
) -> Float[Array, "num_classes dim"]:
    """The prototypes, `c_k = 1/|S_k| sum over S_k of f(x)`.

    Snell et al. 2017, Eq. 1. A class with no example has the mean zero.

    Example:
        >>> z = jnp.array([[1.0], [3.0], [5.0]])
        >>> class_means(z, jnp.array([0, 0, 1]), num_classes=2).tolist()
        [[2.0], [5.0]]
    """
    return memory_means(remember(z, labels, num_classes=num_classes))


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
    rows = _wide(rows)
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


def _seen(memory: Memory) -> Int[Array, " classes"]:
    ids = jnp.arange(memory.count.shape[0], dtype=jnp.int32)
    return jnp.where(memory.count > 0, ids, -1)


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
        >>> head = prototype_head(support_memory(jnp.array([[[0.0]], [[1.0]]])))
        >>> head_logits(head, jnp.array([[0.9]])).argmax().item()
        1
    """
    means = memory_means(memory)
    return _template_head(
        means,
        _seen(memory),
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
        >>> z, labels = jnp.array([[0.0], [9.0], [1.0]]), jnp.array([0, 0, 1])
        >>> head = nearest_head(z, labels, num_classes=2)
        >>> head_logits(head, jnp.array([[8.0]])).argmax().item()
        0
    """
    return _template_head(
        z, labels, num_classes=num_classes, distance=distance, pool="max"
    )


def imprint_head(memory: Memory, *, scale: float = 10.0) -> Head:
    """Imprinted weights: the unit mean of unit embeddings, `s <w/|w|, z/|z|>`.

    Qi et al. 2018, section 3.2 (averaging) and Eq. 8 (the scale). A class never seen
    has the logit -inf.

    Args:
        memory: of unit embeddings (see `normalize`).
        scale: s; trainable afterwards.

    Example:
        >>> memory = support_memory(normalize(jnp.array([[[2.0, 0.0]], [[0.0, 5.0]]])))
        >>> head_logits(imprint_head(memory), jnp.array([[7.0, 0.0]])).tolist()
        [[10.0, 0.0]]
    """
    means = normalize(memory_means(memory))
    return Head(
        weight=means,
        bias=jnp.zeros_like(means[:, 0]),
        scale=jnp.asarray(scale, means.dtype),
        owner=_seen(memory),
        num_classes=means.shape[0],
        unit=True,
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


def head_logits(
    head: Head, z: Float[Array, "*batch dim"]
) -> Float[Array, "*batch classes"]:
    """The logits of a head: scores of its rows, pooled by class.

    `score_i = scale_i <w_i, z> + b_i` (with w_i and z at length 1 if `head.unit`); the
    logit of class k is the max or the log-sum-exp of the scores of its rows, and -inf
    where it has none.

    Args:
        head: the templates.
        z: embeddings; leading axes are free.

    Raises:
        AssertionError: embeddings of another dimension than the templates.

    Example:
        >>> head = linear_head(jax.random.key(0), 64, 10)
        >>> head_logits(head, jnp.zeros((5, 3, 64))).shape
        (5, 3, 10)
    """
    chex.assert_equal(z.shape[-1], head.weight.shape[-1])
    weight = normalize(head.weight) if head.unit else head.weight
    z = normalize(z) if head.unit else _wide(z)
    inner = jnp.matmul(z, weight.T, precision=_HIGHEST)
    scale, bias, seen = (
        jnp.broadcast_to(x, inner.shape)
        for x in (head.scale, head.bias, head.owner >= 0)
    )
    scores = jnp.where(seen, scale * inner + bias, -jnp.inf)
    if head.pool is None:
        return scores
    return _pool(scores, head)


def _pool(
    scores: Shaped[Array, "*batch m"], head: Head
) -> Shaped[Array, "*batch classes"]:
    owner = jnp.where(head.owner < 0, head.num_classes, head.owner)
    rows = jnp.moveaxis(scores, -1, 0)
    top = jax.ops.segment_max(rows, owner, head.num_classes)
    if head.pool == "logsumexp":
        # A class without rows, or with empty ones only, has the maximum -inf.
        shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
        padded = jnp.concatenate([shift, jnp.zeros_like(shift[:1])])
        summed = jax.ops.segment_sum(
            jnp.exp(rows - padded[owner]), owner, head.num_classes
        )
        some = summed > 0
        top = jnp.where(some, jnp.log(jnp.where(some, summed, 1)) + shift, -jnp.inf)
    return jnp.moveaxis(top, 0, -1)
