"""Imprinting: rows set at once from the embeddings of a few examples."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxfer.heads.memory import memory_means, remember, seen_classes
from jaxfer.heads.vectors import HIGHEST, normalize
from jaxfer.types import Head, Memory


def imprint_head(memory: Memory, *, scale: float = 10.0) -> Head:
    """Imprinted weights: the unit mean of unit embeddings, `s <w/|w|, z/|z|>`.

    Qi et al. 2018, section 3.2 (averaging) and Eq. 8 (the scale). A class never seen
    has the logit -inf.

    Args:
        memory: of unit embeddings (`support_memory(..., unit=True)`, or `remember` of
            what `normalize` gives).
        scale: s; trainable afterwards.

    Example:
        >>> from jaxfer import head_logits, support_memory
        >>> examples = jnp.array([[[2.0, 0.0]], [[0.0, 5.0]]])
        >>> memory = support_memory(examples, unit=True)
        >>> head_logits(imprint_head(memory), jnp.array([[7.0, 0.0]])).tolist()
        [[10.0, 0.0]]
    """
    means = normalize(memory_means(memory))
    return Head(
        weight=means,
        bias=jnp.zeros_like(means[:, 0]),
        scale=jnp.asarray(scale, means.dtype),
        owner=seen_classes(memory),
        num_classes=means.shape[0],
        unit=True,
    )


def imprint(
    head: Head, memory: Memory, z: Float[Array, "n dim"], labels: Int[Array, " n"]
) -> tuple[Head, Memory]:
    """More examples of some classes, new ones or known: their rows are set anew.

    `w_k = normalize(sum of z/|z| over all examples of k so far)`, Qi et al. 2018,
    section 4.2. The rows of all other classes keep their bits. Shapes stay, so a
    compiled classifier takes the new head as it is.

    Args:
        head: of `imprint_head` or `cosine_head`, row i that of class i, with empty
            slots (owner -1) where classes are to come. Where each row has its own
            scale, a new class gets the mean of those of the classes there are.
        memory: what the rows of these classes were imprinted from, with as many
            classes as the head; zero where a row was trained.
        z: the examples' embeddings, of any length but zero.
        labels: their classes; -1 leaves an example out, for padding.

    Example:
        >>> empty = Memory(jnp.zeros((4, 2)), jnp.zeros(4))
        >>> head = imprint_head(empty)
        >>> z, labels = jnp.array([[3.0, 0.0], [0.0, 2.0]]), jnp.array([2, 2])
        >>> head, memory = imprint(head, empty, z, labels)
        >>> head.owner.tolist(), memory.count.tolist()
        ([-1, -1, 2, -1], [0.0, 0.0, 2.0, 0.0])
    """
    more = remember(normalize(z), labels, num_classes=head.num_classes)
    touched = more.count > 0
    memory = Memory(memory.total + more.total, memory.count + more.count)
    rows = normalize(memory_means(memory)).astype(head.weight.dtype)
    ids = jnp.arange(head.num_classes, dtype=head.owner.dtype)
    return dataclasses.replace(
        head,
        weight=jnp.where(touched[:, None], rows, head.weight),
        bias=jnp.where(touched, 0, head.bias),
        scale=_scales(head, touched),
        owner=jnp.where(touched, ids, head.owner),
    ), memory


def _scales(head: Head, touched: Bool[Array, " classes"]) -> Float[Array, "*classes"]:
    scale = jnp.asarray(head.scale)
    if not scale.ndim:
        return scale
    known = head.owner >= 0
    mean = jnp.sum(jnp.where(known, scale, 0)) / jnp.maximum(jnp.sum(known), 1)
    return jnp.where(touched & ~known & jnp.any(known), mean, scale)


def proxy_head(
    z: Float[Array, "n dim"],
    labels: Int[Array, " n"],
    *,
    num_classes: int,
    proxies: int,
    scale: float = 10.0,
    pool: Literal["max", "logsumexp"] = "max",
    rounds: int = 10,
) -> Head:
    """Imprinted weights with several rows a class, by k-means on the sphere.

    Each example belongs to the proxy of its class with the highest cosine, each proxy
    is the unit mean of its examples. The first proxy starts from the example nearest
    the mean of its class, each further one from the example farthest from those before,
    so nothing is drawn. With one proxy it is `imprint_head`; a class with fewer
    distinct examples than proxies has as many rows as those.

    Args:
        z: embeddings, of any length but zero.
        labels: their classes; -1 leaves an example out.
        num_classes: how many classes.
        proxies: k, rows of a class.
        scale: s.
        pool: 'max', or 'logsumexp' for a soft aggregation.
        rounds: of k-means.

    Raises:
        ValueError: fewer than one proxy, or less than one round.

    Example:
        >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> proxy_head(z, jnp.array([0, 0, 0]), num_classes=1, proxies=3).weight.shape
        (3, 2)
    """
    if proxies < 1 or rounds < 1:
        raise ValueError(
            f"found {proxies} proxies and {rounds} rounds, needed at least one of each"
        )
    z = normalize(z)
    labels = jnp.where((labels < 0) | (labels >= num_classes), num_classes, labels)

    def cosines(rows: Float[Array, "classes k dim"]) -> Float[Array, "n k"]:
        # Each example against the rows of its own class; those left out meet zeros.
        own = jnp.concatenate([rows, jnp.zeros_like(rows[:1])])[labels]
        return jnp.einsum("nd,nkd->nk", z, own, precision=HIGHEST)

    def chosen(score: Float[Array, " n"]) -> tuple[Array, Array]:
        # The highest score of each class, and the first example that has it.
        best = jax.ops.segment_max(score, labels, num_classes + 1)
        place = jnp.arange(z.shape[0], dtype=jnp.int32)
        is_best = score == best[labels]
        first = jax.ops.segment_min(
            jnp.where(is_best, place, z.shape[0]), labels, num_classes + 1
        )
        return best[:-1], jnp.minimum(first[:-1], z.shape[0] - 1)

    memory = remember(z, labels, num_classes=num_classes)
    there = memory.count > 0
    mean = normalize(memory_means(memory))
    _, first = chosen(cosines(mean[:, None])[:, 0])
    rows, used = [z[first]], [there]
    for _ in range(proxies - 1):
        nearest = cosines(jnp.stack(rows, axis=1)).max(axis=1)
        far, which = chosen(-nearest)
        rows.append(z[which])
        # An example that is there already makes no new proxy.
        used.append(there & (far > -1 + 1e-6))
    seen, start = jnp.stack(used, axis=1), jnp.stack(rows, axis=1)

    def round_of(_: Int[Array, ""], rows: Array) -> Array:
        score = cosines(rows)
        open_ = jnp.concatenate([seen, jnp.ones_like(seen[:1])])[labels]
        mine = jnp.argmax(jnp.where(open_, score, -jnp.inf), axis=1)
        slot = jnp.where(labels < num_classes, labels * proxies + mine, -1)
        members = remember(z, slot, num_classes=num_classes * proxies)
        means = normalize(memory_means(members)).reshape(rows.shape)
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
