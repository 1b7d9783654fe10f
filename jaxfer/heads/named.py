"""A head with class names: classes are added, extended with examples, and removed.

The arrays have empty slots for new classes, so code compiled for a head accepts the
head with more classes. Invalid input is refused on the host before any computation.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxfer.heads.imprinting import set_rows
from jaxfer.heads.rows import append_rows
from jaxfer.heads.sums import check_embeddings, check_finite, class_sums, sums_means
from jaxfer.heads.vectors import mean_row, normalize, wide
from jaxfer.types import AnyArray, ClassSums, Head

Examples = Mapping[str, Float[AnyArray, "n dim"]]
Kind = Literal["prototype", "cosine"]


@dataclass(frozen=True)
class NamedHead:
    """A head whose rows have class names; functions return a new one.

    Attributes:
        head: a prototype, cosine or linear head with one row per slot.
        sums: the sums of the embeddings that each row was made from: raw for
            prototypes, of length 1 otherwise; zero for a row made by training only.
        names: the class of each slot; None for an empty slot.
        trained: the classes whose rows were trained, so that `sums` does not describe
            them.
    """

    head: Head
    sums: ClassSums
    names: tuple[str | None, ...]
    trained: frozenset[str] = frozenset()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their slots."""
        return tuple(name for name in self.names if name is not None)


def new_named_head(
    dim: int,
    *,
    kind: Kind = "cosine",
    capacity: int = 64,
    scale: float | None = None,
    scale_per_class: bool = False,
) -> NamedHead:
    """A head without classes, to add classes to.

    Args:
        dim: the dimension of the embeddings.
        kind: 'prototype' scores by squared distance to the mean embedding of a class
            (Snell et al. 2017, Eqs. 1 and 2), 'cosine' by scaled cosine to the unit
            mean of unit embeddings (Qi et al. 2018, section 3.2).
        capacity: the number of slots. It doubles when it is exceeded, and compiled code
            compiles once more.
        scale: the factor of cosines or squared distances; default: 10 for cosines, 1
            for prototypes.
        scale_per_class: whether each class has its own scale; a new class gets the mean
            scale of the other classes.

    Raises:
        ValueError: an unknown kind, or a dimension, capacity or scale that is not
            positive.

    Example:
        >>> new_named_head(64, capacity=8).names.count(None)
        8
    """
    if kind not in ("prototype", "cosine"):
        raise ValueError(f"expected kind 'prototype' or 'cosine', got {kind!r}")
    if capacity < 1 or dim < 1:
        raise ValueError(
            f"expected dim and capacity of at least 1, got {dim} and {capacity}"
        )
    cosine = kind == "cosine"
    scale = (10.0 if cosine else 1.0) if scale is None else scale
    if not 0 < scale < float("inf"):
        raise ValueError(f"expected a positive scale, got {scale}")
    head = Head(
        weight=jnp.zeros((capacity, dim), jnp.float32),
        bias=jnp.zeros((capacity,), jnp.float32),
        scale=jnp.full((capacity,) if scale_per_class else (), scale, jnp.float32),
        owner=jnp.full((capacity,), -1, jnp.int32),
        num_classes=capacity,
        unit=cosine,
        centre=None if cosine else jnp.zeros((dim,), jnp.float32),
    )
    return NamedHead(head, _no_sums(head), (None,) * capacity)


def name_classes(
    head: Head,
    names: Sequence[str],
    *,
    sums: ClassSums | None = None,
    capacity: int | None = None,
) -> NamedHead:
    """A prototype, cosine or linear head with class names, and room for more classes.

    Args:
        head: a head with one row per class.
        names: the names of the classes, in the order of the rows.
        sums: the class sums that a prototype or imprinted head was made from, so that
            its classes can be extended; default: all rows count as trained.
        capacity: the number of slots; default: twice the classes.

    Raises:
        ValueError: a head with several rows per class, a number of names other than the
            number of classes, a repeated name, sums that do not fit the head, or a
            capacity below the number of classes.

    Example:
        >>> from jaxfer import cosine_head
        >>> base = cosine_head(jax.random.key(0), 64, 2)
        >>> name_classes(base, ["wren", "robin"], capacity=3).names
        ('wren', 'robin', None)
    """
    classes = head.num_classes
    if head.pool is not None or head.weight.shape[0] != classes:
        raise ValueError(
            f"expected a head with one row per class (pool = None), got "
            f"{head.weight.shape[0]} rows of {classes} classes and pool = {head.pool!r}"
        )
    _check_names(names)
    if len(names) != classes:
        raise ValueError(f"expected {classes} names, one per class, got {len(names)}")
    size = 2 * classes if capacity is None else capacity
    if size < classes:
        raise ValueError(
            f"expected a capacity of at least the {classes} classes, got {size}"
        )
    trained = frozenset(names)
    if sums is None:
        sums = _no_sums(head)
    else:
        trained -= _described(head, sums, names)
    return _grown(NamedHead(head, sums, tuple(names), trained), size)


