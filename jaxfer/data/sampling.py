"""Which examples a training step on labelled images takes, as pure functions.

A step asks for its own batch by its number, inside the compiled step, so there is no
list of an epoch to keep and a resumed run takes the same examples.
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
    """How the batches of a training are drawn.

    Attributes:
        kind: 'epoch' takes each example once per epoch, in a new order each time, and
            leaves out what remains after whole batches. 'class' draws a class uniformly
            for each place of the batch, then one of its examples: small classes are
            oversampled to the same frequency as large ones. 'groups' draws classes
            without replacement and `group` examples of each, for losses over pairs.
        group: examples per class in a batch of 'groups'.

    Raises:
        ValueError: fewer than one example per class.

    Example:
        >>> Sampler("groups", group=2).kind
        'groups'
    """

    kind: Literal["epoch", "class", "groups"] = "epoch"
    group: int = 4

    def __post_init__(self) -> None:
        """Refuse groups without examples."""
        if self.group < 1:
            raise ValueError(f"expected group of at least 1, got {self.group}")


class Drawn(NamedTuple):
    """The examples of one batch.

    Attributes:
        places: their positions among the examples of the task.
        numbers: a number for each, from which random augmentation is drawn: with
            'epoch' unique to the example and the epoch, else to the step and the place.
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
) -> Drawn:
    """The batch of one step.

    Args:
        sampler: how it is drawn.
        key: of the order of a training.
        step: its number, from 0; may be traced.
        batch: examples per step.
        n: examples of the task.
        table: the class table of the task, needed for 'class' and 'groups'.

    Raises:
        ValueError: a batch larger than the task, or no table where one is needed.

    Example:
        >>> drawn = draw_batch(Sampler(), jax.random.key(0), 0, batch=4, n=4)
        >>> sorted(drawn.places.tolist())
        [0, 1, 2, 3]
    """
    place = jnp.arange(batch, dtype=jnp.int32)
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
        return Drawn(places, epoch * n + places)
    if table is None:
        raise ValueError(f"expected a class table for sampler {sampler.kind!r}")
    key = jax.random.fold_in(key, step)
    if sampler.kind == "groups":
        way = batch // sampler.group
        drawn = sample_episode(key, table, way=way, shot=sampler.group, n_query=0)
        return Drawn(jnp.asarray(drawn.support).reshape(-1), numbers)
    # The same draws whatever the default of this flag.
    with stable_draws():
        which, where = jax.random.split(key)
        classes = jax.random.randint(
            which, (batch,), 0, table.counts.shape[0], dtype=jnp.int32
        )
        counts = jnp.asarray(table.counts, jnp.int32)[classes]
        chosen = jax.random.randint(where, (batch,), 0, counts, dtype=jnp.int32)
    return Drawn(jnp.asarray(table.rows, jnp.int32)[classes, chosen], numbers)
