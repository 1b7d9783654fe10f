"""Full context embeddings of matching networks (Vinyals et al. 2016, appendix A)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxfer import heads
from jaxfer.heads.vectors import HIGHEST, wide
from jaxfer.keys import key_of, stable_draws
from jaxfer.memo import memoised
from jaxfer.methods.method import Divisor, Method, Temperature, flat_support
from jaxfer.types import Episode, Params

# Odd numbers that mix class numbers into one seed.
_MIX = np.uint32(2_654_435_761), np.uint32(2_246_822_519)


@memoised(64)
def matching_fce(
    distance: heads.Distance = "cosine",
    *,
    steps: int = 5,
    temperature: Temperature = 1.0,
    learn_temperature: bool = False,
) -> Method:
    """Matching networks with full context embeddings (Vinyals et al. 2016).

    A bidirectional LSTM runs over the support set in a random order that the classes of
    the episode determine, `g(x_i) = forward_i + backward_i + z_i`. Each query is
    embedded by an LSTM with K steps of attention over the support set:
    `r = sum_i softmax_i(h . g(x_i)) g(x_i)`, `(h', c) = LSTM(z, [h, r], c)`,
    `h = h' + z`, from h = 0. The classifier is that of `matching`.

    Args:
        distance: 'cosine' or 'sqeuclidean'.
        steps: K, at least 1.
        temperature: see `prototypes`.
        learn_temperature: see `prototypes`.

    Raises:
        ValueError: a temperature that is not above 0, or fewer steps than 1.

    Example:
        >>> method = matching_fce(steps=2)
        >>> params = method.init(jax.random.key(0), 2)
        >>> episode = Episode(jnp.eye(2)[:, None], jnp.eye(2)[:, None], jnp.arange(2))
        >>> method.logits(params, episode).shape
        (2, 1, 2)
    """
    divisor = Divisor(temperature, learn_temperature)
    if steps < 1:
        raise ValueError(f"expected steps of at least 1, got {steps}")

    def init(key: PRNGKeyArray, dim: int) -> Params:
        keys = jax.random.split(key, 3)
        own = {
            "forward": _lstm_params(keys[0], dim, dim),
            "backward": _lstm_params(keys[1], dim, dim),
            "attention": _lstm_params(keys[2], dim, 2 * dim),
        }
        return own | divisor.init(dim)

    def logits(params: Params, episode: Episode) -> Array:
        z, owner = flat_support(episode)
        query = wide(jnp.asarray(episode.query))
        order = _order(jnp.asarray(episode.classes), episode.support.shape[1])
        z, owner = wide(z)[order], owner[order]
        known = _in_context(params, z, owner >= 0)
        flat = query.reshape(-1, query.shape[-1])
        asked = _attended(params["attention"], flat, known, owner >= 0, steps)
        head = heads.matching_head(
            known,
            owner,
            num_classes=len(episode.support),
            distance=distance,
            temperature=divisor.of(params, z.shape[1]),
        )
        return heads.head_logits(head, asked.reshape(query.shape))

    about = (("distance", distance), ("temperature", temperature), ("steps", steps))
    return Method("matching_fce", logits, init, about)


def _in_context(
    params: Params, z: Float[Array, "n dim"], real: Bool[Array, " n"]
) -> Float[Array, "n dim"]:
    """The support embeddings in the context of the whole support set.

    Padding leaves the state of the LSTM as it is.
    """

    def run(params: Any, z: Array, reverse: bool) -> Array:
        def step(carry: tuple[Array, Array], given: tuple[Array, Array]) -> Any:
            x, counts = given
            new = _lstm(params, x, carry[0], carry[1])
            h, c = (jnp.where(counts, a, b) for a, b in zip(new, carry, strict=True))
            return (h, c), h

        start = jnp.zeros_like(z[0]), jnp.zeros_like(z[0])
        return jax.lax.scan(step, start, (z, real), reverse=reverse)[1]

    return z + run(params["forward"], z, False) + run(params["backward"], z, True)


def _attended(
    params: Any,
    z: Float[Array, "m dim"],
    known: Float[Array, "n dim"],
    real: Bool[Array, " n"],
    steps: int,
) -> Float[Array, "m dim"]:
    """The query embeddings after some steps of attention over the support set."""
    h = c = jnp.zeros_like(z)
    known = jnp.where(real[:, None], known, 0)
    for _ in range(steps):
        scores = jnp.matmul(h, known.T, precision=HIGHEST)
        share = jax.nn.softmax(jnp.where(real[None], scores, -jnp.inf))
        read = jnp.matmul(share, known, precision=HIGHEST)
        h, c = _lstm(params, z, jnp.concatenate([h, read], axis=-1), c)
        h = h + z
    return h


def _lstm(params: Any, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """One step of an LSTM: the new output and the new cell."""
    gates = jnp.matmul(x, params["input"], precision=HIGHEST)
    gates = gates + jnp.matmul(h, params["hidden"], precision=HIGHEST)
    gates = gates + jnp.broadcast_to(params["bias"], gates.shape)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _lstm_params(key: PRNGKeyArray, dim: int, hidden: int) -> Params:
    """Uniform weights of at most `1 / sqrt(dim)`, and zero biases."""
    limit = 1 / np.sqrt(dim)
    shapes = {"input": (dim, 4 * dim), "hidden": (hidden, 4 * dim)}
    with stable_draws():
        keys = jax.random.split(key, len(shapes))
        drawn = {
            name: jax.random.uniform(one, shape, jnp.float32, -limit, limit)
            for one, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
    return {**drawn, "bias": jnp.zeros((4 * dim,), jnp.float32)}


def _order(classes: Array, shot: int) -> Array:
    """A random order of the support set that depends on the classes alone.

    Each example has a random number of its own, so that the order of the others does
    not change where examples are added or left out.
    """
    mixed = (classes.astype(jnp.uint32) + 1) * _MIX[0]
    mixed = (mixed ^ (mixed >> 15)) * _MIX[1]

    def number(key: PRNGKeyArray, own: Array) -> Array:
        return jax.random.bits(jax.random.fold_in(key, own), dtype=jnp.uint32)

    with stable_draws():
        key = jax.random.fold_in(key_of(0), jnp.sum(mixed, dtype=jnp.uint32))
        keys = jax.vmap(lambda own: jax.random.fold_in(key, own))(mixed)
        places = jnp.arange(shot, dtype=jnp.uint32)
        each = jax.vmap(lambda key: jax.vmap(lambda i: number(key, i))(places))(keys)
    return jnp.argsort(each.reshape(-1))