def add_classes(named: NamedHead, examples: Examples) -> NamedHead:
    """Add classes from examples; the rows of other classes stay bit-identical.

    A prototype is the mean of the examples (Snell et al. 2017, Eq. 1), a cosine row the
    unit mean of unit embeddings (Qi et al. 2018, section 3.2). A row of a linear head
    is the same direction at the mean length of the other rows, with zero bias.

    Args:
        named: the head so far.
        examples: one or more embeddings `[n, dim]` per new class, by class name.

    Raises:
        ValueError: a name that is already a class, a class without examples, or
            embeddings of another dimension, not finite or, except for prototypes, zero.

    Example:
        >>> birds = add_classes(new_named_head(2), {"wren": np.array([[0.0, 4.0]])})
        >>> birds.head.weight[0].tolist()
        [0.0, 1.0]
    """
    _check_names(examples)
    if there := [name for name in examples if name in named.names]:
        raise ValueError(
            f"expected new class names, got {there}, which are classes already: use "
            "`extend_classes` to add examples to a class"
        )
    examples = _checked(named, examples)
    if not examples:
        return named
    size = len(named.names)
    while size < len(named.classes) + len(examples):
        size *= 2
    named = _grown(named, size)
    free = (i for i, name in enumerate(named.names) if name is None)
    names = list(named.names)
    for name in examples:
        names[next(free)] = name
    return _with_examples(dataclasses.replace(named, names=tuple(names)), examples)


def extend_classes(
    named: NamedHead, examples: Examples, *, forget_training: bool = False
) -> NamedHead:
    """Add examples to classes, as if they had been given when the class was added.

    Args:
        named: the head so far.
        examples: more embeddings `[n, dim]` by class name.
        forget_training: whether to replace the row of a trained class by the mean of
            all examples it was given, including these.

    Raises:
        ValueError: a name that is not a class, a trained class without
            `forget_training`, or examples that `add_classes` refuses.

    Example:
        >>> birds = add_classes(new_named_head(2), {"wren": np.array([[1.0, 0.0]])})
        >>> extend_classes(birds, {"wren": np.eye(2)}).sums.count[0].item()
        3.0
    """
    _check_known(named, examples)
    examples = _checked(named, examples)
    if (trained := sorted(named.trained & set(examples))) and not forget_training:
        raise ValueError(
            f"expected classes that were not trained, got {trained}, whose rows are no "
            "longer the mean of their examples: pass forget_training=True to reset them"
        )
    if not examples:
        return named
    left = named.trained - set(examples)
    return _with_examples(dataclasses.replace(named, trained=left), examples)


def remove_classes(named: NamedHead, names: Iterable[str]) -> NamedHead:
    """Remove classes: their slots become free, and other rows stay bit-identical.

    Raises:
        ValueError: a name that is not a class.

    Example:
        >>> birds = add_classes(new_named_head(2), {"wren": np.array([[1.0, 0.0]])})
        >>> remove_classes(birds, ["wren"]).classes
        ()
    """
    if isinstance(names, str):
        raise ValueError(f"expected a list of class names, got the string {names!r}")
    gone = set(names)
    _check_known(named, gone)
    slots = np.array([name in gone for name in named.names])
    total, count = named.sums[:2]
    return NamedHead(
        dataclasses.replace(named.head, owner=jnp.where(slots, -1, named.head.owner)),
        ClassSums(jnp.where(slots[:, None], 0, total), jnp.where(slots, 0, count)),
        tuple(None if name in gone else name for name in named.names),
        named.trained - gone,
    )


def with_trained_head(named: NamedHead, head: Head) -> NamedHead:
    """The named head after training, with classes marked whose row or bias changed.

    Args:
        named: the head before training.
        head: the head after training, with other rows, biases or scales.

    Raises:
        ValueError: a head of another shape.

    Example:
        >>> birds = add_classes(new_named_head(2), {"wren": np.array([[1.0, 0.0]])})
        >>> moved = dataclasses.replace(birds.head, weight=birds.head.weight + 0.1)
        >>> sorted(with_trained_head(birds, moved).trained)
        ['wren']
    """
    before, after = (
        np.c_[np.asarray(h.weight), np.asarray(h.bias)] for h in (named.head, head)
    )
    if before.shape != after.shape:
        raise ValueError(
            f"expected a head with rows {named.head.weight.shape} as before training, "
            f"got {head.weight.shape}"
        )
    moved = np.any(before != after, axis=1)
    names = {n for n, m in zip(named.names, moved, strict=True) if m and n is not None}
    return dataclasses.replace(named, head=head, trained=named.trained | names)


