"""Pure functions that select the examples of a training step on labelled images.

Each compiled step computes its own batch from its number, so no list of an epoch is
stored and a resumed run takes the same examples.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Integer, PRNGKeyArray

from jaxfer.data.order import shuffled
from jaxfer.episodes import ClassTable, sample_episode
from jaxfer.keys import stable_draws


@dataclass(frozen=True)
class Sampler:
    """How the batches of a training run are sampled.

    Attributes:
        kind: 'epoch' takes each example once per epoch, in a new order each time, and
            drops an incomplete last batch. 'class' samples a class uniformly for each
            position of the batch, then one of its examples: small classes are
            oversampled to the same frequency as large ones. 'groups' samples classes
            without replacement and `group` examples of each, for losses over pairs.
        group: examples per class in a batch of 'groups'.

    Raises:
        ValueError: `group` is below 1.

    Example:
        >>> Sampler("groups", group=2).kind
        'groups'
    """

    kind: Literal["epoch", "class", "groups"] = "epoch"
    group: int = 4

    def __post_init__(self) -> None:
        """Check `group`."""
        if self.group < 1:
            raise ValueError(f"expected group of at least 1, got {self.group}")


class Batch(NamedTuple):
    """The examples of one batch.

    Attributes:
        places: positions of the examples in the task.
        numbers: one number per example, which seeds its random augmentation; unique per
            example and epoch with 'epoch', else per step and position in the batch.
    """

    places: Int[Array, " batch"]
    numbers: Int[Array, " batch"]


def draw_batch(
    sampler: Sampler,
    key: PRNGKeyArray,
    step: int | Integer[Array, ""],
    *,
    batch: int,
    n: int,
    table: ClassTable | None = None,
    at: Int[Array, " some"] | None = None,
) -> Batch:
    """The batch of one step, or a part of it.

    Args:
        sampler: how the batch is sampled.
        key: key of the sampling of a training run.
        step: number of the step, from 0; may be traced.
        batch: examples per step.
        n: number of examples of the task.
        table: class table of the task, required for 'class' and 'groups'.
        at: positions in the batch, whose examples are returned; default: all.

    Raises:
        ValueError: the batch is larger than the task, or a required table is missing.

    Example:
        >>> drawn = draw_batch(Sampler(), jax.random.key(0), 0, batch=4, n=4)
        >>> sorted(drawn.places.tolist())
        [0, 1, 2, 3]
    """
    place = jnp.arange(batch, dtype=jnp.int32) if at is None else at
    numbers = jnp.asarray(step, jnp.int32) * batch + place
    if sampler.kind == "epoch":
        per_epoch = n // batch
        if not per_epoch:
            raise ValueError(
                f"expected at least one batch of {batch}, got {n} examples"
            )
        epoch = jnp.asarray(step, jnp.int32) // per_epoch
        at = jnp.asarray(step, jnp.int32) % per_epoch * batch + place
        places = shuffled(key, epoch, at, n=n)
        return Batch(places, epoch * n + places)
    if table is None:
        raise ValueError(f"expected a class table for sampler {sampler.kind!r}")
    key = jax.random.fold_in(key, step)
    if sampler.kind == "groups":
        way = batch // sampler.group
        drawn = sample_episode(key, table, way=way, shot=sampler.group, n_query=0)
        return Batch(jnp.asarray(drawn.support).reshape(-1)[place], numbers)
    # The samples do not depend on the default of this flag.
    with stable_draws():
        which, where = jax.random.split(key)
        classes = jax.random.randint(
            which, (batch,), 0, table.counts.shape[0], dtype=jnp.int32
        )
        counts = jnp.asarray(table.counts, jnp.int32)[classes]
        chosen = jax.random.randint(where, (batch,), 0, counts, dtype=jnp.int32)
        classes, chosen = classes[place], chosen[place]
    return Batch(jnp.asarray(table.rows, jnp.int32)[classes, chosen], numbers)
