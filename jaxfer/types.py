"""The types of the library: Net, Mode, ClassSums, Head, Episode, TrainState.

This module has types only, and a function that looks up a mode. States are pytrees of
arrays; a `Net` is not a pytree but a set of pure functions that jitted code closes
over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

# Nested dictionaries of arrays, keyed by names: parameters, and running statistics.
Params = dict[str, Any]
State = dict[str, Any]
AnyArray = jax.Array | np.ndarray


@dataclass(frozen=True)
class Mode:
    """How layers run.

    Attributes:
        batch_norm: 'running' normalises by the stored statistics and does not change
            them; 'batch' normalises by those of the current batch and stores them.
        dropout: whether dropout is on.
        momentum: the share of the old running statistics that a 'batch' pass keeps; 0
            replaces them by the statistics of this batch.

    Example:
        >>> Mode() == EVAL
        True
    """

    batch_norm: Literal["running", "batch"] = "running"
    dropout: bool = False
    momentum: float = 0.9


EVAL = Mode()
TRAIN = Mode("batch", dropout=True)

# One mode for all layers, or one mode per layer by name.
Modes = Mode | Mapping[str, Mode]


def layer_mode(mode: Modes, layer: str) -> Mode:
    """The mode of one layer, from one mode for all or a mapping by layer name.

    Raises:
        ValueError: a mapping that does not name the layer.

    Example:
        >>> layer_mode({"conv1": EVAL, "conv2": TRAIN}, "conv2").batch_norm
        'batch'
    """
    if isinstance(mode, Mode):
        return mode
    if layer not in mode:
        raise ValueError(
            f"expected a mode for every layer that runs, got no mode for {layer!r}: "
            f"the mapping names {sorted(mode)}"
        )
    return mode[layer]


@dataclass(frozen=True, eq=False)
class Net:
    """A network as pure functions, closed over by jitted code and never a pytree.

    Attributes:
        init: `init(key, image_shape) -> (params, state)` for images of shape
            `[height, width, channels]`.
        apply: `apply(params, state, x, *, mode=EVAL, rng=None, first=None, last=None)
            -> (y, state)` runs the layers `first` to `last`, inclusive, by name, on
            `x` of shape `[n, ...]`. With `first` given, `x` is the output of the layer
            before it. `rng` is required where dropout is on.
        layers: the names of the parameter groups in order from the input: layer n of
            Yosinski et al. 2014 is `layers[n - 1]`. A classifier is never among them:
            it is a head.
        stochastic: the layers that use random numbers in training.
        spec: the architecture as plain values; networks with equal specs are equal.
            None for a network defined by its functions only.
    """

    init: Callable[..., tuple[Params, State]]
    apply: Callable[..., tuple[Array, State]]
    layers: tuple[str, ...]
    stochastic: tuple[str, ...] = ()
    spec: Any = None

    def __eq__(self, other: object) -> bool:
        """Compare architectures or, where both are None, the functions."""
        if not isinstance(other, Net):
            return NotImplemented
        if self.spec is not None or other.spec is not None:
            return self.spec == other.spec
        return (self.init, self.apply) == (other.init, other.apply)

    def __hash__(self) -> int:
        """Return a hash that is consistent with equality."""
        known = (self.init, self.apply) if self.spec is None else self.spec
        return hash(known)


class ClassSums(NamedTuple):
    """The sum and the number of the embeddings of each class.

    Sums add up: adding examples later gives the same as summing all of them at once.

    Attributes:
        total: `[classes, dim]`, the sum of the embeddings of each class.
        count: `[classes]`, how many embeddings were summed.
        gram: `[dim, dim]`, the sum of `z z^T` over all classes, the second moments that
            `lda_head` and `ridge_head` need; None if they were not summed.
    """

    total: Float[Array, "classes dim"]
    count: Float[Array, " classes"]
    gram: Float[Array, "dim dim"] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Head:
    """A classifier on embeddings: rows of templates, each owned by a class.

    The score of row i for embedding z is one of

    - `scale * <weight_i, z> + bias_i`, a linear head;
    - the same with both vectors scaled to length 1, a cosine head (`unit`);
    - `-scale * |z - weight_i|^2 + bias_i`, a head of squared distances (`centre`), up
      to a term of z that all rows share.

    The rows of one class are pooled into its logit (see `heads.head_logits`).

    Attributes:
        weight: `[m, dim]`, the templates.
        bias: `[m]`.
        scale: `[]`, one for all rows, or `[m]`.
        owner: `[m]` integers, the class of each row; -1 marks an empty slot, whose
            score is -inf, so that classes can be added without recompiling.
        num_classes: the number of logits.
        unit: whether rows and embeddings are scaled to length 1 first, inside, so
            that training keeps them on the sphere (Qi et al. 2018, Eq. 8).
        pool: how the rows of one class combine: 'max', 'logsumexp', or None where
            row i is the only row of class i, which saves the pooling.
        centre: None, or `[dim]` for squared distances: the point that is subtracted
            from rows and embeddings first. Probabilities do not depend on it, but
            their rounding errors do: it should be close to the rows.
    """

    # As a pytree a head may hold batches, gradients or shardings in place of arrays, so
    # shapes are documented but not checked.
    weight: Any
    bias: Any
    scale: Any
    owner: Any
    num_classes: int = field(metadata={"static": True})
    unit: bool = field(default=False, metadata={"static": True})
    pool: Literal["max", "logsumexp"] | None = field(
        default=None, metadata={"static": True}
    )
    centre: Any = None


class Episode(NamedTuple):
    """One few-shot task: a rectangular support and query set, and their classes.

    The elements may be row numbers of a data set, images, or embeddings.

    Attributes:
        support: `[way, shot, ...]`.
        query: `[way, n_query, ...]`.
        classes: `[way]`, the data set's class ids.
        shots: `[way]`, the number of support examples of each class, from 1 to shot:
            those after them are padding. None: all classes have `shot` of them.
    """

    support: Num[AnyArray, "way shot *item"]
    query: Num[AnyArray, "way n_query *item"]
    classes: Int[AnyArray, " way"]
    shots: Int[AnyArray, " way"] | None = None


class TrainState(NamedTuple):
    """All that a training step reads and writes.

    `trainable` and `frozen` are the two parts of one parameter tree; only the first has
    gradients and an optimizer state in `opt_state`.
    """

    step: Int[Array, ""]
    trainable: Params
    frozen: Params
    state: State
    opt_state: PyTree
