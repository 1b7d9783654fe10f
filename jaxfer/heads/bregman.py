"""Bregman divergences and class densities (Snell et al. 2017, section 2.3)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxfer.heads.logits import row_scores
from jaxfer.heads.vectors import HIGHEST, wide
from jaxfer.types import AnyArray, Head


def bregman_divergence(
    generator: Callable[[Float[Array, " dim"]], Float[Array, ""]],
    a: Float[Array, "n dim"],
    b: Float[Array, "m dim"],
) -> Float[Array, "n m"]:
    """Bregman divergences, `d(a, b) = phi(a) - phi(b) - <a - b, grad phi(b)>`.

    Snell et al. 2017, section 2.3. With `phi(z) = |z|^2` it is the squared Euclidean
    distance, with `sum z log z` the generalised Kullback-Leibler divergence. The mean
    of a set of points minimises the sum of their divergences to it.

    Args:
        generator: phi, a strictly convex, differentiable function.
        a: `[n, dim]`.
        b: `[m, dim]`, such as prototypes.

    Raises:
        ValueError: points outside the domain of phi, where it or its gradient is not
            finite; under jit the result is NaN or infinite instead.

    Example:
        >>> points = jnp.array([[3.0, 4.0], [1.0, 1.0]])
        >>> bregman_divergence(lambda z: (z * z).sum(), points, points).tolist()
        [[0.0, 13.0], [13.0, 0.0]]
    """
    a, b = wide(a), wide(b)
    of_a = jax.vmap(generator)(a)
    of_b, slope = jax.vmap(jax.value_and_grad(generator))(b)
    for what, values in (("a", of_a), ("b", of_b), ("the gradient at b", slope)):
        if not isinstance(values, Tracer) and not np.isfinite(values).all():
            raise ValueError(
                "expected points in the domain of the generator, got values of "
                f"{what} that are not finite"
            )
    inner = jnp.matmul(a, slope.T, precision=HIGHEST)
    own = jnp.sum(b * slope, axis=1) - of_b
    shape = inner.shape
    return jnp.broadcast_to(of_a[:, None], shape) - inner + jnp.broadcast_to(own, shape)


def mixture_log_density(
    head: Head,
    z: Float[Array, "n dim"],
    priors: Float[AnyArray, " m"] | None = None,
) -> Float[Array, " n"]:
    """The log density of embeddings under a mixture with one component per prototype.

    `log p(z) = log sum_k pi_k exp(-s |z - c_k|^2) + dim / 2 log(s / pi)` (Snell et al.
    2017, section 2.3): Gaussians with the variance `1 / (2 s)` around the rows of the
    head, s its scale. It is low for embeddings far from all prototypes, so it can be
    used to reject unknown classes.

    Args:
        head: a head of squared distances with one scale, such as `prototype_head`.
        z: `[n, dim]`, embeddings.
        priors: `[m]`, the share of each row; default: equal shares of all rows that
            have an owner.

    Raises:
        ValueError: a head of another form, or priors that do not fit it.

    Example:
        >>> from jaxfer import prototype_head, support_sums
        >>> head = prototype_head(support_sums(jnp.array([[[0.0]], [[2.0]]])))
        >>> near, far = mixture_log_density(head, jnp.array([[0.0], [9.0]]))
        >>> bool(near > far)
        True
    """
    if head.centre is None or jnp.ndim(head.scale):
        raise ValueError(
            "expected a head of squared distances with one scale, such as "
            "prototype_head makes, got another form"
        )
    m, dim = head.weight.shape
    used = head.owner >= 0
    share = used / jnp.sum(used) if priors is None else jnp.asarray(priors)
    if share.shape != (m,):
        raise ValueError(f"expected priors of shape ({m},), got {share.shape}")
    # Scores have no |z - centre|^2, which all rows share.
    moved = wide(z) - jnp.broadcast_to(jnp.asarray(head.centre), z.shape)
    scores = row_scores(head, z) + jnp.broadcast_to(jnp.log(share), (len(z), m))
    common = dim / 2 * jnp.log(head.scale / jnp.pi)
    return (
        jax.nn.logsumexp(scores, axis=1)
        - head.scale * jnp.sum(moved * moved, axis=1)
        + common
    )


def with_priors(head: Head, priors: Float[AnyArray, " m"]) -> Head:
    """A head whose logits include class priors: `b_k + log pi_k`.

    Args:
        head: the head; priors multiply the probabilities of its rows.
        priors: `[m]`, above 0, for each row.

    Raises:
        ValueError: priors that do not fit the head.

    Example:
        >>> from jaxfer import head_logits, linear_head
        >>> head = linear_head(jax.random.key(0), 2, 2)
        >>> skewed = with_priors(head, jnp.array([0.9, 0.1]))
        >>> jax.nn.softmax(head_logits(skewed, jnp.zeros(2))).round(1).tolist()
        [0.9..., 0.1...]
    """
    if np.shape(priors) != np.shape(head.owner):
        raise ValueError(
            f"expected priors of shape {np.shape(head.owner)}, got {np.shape(priors)}"
        )
    bias = jnp.broadcast_to(head.bias, np.shape(priors)) + jnp.log(priors)
    return dataclasses.replace(head, bias=bias)
