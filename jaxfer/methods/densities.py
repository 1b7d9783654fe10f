"""Prototypes under other divergences: learned scales, Gaussians, Bregman."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxfer import heads
from jaxfer.heads.vectors import wide
from jaxfer.memo import memoised
from jaxfer.methods.method import (
    Divisor,
    Method,
    Temperature,
    centred_support,
    episode_sums,
    flat_support,
    support_mask,
)
from jaxfer.types import Episode, Params


@memoised(64)
def diagonal(
    *, temperature: Temperature = 1.0, learn_temperature: bool = False
) -> Method:
    """Prototypes with one learned scale per dimension, `d = sum_j w_j (z_j - c_j)^2`.

    `w_j = exp(s_j)`, where s starts at 0 and trains with the network.

    Args:
        temperature: see `prototypes`.
        learn_temperature: see `prototypes`.

    Raises:
        ValueError: a temperature that is not above 0.

    Example:
        >>> diagonal().init(jax.random.key(0), 3)["log_scales"].tolist()
        [0.0, 0.0, 0.0]
    """
    divisor = Divisor(temperature, learn_temperature)

    def init(key: PRNGKeyArray, dim: int) -> Params:
        del key
        scales = {"log_scales": jnp.zeros((dim,), jnp.float32)}
        return scales | divisor.init(dim)

    def logits(params: Params, episode: Episode) -> Array:
        root = jnp.exp(jnp.asarray(params["log_scales"]) / 2)

        def scaled(z: Array) -> Array:
            return wide(z) * jnp.broadcast_to(root, z.shape)

        support, query = (scaled(jnp.asarray(x)) for x in episode[:2])
        sums = episode_sums(episode._replace(support=support))
        scale = divisor.of(params, len(root))
        return heads.head_logits(heads.prototype_head(sums, temperature=scale), query)

    return Method("diagonal", logits, init, (("temperature", temperature),))


@memoised(64)
def gaussians(strength: float = 10.0) -> Method:
    """One diagonal Gaussian per class (Snell et al. 2017, section 5).

    `logit_k = -1/2 sum_j ((z_j - c_kj)^2 / v_kj + log v_kj)`, where the variance v_kj
    is that of the support examples of the class, shrunk towards the one within all
    classes, u_j: `v_kj = (n s_kj + a u_j) / (n + a)`. With one shot u is the variance
    of all support examples, and all classes have the same v.

    Args:
        strength: a, the weight of u as a number of examples, above 0.

    Raises:
        ValueError: a strength that is not above 0.

    Example:
        >>> episode = Episode(jnp.eye(2)[:, None], jnp.eye(2)[:, None], jnp.arange(2))
        >>> gaussians().logits({}, episode).argmax(-1).tolist()
        [[0], [1]]
    """
    if not strength > 0:
        raise ValueError(f"expected a strength above 0, got {strength}")

    def logits(params: Params, episode: Episode) -> Array:
        del params
        support, query = (wide(jnp.asarray(x)) for x in episode[:2])
        real = support_mask(episode)[..., None]
        shots = real.sum(axis=1)
        means = heads.sums_means(episode_sums(episode))
        moved = jnp.where(real, support - means[:, None], 0)
        squares = (moved * moved).sum(axis=1)
        own = squares / jnp.broadcast_to(shots, squares.shape)
        # Where every class has one example, the variance is that of all examples.
        z, owner = flat_support(episode)
        _, _, apart = centred_support(wide(z), owner)
        total = (apart * apart).sum(axis=0) / shots.sum()
        within = squares.sum(axis=0) / jnp.maximum(shots.sum() - len(shots), 1)
        pooled = jnp.where(shots.sum() > len(shots), within, total)
        # Keeps the variance of constant dimensions, such as dead units, above 0.
        pooled = pooled + 1e-3 * pooled.mean() + jnp.finfo(pooled.dtype).tiny
        every = jnp.broadcast_to(pooled, own.shape)
        count = jnp.broadcast_to(shots, own.shape).astype(own.dtype)
        variance = (count * own + strength * every) / (count + strength)

        def scores(z: Array) -> Array:
            moved = jnp.broadcast_to(z, means.shape) - means
            terms = moved * moved / variance + jnp.log(variance)
            return -jnp.sum(terms, axis=1) / 2

        return jax.vmap(jax.vmap(scores))(query)

    return Method("gaussians", logits, about=(("strength", strength),))


@memoised(64)
def bregman(generator: Callable[[Float[Array, " dim"]], Float[Array, ""]]) -> Method:
    """Prototypes under the Bregman divergence of a generator, `-d(f(x), c_k)`.

    The class mean is the best representative under every Bregman divergence (Snell et
    al. 2017, section 2.3); see `bregman_divergence`.

    Args:
        generator: the strictly convex function, from a vector to a number.

    Example:
        >>> episode = Episode(jnp.eye(2)[:, None], jnp.eye(2)[:, None], jnp.arange(2))
        >>> bregman(lambda z: (z * z).sum()).logits({}, episode)[0, 0].tolist()
        [-0.0, -2.0]
    """

    def logits(params: Params, episode: Episode) -> Array:
        del params
        query = wide(jnp.asarray(episode.query))
        flat = query.reshape(-1, query.shape[-1])
        means = heads.sums_means(episode_sums(episode))
        far = heads.bregman_divergence(generator, flat, means)
        return -far.reshape(*query.shape[:2], -1)

    return Method("bregman", logits)
