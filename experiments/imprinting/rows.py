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
    """Yield classifiers of novel classes alone, by class means or by all examples.

    Args:
        z: `[novel, n, dim]`, embeddings of the examples.
        owners: `[novel, n]`, the class of each example, from 0; -1 for no example.

    Yields:
        The name of the row, and its head.
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
    """Yield classifiers of all classes, with base rows unchanged, or of novel ones.

    Args:
        known: head trained on base classes.
        drawn: `[novel, dim]`, random rows for novel classes.
        z: `[novel, n, dim]`, embeddings of the examples.
        moved: `[novel, n, copies, dim]`, embeddings of augmented copies of them.
        owners: `[novel, n]`, the class of each example; -1 for no example.
        alone: whether the head has novel classes only (Table 3).

    Yields:
        The name of the row, and its head.
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
    """Return a trained head with rows added for novel classes, or these rows alone.

    Args:
        known: head trained on base classes.
        rows: `[novel, dim]`, rows of the novel classes.
        alone: whether to leave out base classes.
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
    """Return a head in which the rows of some classes are replaced by imprinted ones.

    Args:
        head: head with one row per class.
        z: `[..., dim]`, embeddings of examples.
        owners: `[...]`, the class of each example; -1 for no example.
    """
    rows = jnp.zeros_like(head.weight)
    sums = ClassSums(rows, rows[:, 0])
    flat = z.reshape(-1, z.shape[-1])
    return _imprint(head, sums, flat, jnp.asarray(owners.reshape(-1)))[0]
