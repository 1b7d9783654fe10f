"""Conversions between equivalent prototype, imprinted and linear heads."""

import dataclasses

import jax.numpy as jnp

from jaxfer.heads.vectors import HIGHEST, normalize, wide
from jaxfer.types import Head


def as_linear(head: Head) -> Head:
    """The linear head `<w_k, z> + b_k` of a head, with scale and centre folded in.

    Its logits equal those of the head for all embeddings or, if the head normalises,
    for embeddings of length 1 (Qi et al. 2018, Eqs. 4 and 5). The linear form of
    squared distances is that of Snell et al. 2017, Eq. 8, around the centre m of the
    head: `w_k = 2 (c_k - m)` and `b_k = |m|^2 - |c_k|^2`.

    Example:
        >>> rows, zero = jnp.array([[0.0, 2.0]]), jnp.zeros(1)
        >>> head = Head(rows, zero, 10.0, zero, num_classes=1, unit=True)
        >>> as_linear(head).weight.tolist()
        [[0.0, 10.0]]
    """
    rows, bias = wide(head.weight), head.bias
    scale = jnp.broadcast_to(jnp.asarray(head.scale, rows.dtype), rows.shape[:1])
    if head.unit:
        rows = normalize(rows)
    elif head.centre is not None:
        centre = jnp.broadcast_to(head.centre, rows.shape)
        # Compute |m|^2 - |c|^2 as a product, which avoids cancellation.
        bias = bias - scale * jnp.einsum(
            "md,md->m", rows - centre, rows + centre, precision=HIGHEST
        )
        rows = 2 * (rows - centre)
    return dataclasses.replace(
        head,
        weight=scale[:, None] * rows,
        bias=bias,
        scale=jnp.ones((), rows.dtype),
        unit=False,
        centre=None,
    )


def as_prototypes(head: Head) -> Head:
    """The prototype head, `-s/2 |z - c_k|^2`, of an imprinted head.

    For embeddings of length 1 the squared distance to a unit row is `2 - 2 <c, z>` (Qi
    et al. 2018, Eq. 3), so the row with the highest cosine is the nearest row, and the
    probabilities are the same; plain squared distances, s/2 = 1, are a cosine softmax
    of scale 2. As in `prototype_head`, logits lack a term that all classes share.

    Raises:
        ValueError: a head that does not normalise, or that has a scale per class.

    Example:
        >>> rows, zero = jnp.array([[0.0, 3.0]]), jnp.zeros(1)
        >>> head = Head(rows, zero, 2.0, zero, num_classes=1, unit=True)
        >>> as_prototypes(head).weight.tolist(), as_prototypes(head).scale.item()
        ([[0.0, 1.0]], 1.0)
    """
    scale = jnp.asarray(head.scale)
    if not head.unit or scale.ndim:
        kind = "scales of shape " + str(scale.shape) if head.unit else "unit = False"
        raise ValueError(
            "expected an imprinted head (unit = True) with one scale, which is "
            f"equivalent to a prototype head, got {kind}"
        )
    rows = normalize(head.weight)
    return dataclasses.replace(
        head,
        weight=rows,
        scale=(scale / 2).astype(rows.dtype),
        unit=False,
        centre=jnp.zeros_like(rows[0]),
    )


def as_cosine(head: Head, *, scale: float = 10.0) -> Head:
    """The cosine head `s <w_k/|w_k|, z/|z|>` on the rows of any head, without biases.

    For prototypes of length 1 and `scale` 2 it is the same classifier, a softmax over
    negative squared distances; for a trained linear classifier it is an initialisation
    for training.

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
        centre=None,
    )
