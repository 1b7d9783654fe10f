"""Methods whose classifier is a head: prototypes, matching and nearest neighbours."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxfer import heads
from jaxfer.heads import normalize
from jaxfer.memo import memoised
from jaxfer.methods.method import (
    Divisor,
    Method,
    Temperature,
    episode_sums,
    flat_support,
)
from jaxfer.types import Episode, Head, Params


@memoised(64)
def prototypes(
    distance: heads.Distance = "sqeuclidean",
    *,
    temperature: Temperature = 1.0,
    learn_temperature: bool = False,
    unit: bool = False,
) -> Method:
    """Prototypes, `p(k | x) = softmax_k(-d(f(x), c_k) / T)` (Snell et al. 2017, Eq. 2).

    The paper has T = 1. Squared distances grow with the dimension of the embeddings: in
    a thousand dimensions, T = 1 makes the first losses tens to hundreds of nats.

    Args:
        distance: 'sqeuclidean' or 'cosine'.
        temperature: T, a number above 0; or 'sqrt_dim', the square root of the
            dimension of the embeddings, as in scaled dot-product attention.
        learn_temperature: whether log T trains with the network, from that T on.
        unit: whether all embeddings are scaled to length 1 first, so that a prototype
            is the mean of directions. The paper does not say which mean its cosine
            distance uses.

    Raises:
        ValueError: a temperature that is not above 0.

    Example:
        >>> import jax
        >>> method = prototypes(temperature="sqrt_dim", learn_temperature=True)
        >>> method.init(jax.random.key(0), 64)["log_temperature"].item()
        2.07944...
    """

    def head(episode: Episode, divisor: Any) -> Head:
        sums = episode_sums(episode)
        return heads.prototype_head(sums, distance=distance, temperature=divisor)

    return _of_head("prototypes", head, distance, temperature, learn_temperature, unit)


@memoised(64)
def matching(
    distance: heads.Distance = "cosine",
    *,
    temperature: Temperature = 1.0,
    learn_temperature: bool = False,
    unit: bool = False,
) -> Method:
    """Matching networks, `p(k | x) = sum over S_k of softmax_i(-d(f(x), f(x_i)) / T)`.

    Vinyals et al. 2016 without full context embeddings, as in the comparison of Snell
    et al. 2017, section 2.6. With one shot it equals `prototypes`.

    Args:
        distance: 'cosine' or 'sqeuclidean'.
        temperature: see `prototypes`.
        learn_temperature: see `prototypes`.
        unit: see `prototypes`.

    Raises:
        ValueError: a temperature that is not above 0.

    Example:
        >>> episode = Episode(jnp.eye(2)[:, None], jnp.eye(2)[:, None], jnp.arange(2))
        >>> matching().logits({}, episode)[0, 0].round(2).tolist()
        [1.0, 0.0]
    """

    def head(episode: Episode, divisor: Any) -> Head:
        z, owner = flat_support(episode)
        return heads.matching_head(
            z,
            owner,
            num_classes=len(episode.support),
            distance=distance,
            temperature=divisor,
        )

    return _of_head("matching", head, distance, temperature, learn_temperature, unit)


@memoised(64)
def nearest(distance: heads.Distance = "sqeuclidean", *, unit: bool = False) -> Method:
    """Nearest neighbour: the class of the closest support example.

    Args:
        distance: 'sqeuclidean' or 'cosine'.
        unit: see `prototypes`.

    Example:
        >>> episode = Episode(jnp.eye(2)[:, None], jnp.eye(2)[:, None], jnp.arange(2))
        >>> nearest().logits({}, episode).argmax(-1).tolist()
        [[0], [1]]
    """

    def head(episode: Episode, divisor: Any) -> Head:
        del divisor
        z, owner = flat_support(episode)
        way = len(episode.support)
        return heads.nearest_head(z, owner, num_classes=way, distance=distance)

    return _of_head("nearest", head, distance, 1.0, False, unit)


def _of_head(
    name: str,
    head: Any,
    distance: heads.Distance,
    temperature: Temperature,
    learn: bool,
    unit: bool,
) -> Method:
    divisor = Divisor(temperature, learn)

    def logits(params: Params, episode: Episode) -> Array:
        support, query = (jnp.asarray(x) for x in episode[:2])
        if unit:
            support, query = normalize(support), normalize(query)
        scale = divisor.of(params, support.shape[-1])
        own = head(episode._replace(support=support), scale)
        return heads.head_logits(own, query)

    about: tuple[tuple[str, Any], ...] = (
        ("distance", distance),
        ("temperature", temperature),
    )
    if unit:
        about = (*about, ("unit", True))
    return Method(name, logits, lambda key, dim: divisor.init(dim), about)
