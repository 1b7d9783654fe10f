"""Linear classifiers of the support set: ridge, logistic regression, ANIL and MAML.

The first two are solved in the span of the examples, whose number is far below the
dimension of the embeddings.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxfer.heads.vectors import HIGHEST, wide
from jaxfer.memo import memoised
from jaxfer.methods.method import (
    Adaptation,
    Method,
    centred_support,
    flat_support,
)
from jaxfer.types import Episode, Params


@memoised(64)
def ridge(penalty: float = 1.0) -> Method:
    """Ridge regression onto the classes, in closed form; see `ridge_head`.

    `W = Z^T (Z Z^T + penalty tr(Z Z^T) / n I)^-1 Y` for n centred support embeddings Z
    and centred targets Y of 0 and 1, the dual form of `ridge_head`.

    Args:
        penalty: above 0.

    Raises:
        ValueError: a penalty that is not above 0.

    Example:
        >>> episode = Episode(jnp.eye(2)[:, None], jnp.eye(2)[:, None], jnp.arange(2))
        >>> ridge().logits({}, episode).argmax(-1).tolist()
        [[0], [1]]
    """
    _check_penalty(penalty)

    def logits(params: Params, episode: Episode) -> Array:
        del params
        z, owner, query = _examples(episode)
        y = jax.nn.one_hot(owner, len(episode.support), dtype=z.dtype)
        real, middle, z = centred_support(z, owner)
        count = real.sum()
        # Padding has the target 0 and the embedding 0, and so the weight 0.
        share = y.sum(axis=0) / count
        y = jnp.where(real, y - share[None], 0)
        gram = jnp.matmul(z, z.T, precision=HIGHEST)
        trace = jnp.trace(gram)
        spread = jnp.where(trace > 0, trace / count, 1)
        added = penalty * spread * jnp.eye(len(z), dtype=z.dtype)
        dual = jax.scipy.linalg.solve(gram + added, y, assume_a="pos")
        products = jnp.matmul(_minus(query, middle), z.T, precision=HIGHEST)
        scores = jnp.matmul(products, dual, precision=HIGHEST)
        return scores + jnp.broadcast_to(share, scores.shape)

    return Method("ridge", logits, about=(("penalty", penalty),))


@memoised(64)
def logistic(penalty: float = 1.0, steps: int = 50) -> Method:
    """Multinomial logistic regression on the support set, by L-BFGS.

    It minimises `sum_i -log softmax(W z_i + b)[y_i] + penalty / 2 |W|^2`. Use it to
    evaluate embeddings: gradients through it are not supported.

    Args:
        penalty: above 0.
        steps: steps of L-BFGS, at least 1.

    Raises:
        ValueError: a penalty that is not above 0, or fewer steps than 1.

    Example:
        >>> episode = Episode(jnp.eye(2)[:, None], jnp.eye(2)[:, None], jnp.arange(2))
        >>> logistic(steps=5).logits({}, episode).argmax(-1).tolist()
        [[0], [1]]
    """
    _check_penalty(penalty)
    if steps < 1:
        raise ValueError(f"expected steps of at least 1, got {steps}")

    def logits(params: Params, episode: Episode) -> Array:
        del params
        z, owner, query = _examples(episode)
        # The solution lies in the span of the examples, centred for accuracy: the
        # intercept takes up the difference.
        real, middle, z = centred_support(z, owner)
        query = _minus(query, middle)
        gram = jnp.matmul(z, z.T, precision=HIGHEST)
        values, vectors = jnp.linalg.eigh(gram)
        enough = values > 1e-6 * values[-1]
        root = jnp.sqrt(jnp.where(enough, values, 1))
        axes = jnp.where(enough[None], vectors / root[None], 0)
        x = jnp.matmul(gram, axes, precision=HIGHEST)

        def loss(weights: tuple[Array, Array]) -> Array:
            w, b = weights
            scores = jnp.matmul(x, w, precision=HIGHEST) + b[None]
            target = jnp.maximum(owner, 0)
            nll = optax.softmax_cross_entropy_with_integer_labels(scores, target)
            kept = jnp.where(real[:, 0], nll, 0)
            return kept.sum() + penalty / 2 * jnp.sum(w * w)

        way = len(episode.support)
        start = jnp.zeros((len(z), way), z.dtype), jnp.zeros((way,), z.dtype)
        w, b = _minimised(loss, start, steps)
        products = jnp.matmul(query, z.T, precision=HIGHEST)
        reduced = jnp.matmul(products, axes, precision=HIGHEST)
        scores = jnp.matmul(reduced, w, precision=HIGHEST)
        return scores + jnp.broadcast_to(b, scores.shape)

    return Method("logistic", logits, about=(("penalty", penalty), ("steps", steps)))


@memoised(64)
def anil(steps: int = 5, rate: float = 0.1) -> Method:
    """ANIL: a linear head that is adapted to each support set (Raghu et al. 2020).

    `W <- W - r / n sum_i (softmax(W z_i + b) - y_i) z_i^T`, and the same for b, from
    W = 0 and b = 0. The network trains through all steps, with second derivatives, and
    so does log r. It is MAML (Finn et al. 2017) whose inner loop changes the head
    alone.

    Args:
        steps: steps of gradient descent, at least 1.
        rate: r before training, above 0.

    Raises:
        ValueError: fewer steps than 1, or a rate that is not above 0.

    Example:
        >>> anil().init(jax.random.key(0), 3)["log_rate"].round(3).item()
        -2.30...
    """
    if steps < 1 or not rate > 0:
        raise ValueError(
            f"expected steps of at least 1 and a rate above 0, got {steps} and {rate}"
        )

    def init(key: PRNGKeyArray, dim: int) -> Params:
        del key, dim
        return {"log_rate": jnp.log(jnp.float32(rate))}

    def logits(params: Params, episode: Episode) -> Array:
        z, owner, query = _examples(episode)
        y = jax.nn.one_hot(owner, len(episode.support), dtype=z.dtype)
        real = owner[:, None] >= 0
        step = jnp.exp(jnp.asarray(params["log_rate"])) / real.sum()
        w, b = jnp.zeros((z.shape[1], y.shape[1]), z.dtype), jnp.zeros_like(y[0])
        for _ in range(steps):
            scores = jnp.matmul(z, w, precision=HIGHEST)
            gap = jnp.where(real, jax.nn.softmax(scores + b[None]) - y, 0)
            w = w - step * jnp.matmul(z.T, gap, precision=HIGHEST)
            b = b - step * gap.sum(axis=0)
        scores = jnp.matmul(query, w, precision=HIGHEST)
        return scores + jnp.broadcast_to(b, scores.shape)

    return Method("anil", logits, init, (("steps", steps),))


@memoised(64)
def maml(steps: int = 5, rate: float = 0.1, *, first_order: bool = False) -> Method:
    """MAML: the whole network is adapted to each support set (Finn et al. 2017).

    See `jaxfer.models.adapted_logits` for the adaptation. It needs images, and takes
    several times as long as methods that classify embeddings. Training uses the
    BatchNorm statistics of the episode, tests use running ones, so that the prediction
    of a query depends on no other query. Its `logits` of an embedded episode are those
    of `anil`, which adapts the head alone.

    Args:
        steps: steps of gradient descent, at least 1; the first changes the head alone.
        rate: the learning rate before training, above 0; its logarithm is trained.
        first_order: whether training ignores second derivatives.

    Raises:
        ValueError: fewer steps than 1, or a rate that is not above 0.

    Example:
        >>> maml(steps=2).adaptation
        Adaptation(steps=2, first_order=False, rate=None)
    """
    head = anil(steps, rate)
    about = (("steps", steps), ("first_order", first_order))
    how = Adaptation(steps, first_order)
    return Method("maml", head.logits, head.init, about, adaptation=how)


@memoised(64)
def fine_tuning(steps: int = 20, rate: float = 0.05) -> Method:
    """Fine-tuning: the network and a new linear head are trained on the support set.

    It is the baseline of Ravi and Larochelle 2017 for the network of a classifier of
    the training classes, with plain gradient descent; see
    `jaxfer.models.adapted_logits`. Its `logits` of an embedded episode are those of
    `anil`, which trains the head alone.

    Args:
        steps: steps of gradient descent, at least 1; the first changes the head alone.
        rate: the learning rate, above 0.

    Raises:
        ValueError: fewer steps than 1, or a rate that is not above 0.

    Example:
        >>> fine_tuning().adaptation.steps
        20
    """
    head = anil(steps, rate)
    own = {"log_rate": jnp.log(jnp.float32(rate))}
    return Method(
        "fine_tuning",
        lambda params, episode: head.logits(own, episode),
        about=(("steps", steps), ("rate", rate)),
        adaptation=Adaptation(steps, True, rate),
    )


def _minimised(loss: Any, start: Any, steps: int) -> Any:
    """The point that L-BFGS reaches."""
    search = optax.scale_by_backtracking_linesearch(20, store_grad=True)
    solver = optax.lbfgs(linesearch=search)
    both = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        point, state = carry
        value, gradient = both(point, state=state)
        how = {"value": value, "grad": gradient, "value_fn": loss}
        update, state = solver.update(gradient, state, point, **how)
        return (optax.apply_updates(point, update), state), None

    (point, _), _ = jax.lax.scan(step, (start, solver.init(start)), length=steps)
    return point


def _examples(
    episode: Episode,
) -> tuple[Float[Array, "n dim"], Array, Float[Array, "way n_query dim"]]:
    z, owner = flat_support(episode)
    return wide(z), owner, wide(jnp.asarray(episode.query))


def _minus(query: Array, middle: Array) -> Array:
    return query - jnp.broadcast_to(middle, query.shape)


def _check_penalty(penalty: float) -> None:
    if not penalty > 0:
        raise ValueError(f"expected a penalty above 0, got {penalty}")
