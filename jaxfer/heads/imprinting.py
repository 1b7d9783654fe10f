"""Imprinting: rows computed from the embeddings of a few examples."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxfer.heads.rows import mean_scale
from jaxfer.heads.sums import check_labelled, class_sums, seen_classes, sums_means
from jaxfer.heads.vectors import HIGHEST, normalize
from jaxfer.types import AnyArray, ClassSums, Head


def imprint_head(sums: ClassSums, *, scale: float | Float[Array, ""] = 10.0) -> Head:
    """Imprinted weights: the unit mean of unit embeddings, `s <w/|w|, z/|z|>`.

    Qi et al. 2018, section 3.2 (averaging) and Eq. 8 (the scale). A class without
    examples has the logit -inf.

    Args:
        sums: class sums of unit embeddings: `support_sums(..., unit=True)`, or
            `class_sums` of the output of `normalize`.
        scale: s; it can be trained afterwards.

    Example:
        >>> from jaxfer import head_logits, support_sums
        >>> examples = jnp.array([[[2.0, 0.0]], [[0.0, 5.0]]])
        >>> sums = support_sums(examples, unit=True)
        >>> head_logits(imprint_head(sums), jnp.array([[7.0, 0.0]])).tolist()
        [[10.0, 0.0]]
    """
    means = normalize(sums_means(sums))
    return Head(
        weight=means,
        bias=jnp.zeros_like(means[:, 0]),
        scale=jnp.asarray(scale, means.dtype),
        owner=seen_classes(sums),
        num_classes=means.shape[0],
        unit=True,
    )


def imprint(
    head: Head, sums: ClassSums, z: Float[Array, "n dim"], labels: Int[AnyArray, " n"]
) -> tuple[Head, ClassSums]:
    """Set the rows of some classes, new or known, from all their examples so far.

    `w_k = normalize(sum of z/|z| over all examples of k)`, Qi et al. 2018, section 4.2.
    The rows of all other classes stay bit-identical. Shapes do not change, so a
    compiled classifier accepts the new head.

    Args:
        head: a head, made by `imprint_head` or `cosine_head`, in which row i belongs to
            class i, with empty slots (owner -1) for new classes. If each row has its
            own scale, a new class gets the mean scale of the classes in use.
        sums: the class sums that the rows were imprinted from, with as many classes as
            the head; zero where a row was trained.
        z: `[n, dim]`, the examples, of any length except zero.
        labels: `[n]`, their classes; an example with label -1 is ignored (padding).

    Returns:
        The head with the new rows, and the sums with the new examples.

    Raises:
        ValueError: a head with several rows per class, arrays of other shapes than the
            rows, or arguments that `class_sums` refuses.

    Example:
        >>> empty = ClassSums(jnp.zeros((4, 2)), jnp.zeros(4))
        >>> head = imprint_head(empty)
        >>> z, labels = jnp.array([[3.0, 0.0], [0.0, 2.0]]), jnp.array([2, 2])
        >>> head, sums = imprint(head, empty, z, labels)
        >>> head.owner.tolist(), sums.count.tolist()
        ([-1, -1, 2, -1], [0.0, 0.0, 2.0, 0.0])
    """
    if head.pool is not None or head.weight.shape[0] != head.num_classes:
        raise ValueError(
            "expected a head with one row per class (pool = None), got "
            f"{head.weight.shape[0]} rows of {head.num_classes} classes and pool = "
            f"{head.pool!r}"
        )
    if z.shape[1:] != head.weight.shape[1:] or sums.total.shape != head.weight.shape:
        raise ValueError(
            f"expected embeddings [n, {head.weight.shape[1]}] and sums of shape "
            f"{head.weight.shape} as the rows of the head, got {z.shape} and "
            f"{sums.total.shape}"
        )
    more = class_sums(normalize(z), labels, num_classes=head.num_classes)
    sums = ClassSums(sums.total + more.total, sums.count + more.count)
    rows = normalize(sums_means(sums))
    return set_rows(head, rows, more.count > 0), sums


def set_rows(
    head: Head, rows: Float[Array, "classes dim"], where: Bool[Array, " classes"]
) -> Head:
    """Replace the rows of some classes, and set their biases to 0.

    If each row has its own scale, a new class gets the mean scale of the others.

    Args:
        head: a head with one row per class.
        rows: `[classes, dim]`, the new rows; those of the other classes are ignored.
        where: `[classes]`, the classes that get new rows.
    """
    scale = jnp.asarray(head.scale)
    if scale.ndim:
        new = where & (head.owner < 0)
        scale = jnp.where(new & jnp.any(head.owner >= 0), mean_scale(head), scale)
    ids = jnp.arange(head.num_classes, dtype=head.owner.dtype)
    return dataclasses.replace(
        head,
        weight=jnp.where(where[:, None], rows.astype(head.weight.dtype), head.weight),
        bias=jnp.where(where, 0, head.bias),
        scale=scale,
        owner=jnp.where(where, ids, head.owner),
    )


def proxy_head(
    z: Float[Array, "n dim"],
    labels: Int[AnyArray, " n"],
    *,
    num_classes: int,
    proxies: int,
    scale: float = 10.0,
    pool: Literal["max", "logsumexp"] = "max",
    rounds: int = 10,
) -> Head:
    """Imprinted weights with several rows per class, by k-means on the sphere.

    Each example belongs to the proxy of its class with the highest cosine; each proxy
    is the unit mean of its examples. The first proxy starts from the example nearest
    the mean of its class, each further one from the example farthest from those before,
    so the result is deterministic. With one proxy it equals `imprint_head`; a class
    with fewer distinct examples than proxies has one row per distinct example.

    Args:
        z: `[n, dim]`, embeddings of any length except zero.
        labels: `[n]`, their classes; an example with label -1 is ignored.
        num_classes: the number of classes.
        proxies: k, the number of rows per class.
        scale: s.
        pool: 'max', or 'logsumexp' for a soft aggregation.
        rounds: the number of k-means iterations.

    Raises:
        ValueError: no example, fewer than one proxy or one round, an unknown pool, or
            arguments that `class_sums` refuses.

    Example:
        >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> proxy_head(z, jnp.array([0, 0, 0]), num_classes=1, proxies=3).weight.shape
        (3, 2)
    """
    if proxies < 1 or rounds < 1:
        raise ValueError(
            f"expected at least 1 proxy and 1 round, got {proxies} and {rounds}"
        )
    if pool not in ("max", "logsumexp"):
        raise ValueError(f"expected pool 'max' or 'logsumexp', got {pool!r}")
    labels = check_labelled(z, labels, num_classes)
    if not z.shape[0]:
        raise ValueError(f"expected at least 1 example, got shape {z.shape}")
    z = normalize(z)
    labels = jnp.where((labels < 0) | (labels >= num_classes), num_classes, labels)

    def cosines(rows: Float[Array, "classes k dim"]) -> Float[Array, "n k"]:
        # Compare each example with the rows of its class; ignored ones with zeros.
        own = jnp.concatenate([rows, jnp.zeros_like(rows[:1])])[labels]
        return jnp.einsum("nd,nkd->nk", z, own, precision=HIGHEST)

    def chosen(score: Float[Array, " n"]) -> tuple[Array, Array]:
        # Return the highest score of each class, and the first example that has it.
        best = jax.ops.segment_max(score, labels, num_classes + 1)
        place = jnp.arange(z.shape[0], dtype=jnp.int32)
        is_best = score == best[labels]
        first = jax.ops.segment_min(
            jnp.where(is_best, place, z.shape[0]), labels, num_classes + 1
        )
        return best[:-1], jnp.minimum(first[:-1], z.shape[0] - 1)

    sums = class_sums(z, labels, num_classes=num_classes)
    there = sums.count > 0
    mean = normalize(sums_means(sums))
    _, first = chosen(cosines(mean[:, None])[:, 0])
    rows, used = [z[first]], [there]
    for _ in range(proxies - 1):
        nearest = cosines(jnp.stack(rows, axis=1)).max(axis=1)
        far, which = chosen(-nearest)
        rows.append(z[which])
        # An example that equals an earlier proxy does not make a new one.
        used.append(there & (far > -1 + 1e-6))
    seen, start = jnp.stack(used, axis=1), jnp.stack(rows, axis=1)

    def round_of(_: Int[Array, ""], rows: Array) -> Array:
        score = cosines(rows)
        open_ = jnp.concatenate([seen, jnp.ones_like(seen[:1])])[labels]
        mine = jnp.argmax(jnp.where(open_, score, -jnp.inf), axis=1)
        slot = jnp.where(labels < num_classes, labels * proxies + mine, -1)
        members = class_sums(z, slot, num_classes=num_classes * proxies)
        means = normalize(sums_means(members)).reshape(rows.shape)
        kept = (members.count > 0).reshape(seen.shape)
        return jnp.where(kept[..., None], means, rows)

    weight = jax.lax.fori_loop(0, rounds, round_of, start).reshape(-1, z.shape[1])
    ids = jnp.arange(num_classes, dtype=jnp.int32)[:, None]
    return Head(
        weight=weight,
        bias=jnp.zeros_like(weight[:, 0]),
        scale=jnp.asarray(scale, weight.dtype),
        owner=jnp.where(seen, ids, -1).reshape(-1),
        num_classes=num_classes,
        unit=True,
        pool=pool,
    )
