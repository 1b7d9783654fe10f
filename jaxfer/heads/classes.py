"""A live classifier: named classes that come, learn more, and go.

The arrays have room for more classes than there are, so that those who compiled
`head_logits` for a head go on with the next one. What is refused here is refused on
the host, by name, before anything is computed.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxfer.heads.imprinting import imprint
from jaxfer.heads.logits import head_logits
from jaxfer.heads.memory import check_embeddings
from jaxfer.types import AnyArray, Head, Memory

Examples = Mapping[str, Float[AnyArray, "n dim"]]


@dataclass(frozen=True)
class Classes:
    """A classifier with named classes; functions give a new one, none changes it.

    Attributes:
        head: unit rows, one a slot; class i has slot i.
        memory: what each imprinted row was made of.
        names: the class of each slot, None for an empty one.
        trained: the classes whose rows training has moved, or made: their memory does
            not describe them.
    """

    head: Head
    memory: Memory
    names: tuple[str | None, ...]
    trained: frozenset[str] = frozenset()


def new_classes(
    dim: int, *, capacity: int = 64, scale: float = 10.0, scale_per_class: bool = False
) -> Classes:
    """A classifier without a class yet.

    Args:
        dim: of the embeddings.
        capacity: slots; when more are needed they double, and what was compiled for the
            old shape compiles once more.
        scale: s of Qi et al. 2018, Eq. 8.
        scale_per_class: each class with its own scale; a new class gets the mean of
            those there are.

    Raises:
        ValueError: no capacity or no dimension.

    Example:
        >>> new_classes(64).names.count(None)
        64
    """
    if capacity < 1 or dim < 1:
        raise ValueError(
            f"found capacity {capacity} and dim {dim}, needed at least 1 of each"
        )
    shape = (capacity,) if scale_per_class else ()
    head = Head(
        weight=jnp.zeros((capacity, dim), jnp.float32),
        bias=jnp.zeros((capacity,), jnp.float32),
        scale=jnp.full(shape, scale, jnp.float32),
        owner=jnp.full((capacity,), -1, jnp.int32),
        num_classes=capacity,
        unit=True,
    )
    return Classes(head, _no_memory(head), (None,) * capacity)


def classes_of(
    head: Head, names: Sequence[str], *, capacity: int | None = None
) -> Classes:
    """A trained cosine classifier, with room for more classes.

    Args:
        head: of `cosine_head` or `imprint_head`, trained.
        names: of its classes, in the order of its rows.
        capacity: slots in all; twice the classes, unless given.

    Raises:
        ValueError: a head of another kind, names that are not one a class, a name
            given twice, or less capacity than classes.

    Example:
        >>> from jaxfer import cosine_head
        >>> base = cosine_head(jax.random.key(0), 64, 2)
        >>> classes_of(base, ["wren", "robin"], capacity=3).names
        ('wren', 'robin', None)
    """
    if not head.unit or head.pool is not None:
        raise ValueError(
            f"found a head with unit = {head.unit} and pool = {head.pool!r}, needed "
            "one of unit rows, one a class: `as_cosine` makes one"
        )
    if len(names) != head.num_classes:
        raise ValueError(
            f"found {len(names)} names, needed one for each of the {head.num_classes} "
            "classes"
        )
    _check_distinct(names)
    size = 2 * head.num_classes if capacity is None else capacity
    if size < head.num_classes:
        raise ValueError(
            f"found capacity {size}, needed at least the {head.num_classes} classes"
        )
    bare = Classes(head, _no_memory(head), tuple(names), frozenset(names))
    return _grown(bare, size)


def add_classes(classes: Classes, examples: Examples) -> Classes:
    """New classes, known at once: each row is the unit mean of its examples.

    Qi et al. 2018, section 4. The other rows keep their bits.

    Args:
        classes: so far.
        examples: embeddings of each new class by its name, one or more, of any length
            but zero.

    Raises:
        ValueError: a name that is there already, a class without examples, embeddings
            of another dimension, or one that is zero or not finite.

    Example:
        >>> birds = add_classes(new_classes(2), {"wren": np.array([[0.0, 4.0]])})
        >>> birds.head.weight[0].tolist()
        [0.0, 1.0]
    """
    if there := [name for name in examples if name in classes.names]:
        raise ValueError(
            f"{there} are classes already: `extend_classes` adds examples to a class"
        )
    _check_examples(classes, examples)
    taken = sum(name is not None for name in classes.names)
    size = len(classes.names)
    while size < taken + len(examples):
        size *= 2
    classes = _grown(classes, size)
    free = (i for i, name in enumerate(classes.names) if name is None)
    names = list(classes.names)
    for name in examples:
        names[next(free)] = name
    return _imprinted(dataclasses.replace(classes, names=tuple(names)), examples)


def extend_classes(
    classes: Classes, examples: Examples, *, forget_training: bool = False
) -> Classes:
    """More examples of classes there are: as if they had been there at first.

    Args:
        classes: so far.
        examples: more embeddings by the name of their class.
        forget_training: set the row of a trained class anew, from the examples that
            were imprinted and these, whatever training had made of it.

    Raises:
        ValueError: a name that is no class, a class that was trained (unless asked
            for), or examples as refused by `add_classes`.

    Example:
        >>> birds = add_classes(new_classes(2), {"wren": np.array([[1.0, 0.0]])})
        >>> extend_classes(birds, {"wren": np.eye(2)}).memory.count[0].item()
        3.0
    """
    _check_known(classes, examples)
    _check_examples(classes, examples)
    if (trained := sorted(classes.trained & set(examples))) and not forget_training:
        raise ValueError(
            f"the rows of {trained} were trained, so the mean of their examples does "
            "not describe them any more: forget_training=True sets them anew"
        )
    left = classes.trained - set(examples)
    return _imprinted(dataclasses.replace(classes, trained=left), examples)


def remove_classes(classes: Classes, names: Iterable[str]) -> Classes:
    """Without some classes, whose slots are free again; the others keep their bits.

    Raises:
        ValueError: a name that is no class.

    Example:
        >>> birds = add_classes(new_classes(2), {"wren": np.array([[1.0, 0.0]])})
        >>> remove_classes(birds, ["wren"]).names.count(None)
        64
    """
    gone = set(names)
    _check_known(classes, gone)
    slots = np.array([name in gone for name in classes.names])
    head, memory = classes.head, classes.memory
    return Classes(
        dataclasses.replace(head, owner=jnp.where(slots, -1, head.owner)),
        Memory(
            jnp.where(slots[:, None], 0, memory.total),
            jnp.where(slots, 0, memory.count),
        ),
        tuple(None if name in gone else name for name in classes.names),
        classes.trained - gone,
    )


def trained_classes(classes: Classes, head: Head) -> Classes:
    """The same classes after training: those whose rows have moved are noted.

    Args:
        classes: before.
        head: the same head with other rows or scales.

    Raises:
        ValueError: a head of another shape.

    Example:
        >>> birds = add_classes(new_classes(2), {"wren": np.array([[1.0, 0.0]])})
        >>> moved = dataclasses.replace(birds.head, weight=birds.head.weight + 0.1)
        >>> sorted(trained_classes(birds, moved).trained)
        ['wren']
    """
    before, after = np.asarray(classes.head.weight), np.asarray(head.weight)
    if before.shape != after.shape:
        raise ValueError(
            f"found a head of rows {after.shape}, needed the {before.shape} that there "
            "were before training"
        )
    moved = np.any(before != after, axis=1)
    names = {
        name
        for name, m in zip(classes.names, moved, strict=True)
        if m and name is not None
    }
    return dataclasses.replace(classes, head=head, trained=classes.trained | names)


def predicted_names(classes: Classes, z: Float[AnyArray, "n dim"]) -> list[str]:
    """The name of the class of each embedding, that of the highest logit.

    Raises:
        ValueError: no class to choose from, or embeddings of another dimension.

    Example:
        >>> birds = add_classes(new_classes(2), {"wren": np.array([[1.0, 0.0]])})
        >>> predicted_names(birds, np.array([[5.0, 1.0]]))
        ['wren']
    """
    if not any(classes.names):
        raise ValueError("found no class, needed at least one: `add_classes` adds them")
    _check_dim(classes, "the embeddings", z)
    best = np.asarray(_logits(classes.head, jnp.asarray(z))).argmax(axis=1)
    return [str(classes.names[i]) for i in best]


_logits = jax.jit(head_logits)
_imprint = jax.jit(imprint)


def _no_memory(head: Head) -> Memory:
    rows = jnp.zeros(head.weight.shape, jnp.float32)
    return Memory(rows, jnp.zeros(rows.shape[:1], jnp.float32))


def _grown(classes: Classes, size: int) -> Classes:
    """With as many slots; the new ones are empty."""
    more = size - len(classes.names)
    if not more:
        return classes

    def pad(x: jax.Array, **how: Any) -> jax.Array:
        if not x.ndim:
            return x
        return jnp.pad(x, [(0, more), *[(0, 0)] * (x.ndim - 1)], **how)

    head = classes.head
    head = dataclasses.replace(
        head,
        weight=pad(head.weight),
        bias=pad(head.bias),
        # Where there is no class to take it from, the first one has the first scale.
        scale=pad(jnp.asarray(head.scale), mode="edge"),
        owner=pad(head.owner, constant_values=-1),
        num_classes=size,
    )
    memory = Memory(*(pad(x) for x in classes.memory))
    names = classes.names + (None,) * more
    return Classes(head, memory, names, classes.trained)


def _imprinted(classes: Classes, examples: Examples) -> Classes:
    z = np.concatenate([np.asarray(x, np.float32) for x in examples.values()])
    slots = np.concatenate(
        [np.full(len(x), classes.names.index(name)) for name, x in examples.items()]
    )
    # Whole powers of two, so that few shapes are compiled.
    room = 1 << (len(z) - 1).bit_length()
    padded = np.zeros((room, z.shape[1]), np.float32)
    padded[: len(z)] = z
    labels = np.full(room, -1, np.int32)
    labels[: len(z)] = slots
    head, memory = _imprint(classes.head, classes.memory, padded, labels)
    return dataclasses.replace(classes, head=head, memory=memory)


def _check_distinct(names: Iterable[str]) -> None:
    names = list(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"found {twice} more than once, needed one name a class")


def _check_known(classes: Classes, names: Iterable[str]) -> None:
    if unknown := sorted(name for name in names if name not in classes.names):
        there = [name for name in classes.names if name is not None]
        raise ValueError(f"found {unknown}, which are no classes: there are {there}")


def _check_dim(classes: Classes, what: str, z: AnyArray) -> None:
    dim = classes.head.weight.shape[1]
    if np.ndim(z) != 2 or np.shape(z)[1] != dim:
        raise ValueError(
            f"{what}: found shape {np.shape(z)}, needed [n, {dim}] as the rows are"
        )


def _check_examples(classes: Classes, examples: Examples) -> None:
    for name, z in examples.items():
        if not len(z):
            raise ValueError(f"class {name!r}: found no example, needed at least one")
        _check_dim(classes, f"class {name!r}", z)
        check_embeddings(z, f"class {name!r}")
