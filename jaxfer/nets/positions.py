"""Position embeddings of images of another size."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The coefficient of PyTorch's cubic kernel; that of `jax.image.resize` is -0.5.
_CUBIC = -0.75


def resized_positions(
    positions: Float[Array, "a a d"], rows: int, columns: int
) -> Float[Array, "rows columns d"]:
    """Position embeddings of a square grid for another grid, as in DINO.

    Bicubic interpolation with a = -0.75, without antialiasing. Element i of a side with
    n elements instead of m is at `(i + 1/2) m / (n + 0.1) - 1/2`, since DINO adds 0.1
    to n against rounding. A grid of the same size is unchanged.

    Args:
        positions: the embeddings.
        rows: rows of the other grid.
        columns: columns of the other grid.

    Example:
        >>> positions = jnp.ones((2, 2, 1))
        >>> bool(jnp.allclose(resized_positions(positions, 1, 3), jnp.ones((1, 3, 1))))
        True
    """
    side = len(positions)
    if (rows, columns) == (side, side):
        return positions
    down, across = (
        jnp.asarray(_cubic(side, size), positions.dtype) for size in (rows, columns)
    )
    return jnp.einsum("ra,cb,abd->rcd", down, across, positions, precision="highest")


def _cubic(side: int, size: int) -> np.ndarray:
    """The matrix `[size, side]` that interpolates a side to another size."""
    found = np.zeros((size, side))
    for i in range(size):
        at = (i + 0.5) * side / (size + 0.1) - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            found[i, min(max(j, 0), side - 1)] += _weight(abs(at - j))
    return found


def _weight(distance: float) -> float:
    """Keys' cubic kernel, at a distance of at most 2."""
    d, a = distance, _CUBIC
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4)
