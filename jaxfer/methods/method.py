"""What an episodic classifier is, and the temperature that several of them have."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxfer import heads
from jaxfer.ranges import Positive
from jaxfer.types import ClassSums, Episode, Params


class Adaptation(NamedTuple):
    """Gradient descent of the whole network on each support set.

    Attributes:
        steps: number of steps.
        first_order: whether training takes no derivatives through the steps.
        rate: the learning rate; None if its logarithm is a parameter, "log_rate".
    """

    steps: int
    first_order: bool = False
    rate: float | None = None


@dataclass(frozen=True)
class Method:
    """An episodic classifier.

    Attributes:
        name: the name of the method in results.
        logits: `logits(params, episode)` returns the `[way, n_query, way]` logits of an
            embedded episode; those of the head alone where the network is adapted.
        init: `init(key, dim)` initialises its parameters; {} for methods without any.
            They train with the network's and are kept in `Model.params["method"]`.
        about: (name, value) pairs that a trained model keeps in `about["method"]`.
        least_shot: the fewest support examples per class that it needs; 0 for zero-shot
            methods, which use none.
        separate: whether support examples are embedded by a network of their own, whose
            parameters are kept in `Model.params["support"]`.
        num_classes: the number of classes of the data that it is for; None for any.
        adaptation: how the network itself is adapted to each support set; None for
            methods that classify its embeddings.
    """

    name: str
    logits: Callable[[Params, Episode], Float[Array, "way n_query way"]]
    init: Callable[[PRNGKeyArray, int], Params] = lambda key, dim: {}
    about: tuple[tuple[str, Any], ...] = ()
    least_shot: int = 1
    adaptation: Adaptation | None = None
    separate: bool = False
    num_classes: int | None = None

    @property
    def needs_images(self) -> bool:
        """Whether it embeds images in a way of its own, and accepts no embeddings."""
        return self.separate or self.adaptation is not None


def with_support_encoder(method: Method) -> Method:
    """The method with an encoder of its own for support examples.

    It is g of Vinyals et al. 2016, beside f for queries; Snell et al. 2017, section
    2.5, name this extension. Both start from the same parameters, and each has its own
    BatchNorm statistics.

    Args:
        method: a method that classifies embeddings.

    Raises:
        ValueError: a method that adapts the network or uses no support examples.

    Example:
        >>> from jaxfer.methods import matching
        >>> with_support_encoder(matching()).separate
        True
    """
    if method.adaptation is not None or not method.least_shot:
        raise ValueError(
            "expected a method that classifies embeddings of support examples, got "
            f"{method.name!r}"
        )
    about = (*method.about, ("separate", True))
    return dataclasses.replace(method, separate=True, about=about)


# The divisor of distances: a number, or the root of the embeddings' dimension.
Temperature = Positive | Literal["sqrt_dim"]


def divisor_of(
    temperature: Temperature, dim: int, params: Params | None = None
) -> float | Float[Array, ""]:
    """The number that distances are divided by: the learned one, if there is one.

    Args:
        temperature: a number, or 'sqrt_dim'.
        dim: the dimension of the embeddings.
        params: the parameters of a method.

    Raises:
        ValueError: a number that is not above 0.

    Example:
        >>> divisor_of("sqrt_dim", 64)
        8.0
    """
    if params and "log_temperature" in params:
        return jnp.exp(jnp.asarray(params["log_temperature"]))
    divisor = math.sqrt(dim) if temperature == "sqrt_dim" else float(temperature)
    if not 0 < divisor < math.inf:
        raise ValueError(
            "expected temperature 'sqrt_dim' or a finite number above 0, got "
            f"{temperature}"
        )
    return divisor


@dataclass(frozen=True)
class Divisor:
    """The temperature of a method, fixed or trained with the network.

    Attributes:
        temperature: the temperature; its initial value if it is learned.
        learn: whether its logarithm is a parameter.

    Raises:
        ValueError: a temperature that is not above 0.
    """

    temperature: Temperature
    learn: bool

    def __post_init__(self) -> None:
        """Refuse a bad temperature here, before anything is compiled."""
        divisor_of(self.temperature, 1)

    def init(self, dim: int) -> Params:
        """The parameters for embeddings of a dimension; none if it is fixed."""
        if not self.learn:
            return {}
        start = jnp.float32(divisor_of(self.temperature, dim))
        return {"log_temperature": jnp.log(start)}

    def of(self, params: Params, dim: int) -> float | Float[Array, ""]:
        """The number that distances are divided by, given a method's parameters."""
        return divisor_of(self.temperature, dim, params if self.learn else None)


def flat_support(episode: Episode) -> tuple[Array, Array]:
    """The support embeddings `[way * shot, dim]` and their classes, from 0.

    Padding of an unbalanced support set has the class -1, as heads expect it.
    """
    support = jnp.asarray(episode.support)
    way, shot = support.shape[:2]
    owner = jnp.broadcast_to(jnp.arange(way, dtype=jnp.int32)[:, None], (way, shot))
    if episode.shots is not None:
        owner = jnp.where(support_mask(episode), owner, -1)
    return support.reshape(way * shot, -1), owner.reshape(-1)


def centred_support(z: Array, owner: Array) -> tuple[Array, Array, Array]:
    """A mask of the examples that are no padding, their mean, and z minus the mean.

    Args:
        z: `[n, dim]`, see `flat_support`.
        owner: `[n]`, -1 for padding.

    Returns:
        The mask `[n, 1]`, the mean `[dim]`, and the centred z, which is 0 for padding.
    """
    real = owner[:, None] >= 0
    middle = jnp.where(real, z, 0).sum(axis=0) / real.sum()
    return real, middle, jnp.where(real, z - middle[None], 0)


def support_mask(episode: Episode) -> Array:
    """Which support examples are no padding, `[way, shot]`."""
    way, shot = episode.support.shape[:2]
    places = jnp.broadcast_to(jnp.arange(shot, dtype=jnp.int32)[None], (way, shot))
    if episode.shots is None:
        return jnp.ones_like(places, bool)
    return places < jnp.asarray(episode.shots)[:, None]


def episode_sums(episode: Episode) -> ClassSums:
    """The class sums of an embedded episode, without padding."""
    if episode.shots is None:
        return heads.support_sums(jnp.asarray(episode.support))
    z, owner = flat_support(episode)
    return heads.class_sums(z, owner, num_classes=len(episode.support))