def check_dim(named: NamedHead, what: str, z: np.ndarray) -> None:
    """Refuse embeddings of another dimension than the rows.

    Raises:
        ValueError: another dimension; the message states both shapes.
    """
    dim = named.head.weight.shape[1]
    if z.shape[1] != dim:
        raise ValueError(f"{what}: expected shape [n, {dim}], got {z.shape}")


def padded(z: np.ndarray, *, least: int = 1) -> np.ndarray:
    """Pad embeddings with zero rows to `room_for`, so that few shapes compile."""
    return np.pad(z, [(0, room_for(len(z), least=least) - len(z)), (0, 0)])


def room_for(count: int, *, least: int = 1) -> int:
    """The smallest power of two that is at least the count and at least `least`."""
    return max(least, 1 << max(count - 1, 0).bit_length())


def _no_sums(head: Head) -> ClassSums:
    rows = jnp.zeros(head.weight.shape, jnp.float32)
    return ClassSums(rows, jnp.zeros(rows.shape[:1], jnp.float32))


def _rows(head: Head, sums: ClassSums) -> jax.Array:
    """The rows that a head of this kind gets from class sums."""
    means = sums_means(sums)
    if head.centre is not None:
        return means
    if head.unit:
        return normalize(means)
    used = head.owner >= 0
    lengths = jnp.where(used, jnp.linalg.norm(head.weight, axis=1), 0)
    mean = jnp.sum(lengths) / jnp.maximum(jnp.sum(used), 1)
    return normalize(means) * jnp.where(jnp.any(used), mean, 1)


@jax.jit
def _updated(
    head: Head, sums: ClassSums, z: jax.Array, labels: jax.Array
) -> tuple[Head, ClassSums]:
    z = wide(z) if head.centre is not None else normalize(z)
    more = class_sums(z, labels, num_classes=head.num_classes)
    sums = ClassSums(sums.total + more.total, sums.count + more.count)
    head = set_rows(head, _rows(head, sums), more.count > 0)
    if head.centre is not None:
        centre = mean_row(head.weight, head.owner >= 0)
        head = dataclasses.replace(head, centre=centre)
    return head, sums


def _with_examples(named: NamedHead, examples: Examples) -> NamedHead:
    slots = [np.full(len(z), named.names.index(c)) for c, z in examples.items()]
    z = padded(np.concatenate([*examples.values()]))
    labels = np.full(len(z), -1, np.int32)
    labels[: sum(map(len, slots))] = np.concatenate(slots)
    head, sums = _updated(named.head, named.sums, z, labels)
    return dataclasses.replace(named, head=head, sums=sums)


def _grown(named: NamedHead, size: int) -> NamedHead:
    """The head with the given number of slots; the new ones are empty."""
    more = size - len(named.names)
    if not more:
        return named
    rows = jnp.zeros((more, named.head.weight.shape[1]), named.head.weight.dtype)
    head = append_rows(named.head, rows, np.full(more, -1), num_classes=size)
    total, count = named.sums[:2]
    sums = ClassSums(jnp.pad(total, [(0, more), (0, 0)]), jnp.pad(count, (0, more)))
    return NamedHead(head, sums, named.names + (None,) * more, named.trained)


def _described(head: Head, sums: ClassSums, names: Sequence[str]) -> set[str]:
    """The classes whose rows equal the rows computed from the sums."""
    if not head.unit and head.centre is None:
        raise ValueError("expected no sums for a linear head, got some")
    if sums.total.shape != head.weight.shape:
        raise ValueError(
            f"expected sums of shape {head.weight.shape} as the rows of the head, got "
            f"{sums.total.shape}"
        )
    rows, ours = np.asarray(_rows(head, sums)), np.asarray(head.weight)
    if head.unit:
        ours = np.asarray(normalize(head.weight))
    scale = np.abs(ours).max(initial=0)
    same = np.isclose(rows, ours, rtol=1e-4, atol=1e-5 * scale).all(axis=1)
    seen = np.asarray(sums.count) > 0
    return {name for name, s in zip(names, same & seen, strict=True) if s}


def _check_names(names: Iterable[Any]) -> None:
    names = list(names)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"expected class names as strings, got {odd[0]!r}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"expected distinct class names, got {twice} more than once")


def _check_known(named: NamedHead, names: Iterable[str]) -> None:
    if unknown := sorted(str(name) for name in names if name not in named.classes):
        raise ValueError(
            f"expected classes of the head, {list(named.classes)}, got {unknown}"
        )


def _checked(named: NamedHead, examples: Examples) -> dict[str, np.ndarray]:
    """The checked examples on the host, in the dtype that JAX will give them."""
    found = {}
    for name, z in examples.items():
        what = f"class {name!r}"
        found[name] = check_finite(z, what)
        if not len(found[name]):
            raise ValueError(f"{what}: expected at least one example, got none")
        check_dim(named, what, found[name])
        if named.head.centre is None:
            check_embeddings(found[name], what)
    return found
