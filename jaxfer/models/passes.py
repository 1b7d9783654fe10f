"""Embed episodes, and adapt a network to a support set."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxfer.heads.vectors import HIGHEST, wide
from jaxfer.methods import Method
from jaxfer.nets.convolution import convolutions_as_products
from jaxfer.types import EVAL, AnyArray, Episode, Modes, Net, Params, State


def embed_together(
    net: Net,
    params: Params,
    state: State,
    episode: Episode,
    mode: Modes,
    *,
    rng: PRNGKeyArray | None = None,
) -> tuple[Episode, State]:
    """Embed support and query in one pass, or with one encoder each.

    Args:
        net: the backbone.
        params: its parameters by layer; those of an encoder for support examples in
            "support".
        state: its running statistics, in the same way.
        episode: an episode of preprocessed images.
        mode: how layers run: in training mode BatchNorm uses the statistics of support
            and query together, or of each with an encoder for it.
        rng: the random key for layers that need one.

    Returns:
        The episode of embeddings, and the statistics after the pass.
    """
    support, query = episode[:2]
    both = [flat(x) for x in (support, query)]
    how = {"mode": mode, "rng": rng}
    if not len(both[0]):
        # Episodes without support examples, for zero-shot classification.
        z_query, state = net.apply(params, state, both[1], **how)
        z_support = z_query[:0]
    elif "support" in params:
        z_support, own = net.apply(params["support"], state["support"], both[0], **how)
        z_query, state = net.apply(params, state, both[1], **how)
        state = {**state, "support": own}
    else:
        z, state = net.apply(params, state, jnp.concatenate(both), **how)
        z_support, z_query = jnp.split(z, [len(both[0])])
    dim = z_query.size // len(z_query)
    embedded = episode._replace(
        support=z_support.reshape(*support.shape[:2], dim),
        query=z_query.reshape(*query.shape[:2], dim),
    )
    return embedded, state


def flat(x: AnyArray) -> Array:
    """The items of all classes, `[way * n, ...]`; n may be 0."""
    return jnp.asarray(x).reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def adapted_logits(
    net: Net,
    params: Params,
    state: State,
    episode: Episode,
    method: Method,
    mode: Modes = EVAL,
    *,
    rng: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "way n_query way"], State]:
    """The logits of a network that is adapted to the support set (Finn et al. 2017).

    From the parameters theta of the network and a linear head of zeros, a few steps of
    `theta <- theta - r grad L(theta)` follow, where L is the mean cross-entropy of the
    support set. Training differentiates through all steps; with `first_order`, their
    gradients are constants.

    Args:
        net: the backbone.
        params: its parameters by layer; those of the method in "method".
        state: its running statistics.
        episode: an episode of preprocessed images.
        method: `jaxfer.methods.maml` or `fine_tuning`.
        mode: how layers run. With batch statistics, the support set has its own in each
            step, and support and query share those of the last pass.
        rng: the random key for layers that need one.

    Returns:
        The logits, and the statistics after the last pass.

    Raises:
        ValueError: a method that does not adapt the network.

    Example:
        >>> from jaxfer.methods import fine_tuning
        >>> from jaxfer.nets import Flatten
        >>> images = jnp.eye(4).reshape(2, 2, 2, 2, 1)
        >>> episode = Episode(images, images, jnp.arange(2))
        >>> logits, _ = adapted_logits(
        ...     Flatten().build(), {}, {}, episode, fine_tuning()
        ... )
        >>> logits.argmax(-1).tolist()
        [[0, 0], [1, 1]]
    """
    if method.adaptation is None:
        raise ValueError(
            f"expected a method that adapts the network, got {method.name!r}"
        )
    steps, first_order, fixed = method.adaptation
    way, shot = episode.support.shape[:2]
    support = flat(episode.support)
    owner = jnp.repeat(jnp.arange(way, dtype=jnp.int32), shot)
    rate = fixed or jnp.exp(jnp.asarray(params["method"]["log_rate"]))
    own = {name: params.get(name, {}) for name in net.layers}

    def embedded(own: Params) -> Array:
        z, _ = net.apply(own, state, support, mode=mode, rng=rng)
        return wide(z.reshape(len(support), -1))

    # The kernels of the adapted network differ between episodes, and a convolution
    # vmapped over kernels is slow on a CPU.
    with convolutions_as_products():
        z = jax.eval_shape(embedded, own)
        head = jnp.zeros((z.shape[1], way), z.dtype), jnp.zeros((way,), z.dtype)
        fast = own, head

        def loss(fast: tuple[Params, tuple[Array, Array]]) -> Array:
            scores = _scores(embedded(fast[0]), fast[1])
            return optax.softmax_cross_entropy_with_integer_labels(scores, owner).mean()

        def step(fast: Any, _: None) -> tuple[Any, None]:
            gradient = jax.grad(loss)(fast)
            if first_order:
                gradient = lax.stop_gradient(gradient)
            return jax.tree.map(lambda x, g: x - rate * g, fast, gradient), None

        (own, head), _ = lax.scan(step, fast, length=steps)
        together, state = embed_together(net, own, state, episode, mode, rng=rng)
    return _scores(wide(jnp.asarray(together.query)), head), state


def _scores(z: Array, head: tuple[Array, Array]) -> Array:
    kernel, bias = head
    scores = jnp.matmul(z, kernel, precision=HIGHEST)
    return scores + jnp.broadcast_to(bias, scores.shape)
