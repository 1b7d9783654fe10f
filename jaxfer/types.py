"""The words every other module speaks: Net, Mode, Memory, Head, Episode, TrainState.

Types only, with no behaviour beyond looking a mode up. States are pytrees of arrays;
a `Net` is not a pytree but a bundle of pure functions that jitted code closes over.
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
        batch_norm: 'running' normalises by the stored statistics and leaves them as
            they are, 'batch' by those of the batch at hand, which it also stores.
        dropout: whether dropout drops.
        momentum: how much of the old running statistics a 'batch' pass keeps; 0
            makes them exactly the statistics of this batch.

    Example:
        >>> Mode() == EVAL
        True
    """

    batch_norm: Literal["running", "batch"] = "running"
    dropout: bool = False
    momentum: float = 0.9


EVAL = Mode()
TRAIN = Mode("batch", dropout=True)

# One mode for all layers, or a mode for each by name.
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
            f"no mode for layer {layer!r}: the mapping names {sorted(mode)}; "
            "it needs an entry for every layer that runs"
        )
    return mode[layer]


@dataclass(frozen=True)
class Net:
    """A network as pure functions, closed over by jitted code and never a pytree.

    Attributes:
        init: `init(key, image_shape) -> (params, state)` for images of shape
            `[height, width, channels]`.
        apply: `apply(params, state, x, *, mode=EVAL, rng=None, first=None, last=None)
            -> (y, state)` runs the layers `first` to `last`, inclusive, by name, on
            `x` of shape `[n, ...]`. With `first` given, `x` is the output of the layer
            before it. `rng` is needed where a dropout layer is on.
        layers: the names of the parameter groups in order from the input, the n of
            Yosinski et al. 2014. A classifier, where the net was built with one, comes
            after them and is not among them.
    """

    init: Callable[..., tuple[Params, State]]
    apply: Callable[..., tuple[Array, State]]
    layers: tuple[str, ...]


class Memory(NamedTuple):
    """What has been seen of each class: the sum of its embeddings, and how many.

    Adding examples later gives exactly the memory of having had them all at once.
    """

    total: Float[Array, "classes dim"]
    count: Float[Array, " classes"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Head:
    """A classifier on embeddings: rows of templates, each owned by a class.

    The score of row i for embedding z is `scale * <weight_i, z> + bias_i`; the rows of
    one class are pooled into its logit (see `heads.head_logits`).

    Attributes:
        weight: `[m, dim]`, the templates.
        bias: `[m]`.
        scale: `[]`, one for all rows, or `[m]`.
        owner: `[m]` integers, the class of each row; -1 marks an empty slot, whose
            score is -inf, so that capacity can be padded and classes added without
            recompiling.
        num_classes: how many logits come out.
        unit: whether rows and embeddings are scaled to length 1 first, inside, so
            that training keeps them on the sphere (Qi et al. 2018, Eq. 8).
        pool: how the rows of one class combine: 'max', 'logsumexp', or None where
            row i is the only row of class i, which saves the pooling.
    """

    # As a pytree it may hold batches, gradients or shardings in their place, so the
    # shapes are spoken of and not enforced.
    weight: Any
    bias: Any
    scale: Any
    owner: Any
    num_classes: int = field(metadata={"static": True})
    unit: bool = field(default=False, metadata={"static": True})
    pool: Literal["max", "logsumexp"] | None = field(
        default=None, metadata={"static": True}
    )


class Episode(NamedTuple):
    """One few-shot task: a rectangular support and query set, and whose they are.

    The leading axes hold whatever is at hand: row numbers of a data set, images, or
    embeddings.
    """

    support: Num[AnyArray, "way shot *item"]
    query: Num[AnyArray, "way n_query *item"]
    classes: Int[AnyArray, " way"]


class TrainState(NamedTuple):
    """All that a training step reads and writes.

    `trainable` and `frozen` are the two halves of one parameter tree; only the first
    has gradients and a place in `opt_state`.
    """

    step: Int[Array, ""]
    trainable: Params
    frozen: Params
    state: State
    opt_state: PyTree
