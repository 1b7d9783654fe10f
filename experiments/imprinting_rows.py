"""The rows of the paper's tables that need no training, as heads on embeddings."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfer import heads
from jaxfer.types import Head, Memory

# Embeddings whose logits are held at a time: each exemplar may be a row of its own.
_BLOCK = 1000

_imprint = jax.jit(heads.imprint)


def metric_heads(z: Array, shots: Sequence[int]) -> Iterator[tuple[str, int, Head]]:
    """Classifiers of novel classes alone: their means, or all their examples.

    Args:
        z: `[novel, most, dim]`, embeddings of the examples, nested.
        shots: the values of n.

    Yields:
        Row, n and head.
    """
    novel, _, dim = z.shape
    for n in shots:
        own = jnp.repeat(jnp.arange(novel, dtype=jnp.int32), n)
        yield (
            "average",
            n,
            heads.imprint_head(heads.support_memory(z[:, :n], unit=True)),
        )
        flat = z[:, :n].reshape(-1, dim)
        nearest = heads.nearest_head(flat, own, num_classes=novel, distance="cosine")
        yield "nearest", n, nearest


def with_examples(
    known: Head,
    drawn: Head,
    z: Array,
    moved: Array,
    shots: Sequence[int],
    *,
    alone: bool,
) -> Iterator[tuple[str, int, Head]]:
    """Classifiers of all classes, those of the base ones as they are, or of novel ones.

    Args:
        known: trained on base classes.
        drawn: of all those classes; its last rows stand for novel ones.
        z: `[novel, most, dim]`, embeddings of the examples, nested.
        moved: `[novel, most, copies, dim]`, of augmented copies of them.
        shots: the values of n.
        alone: whether novel classes are all that there is (Table 3).

    Yields:
        Row, n and head.
    """
    novel, _, copies, _ = moved.shape
    blank = with_novel(known, drawn, alone=alone)
    first = 0 if alone else known.num_classes
    for n in shots:
        own = first + jnp.repeat(jnp.arange(novel, dtype=jnp.int32), n)
        yield "rand_noft", n, blank
        yield "imprinting", n, imprinted(blank, z[:, :n], own)
        many = jnp.repeat(own, copies)
        yield "imprinting_aug", n, imprinted(blank, moved[:, :n], many)
        if not alone:
            yield "nearest", n, exemplars(known, z[:, :n])


def imprinted(head: Head, z: Array, labels: Array) -> Head:
    """A head some classes of which are imprinted, in place of the rows they had."""
    rows = jnp.zeros_like(head.weight)
    flat = z.reshape(-1, z.shape[-1])
    return _imprint(head, Memory(rows, rows[:, 0]), flat, labels)[0]


def with_novel(known: Head, drawn: Head, *, alone: bool = False) -> Head:
    """A trained head with the last rows of a drawn one, or these alone."""
    novel = drawn.num_classes - (0 if alone else known.num_classes)
    weight = drawn.weight[-novel:]
    scale = known.scale
    if scale.ndim:
        scale = jnp.full((novel,), scale.mean())
    if not alone:
        weight = jnp.concatenate([known.weight, weight])
        scale = jnp.concatenate([known.scale, scale]) if scale.ndim else scale
    return dataclasses.replace(
        drawn,
        weight=weight,
        bias=jnp.zeros_like(weight[:, 0]),
        scale=scale,
        owner=jnp.arange(len(weight), dtype=jnp.int32),
        num_classes=len(weight),
    )


def exemplars(known: Head, z: Array) -> Head:
    """The rows of known classes, and each novel example as a row of its class."""
    novel, n, dim = z.shape
    own = known.num_classes + jnp.repeat(jnp.arange(novel, dtype=jnp.int32), n)
    weight = jnp.concatenate([known.weight, z.reshape(-1, dim)])
    scale = known.scale
    if scale.ndim:
        scale = jnp.concatenate([scale, jnp.full((novel * n,), scale.mean())])
    return dataclasses.replace(
        known,
        weight=weight,
        bias=jnp.zeros_like(weight[:, 0]),
        scale=scale,
        owner=jnp.concatenate([known.owner, own]),
        num_classes=known.num_classes + novel,
        pool="max",
    )


def predict(head: Head, z: Array) -> np.ndarray:
    """The class of each embedding."""
    blocks = [
        _nearest(head, z[start : start + _BLOCK]) for start in range(0, len(z), _BLOCK)
    ]
    return np.concatenate(jax.device_get(blocks))


@jax.jit
def _nearest(head: Head, z: Array) -> Array:
    return heads.head_logits(head, z).argmax(axis=1)
