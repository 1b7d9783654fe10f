"""The rows of the paper's tables that need no training, as heads on embeddings."""

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfer import heads
from jaxfer.compilation import jit
from jaxfer.types import ClassSums, Head

_imprint = jit(heads.imprint)


def metric_heads(z: Array, owners: np.ndarray) -> Iterator[tuple[str, Head]]:
    """Classifiers of novel classes alone: their means, or all their examples.

    Args:
        z: `[novel, n, dim]`, embeddings of the examples.
        owners: `[novel, n]`, the class of each, from 0; -1 for no example.

    Yields:
        The row and its head.
    """
    flat, own = z.reshape(-1, z.shape[-1]), jnp.asarray(owners.reshape(-1))
    sums = heads.class_sums(heads.normalize(flat), own, num_classes=len(z))
    yield "average", heads.imprint_head(sums)
    yield (
        "nearest",
        heads.nearest_head(flat, own, num_classes=len(z), distance="cosine"),
    )


def heads_with_novel(
    known: Head,
    drawn: Array,
    z: Array,
    moved: Array,
    owners: np.ndarray,
    *,
    alone: bool,
) -> Iterator[tuple[str, Head]]:
    """Classifiers of all classes, those of the base ones as they are, or of novel ones.

    Args:
        known: trained on base classes.
        drawn: `[novel, dim]`, random rows for novel classes.
        z: `[novel, n, dim]`, embeddings of the examples.
        moved: `[novel, n, copies, dim]`, of augmented copies of them.
        owners: `[novel, n]`, the class of each example; -1 for no example.
        alone: whether the head has novel classes only (Table 3).

    Yields:
        The row and its head.
    """
    random = with_novel(known, drawn, alone=alone)
    yield "rand_noft", random
    yield "imprinting", imprinted(random, z, owners)
    copies = np.repeat(owners[..., None], moved.shape[2], axis=2)
    yield "imprinting_aug", imprinted(random, moved, copies)
    if not alone:
        flat, own = z.reshape(-1, z.shape[-1]), owners.reshape(-1)
        classes = known.num_classes + len(z)
        yield (
            "nearest",
            heads.append_rows(known, flat, own, num_classes=classes, pool="max"),
        )


def with_novel(known: Head, rows: Array, *, alone: bool) -> Head:
    """A trained head with rows for novel classes, or these rows alone.

    Args:
        known: trained on base classes.
        rows: `[novel, dim]`.
        alone: whether base classes are left out.
    """
    novel, base = len(rows), known.num_classes
    both = heads.append_rows(known, rows, base + np.arange(novel))
    if not alone:
        return both
    return dataclasses.replace(
        both,
        weight=both.weight[base:],
        bias=both.bias[base:],
        scale=both.scale[base:] if jnp.ndim(both.scale) else both.scale,
        owner=jnp.arange(novel, dtype=jnp.int32),
        num_classes=novel,
    )


def imprinted(head: Head, z: Array, owners: np.ndarray) -> Head:
    """A head with the rows of some classes imprinted, in place of those they had.

    Args:
        head: one row per class.
        z: `[..., dim]`, embeddings.
        owners: `[...]`, their classes; -1 for no example.
    """
    rows = jnp.zeros_like(head.weight)
    sums = ClassSums(rows, rows[:, 0])
    flat = z.reshape(-1, z.shape[-1])
    return _imprint(head, sums, flat, jnp.asarray(owners.reshape(-1)))[0]
