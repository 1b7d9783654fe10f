"""The support set of a classifier: exact sums, and the examples that heads need.

Sums are kept on the host in float64. They add up: adding examples one by one gives the
same sums as adding all of them at once, exactly so for integers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxfer import heads
from jaxfer.compilation import jit
from jaxfer.heads.clusters import cluster_means
from jaxfer.heads.leave_one_out import Kind
from jaxfer.heads.named import padded, room_for
from jaxfer.heads.vectors import unit_rows
from jaxfer.types import ClassSums, Head

Normalize = Literal["none", "unit", "sqrt"]
KINDS = get_args(Kind)
_LEAST = 8
# Examples used to choose the temperature and the threshold, from the first on.
_SAMPLE = 1000


@dataclass(frozen=True)
class Support:
    """Transformed examples with their class sums.

    Attributes:
        total: `[classes, dim]`, float64 sums of the embeddings of each class.
        unit: the same of embeddings of length 1.
        count: `[classes]`, how many were summed.
        gram: `[dim, dim]`, float64 second moments; None if no head needs them.
        examples: `[n, dim]`, float32, all examples in the order in which they came.
        labels: `[n]`, their classes.
    """

    total: Float[np.ndarray, "classes dim"]
    unit: Float[np.ndarray, "classes dim"]
    count: Float[np.ndarray, " classes"]
    gram: Float[np.ndarray, "dim dim"] | None
    examples: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, " n"]

    @property
    def dim(self) -> int:
        """The dimension of the embeddings."""
        return self.total.shape[1]

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """The examples and labels that the temperature is fitted to.

        They do not depend on the order in which classes were added: of each class the
        first examples are taken, as many as fit.
        """
        each = max(2, _SAMPLE // max(len(self.count), 1))
        rows = [np.flatnonzero(self.labels == k)[:each] for k in range(len(self.count))]
        chosen = np.concatenate(rows)
        return self.examples[chosen].astype(np.float64), self.labels[chosen]

    def means(self) -> np.ndarray:
        """The unit means of the unit embeddings of each class."""
        return unit_rows(self.unit)

    def similarity(self, z: np.ndarray) -> np.ndarray:
        """The cosine of embeddings with the nearest class mean."""
        return (unit_rows(z.astype(np.float64)) @ self.means().T).max(axis=1)

    def nearest(self, z: np.ndarray) -> np.ndarray:
        """The number of the example with the highest cosine for each embedding."""
        return (unit_rows(z) @ unit_rows(self.examples).T).argmax(axis=1)

    def threshold(self, share: float) -> float:
        """The similarity below which a share of the examples is, each left out.

        An example that is the only one of its class is compared with the other classes.
        """
        z, labels = self.sample()
        unit = unit_rows(z)
        rest = self.unit[labels] - unit
        own = (unit * unit_rows(rest)).sum(axis=1)
        products = unit @ self.means().T
        alone = self.count[labels] < 2
        products[range(len(labels)), labels] = np.where(alone, -np.inf, own)
        return float(np.quantile(products.max(axis=1), share))


def empty(dim: int, *, second: bool) -> Support:
    """A support set without classes.

    Args:
        dim: the dimension of the embeddings.
        second: whether to sum second moments.
    """
    none = np.zeros((0, dim))
    gram = np.zeros((dim, dim)) if second else None
    labels = np.zeros(0, np.int32)
    return Support(none, none, np.zeros(0), gram, none.astype(np.float32), labels)


def extended(
    support: Support,
    z: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    *,
    places: Int[np.ndarray, " classes"],
    num_classes: int,
) -> Support:
    """The support set with further examples and, perhaps, further classes.

    Args:
        support: the support set so far.
        z: `[n, dim]`, the transformed examples.
        labels: `[n]`, their classes among all classes.
        places: the new number of each earlier class.
        num_classes: the number of classes.
    """
    wide = z.astype(np.float64)
    total, unit = (np.zeros((num_classes, support.dim)) for _ in range(2))
    count = np.zeros(num_classes)
    total[places], unit[places] = support.total, support.unit
    count[places] = support.count
    np.add.at(total, labels, wide)
    np.add.at(unit, labels, unit_rows(wide))
    np.add.at(count, labels, 1)
    gram = support.gram
    return Support(
        total,
        unit,
        count,
        None if gram is None else gram + wide.T @ wide,
        np.concatenate([support.examples, z.astype(np.float32)]),
        np.concatenate([places[support.labels], labels]).astype(np.int32),
    )


def without(support: Support, label: int) -> Support:
    """The support set without a class."""
    gone = support.labels == label
    labels = support.labels[~gone]
    gram = support.gram
    if gram is not None:
        wide = support.examples[gone].astype(np.float64)
        gram = gram - wide.T @ wide
    return Support(
        np.delete(support.total, label, axis=0),
        np.delete(support.unit, label, axis=0),
        np.delete(support.count, label),
        gram,
        support.examples[~gone],
        np.where(labels > label, labels - 1, labels).astype(np.int32),
    )


def transformed(z: np.ndarray, normalize: Normalize) -> np.ndarray:
    """Embeddings as heads get them, float32.

    Example:
        >>> transformed(np.array([[9.0, -16.0]]), "sqrt").round(1).tolist()
        [[0.6000000238418579, -0.800000011920929]]
    """
    if normalize == "sqrt":
        z = np.sign(z) * np.sqrt(np.abs(z))
    return (z if normalize == "none" else unit_rows(z)).astype(np.float32)


def make_head(
    support: Support,
    kind: Kind,
    temperature: float,
    *,
    prototypes: int,
    penalty: float,
    shrinkage: float | None,
) -> Head:
    """The head of a kind, with empty slots up to a power of two.

    The shapes change at powers of two only, so that few programs are compiled.
    """
    classes = len(support.count)
    room = slots(classes)
    scale = np.float32(1 / temperature)
    if kind in ("prototype", "imprint") and prototypes > 1:
        rows, owner = cluster_means(support.examples, support.labels, prototypes)
        return _of_rows(rows, owner, room, scale, unit=kind == "imprint", pool="max")
    if kind in ("matching", "nearest"):
        pool = "max" if kind == "nearest" else "logsumexp"
        unit, rows = kind == "matching", support.examples
        return _of_rows(rows, support.labels, room, scale, unit=unit, pool=pool)
    sums = support.unit if kind == "imprint" else support.total
    total = np.zeros((room, support.dim), np.float32)
    total[:classes] = sums
    count = np.zeros(room, np.float32)
    count[:classes] = support.count
    gram = None if support.gram is None else jnp.asarray(support.gram, jnp.float32)
    given = ClassSums(jnp.asarray(total), jnp.asarray(count), gram)
    return _HEADS[kind](given, scale, penalty, shrinkage)


def probabilities(
    head: Head, z: Float[np.ndarray, "n dim"], classes: int
) -> Float[np.ndarray, "n classes"]:
    """The softmax of the logits, in float64, for rows in blocks of powers of two."""
    parts = []
    for start in range(0, max(len(z), 1), 1024):
        part = z[start : start + 1024]
        logits = np.asarray(_logits(head, padded(part, least=_LEAST)), np.float64)
        parts.append(logits[: len(part), :classes])
    logits = np.concatenate(parts)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def slots(count: int) -> int:
    """The number of rows that are reserved for some: a power of two, at least 8.

    Example:
        >>> slots(5), slots(9)
        (8, 16)
    """
    return room_for(count, least=_LEAST)


def _of_rows(
    rows: np.ndarray,
    owner: np.ndarray,
    classes: int,
    scale: np.float32,
    *,
    unit: bool,
    pool: Literal["max", "logsumexp"],
) -> Head:
    """The head of labelled rows, padded by rows without an owner."""
    size = slots(len(rows))
    owners = np.full(size, -1, np.int32)
    owners[: len(rows)] = owner
    centre = None if unit else rows.mean(axis=0).astype(np.float32)
    bias = np.zeros(size, np.float32)
    filled = padded(rows.astype(np.float32), least=_LEAST)
    head = Head(filled, bias, scale, owners, classes, unit, pool, centre)
    return jax.tree.map(jnp.asarray, head)


# Each is a function of the sums, 1 over the temperature, the penalty and the shrinkage.
_HEADS: dict[str, Callable[..., Head]] = {
    "prototype": jit(lambda sums, s, *_: heads.prototype_head(sums, temperature=1 / s)),
    "imprint": jit(lambda sums, s, *_: heads.imprint_head(sums, scale=s)),
    "linear": jit(
        lambda sums, s, penalty, _: heads.ridge_head(sums, penalty=penalty, scale=s)
    ),
    "lda": jit(
        lambda sums, s, _, share: heads.lda_head(sums, shrinkage=share, scale=s)
    ),
}
_logits = jit(heads.head_logits)
