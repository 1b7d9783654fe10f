"""One head as another: where prototypes, imprinted and linear heads are the same."""

import dataclasses

import jax.numpy as jnp

from jaxfer.heads.vectors import normalize, wide
from jaxfer.types import Head


def as_linear(head: Head) -> Head:
    """The linear head `<w_k, z> + b_k` of a head, its scale folded into the rows.

    The logits are those of the head: everywhere, or, where the head normalises, on
    embeddings of length 1 (Qi et al. 2018, Eqs. 4 and 5).

    Example:
        >>> rows, zero = jnp.array([[0.0, 2.0]]), jnp.zeros(1)
        >>> head = Head(rows, zero, 10.0, zero, num_classes=1, unit=True)
        >>> as_linear(head).weight.tolist()
        [[0.0, 10.0]]
    """
    rows = normalize(head.weight) if head.unit else wide(head.weight)
    scale = jnp.broadcast_to(jnp.asarray(head.scale, rows.dtype), rows.shape[:1])
    return dataclasses.replace(
        head,
        weight=scale[:, None] * rows,
        scale=jnp.ones((), rows.dtype),
        unit=False,
    )


def as_prototypes(head: Head) -> Head:
    """The prototype head, `-s/2 |z - c_k|^2`, of an imprinted one.

    On embeddings of length 1 the squared distance to a unit row is `2 - 2 <c, z>` (Qi
    et al. 2018, Eq. 3), so the nearest row in cosine is the nearest in space, and the
    probabilities are the same; plain squared distances, s/2 = 1, are a cosine softmax
    of scale 2. As in `prototype_head` the logits lack the common `-s/2 |z|^2`.

    Raises:
        ValueError: a head that does not normalise, or that has a scale for each class.

    Example:
        >>> rows, zero = jnp.array([[0.0, 3.0]]), jnp.zeros(1)
        >>> head = Head(rows, zero, 2.0, zero, num_classes=1, unit=True)
        >>> as_prototypes(head).weight.tolist(), as_prototypes(head).bias.tolist()
        ([[0.0, 2.0]], [-1.0])
    """
    scale = jnp.asarray(head.scale)
    if not head.unit or scale.ndim:
        kind = "scales of shape " + str(scale.shape) if head.unit else "unit = False"
        raise ValueError(
            f"found a head with {kind}, needed an imprinted one (unit = True) with one "
            "scale: only there are cosines squared distances"
        )
    rows = normalize(head.weight)
    return dataclasses.replace(
        head,
        weight=2 * rows,
        bias=head.bias - scale / 2,
        scale=(scale / 2).astype(rows.dtype),
        unit=False,
    )


def as_cosine(head: Head, *, scale: float = 10.0) -> Head:
    """The cosine head `s <w_k/|w_k|, z/|z|>` on the rows of any head, without biases.

    Of prototypes on the sphere it is the same classifier, softmax over negative squared
    distances with `scale` 2; of a trained linear classifier it is a start for training.

    Example:
        >>> head = Head(jnp.array([[0.0, 5.0]]), jnp.ones(1), 1.0, jnp.zeros(1), 1)
        >>> as_cosine(head).weight.tolist(), as_cosine(head).bias.tolist()
        ([[0.0, 1.0]], [0.0])
    """
    rows = normalize(head.weight)
    return dataclasses.replace(
        head,
        weight=rows,
        bias=jnp.zeros_like(rows[:, 0]),
        scale=jnp.asarray(scale, rows.dtype),
        unit=True,
    )
