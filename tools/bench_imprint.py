"""The imprinting part of tools/bench.py: its speed relative to a plain copy.

Imprinting reads every embedding once and writes one row per class, so memory bandwidth
bounds its speed. A copy of the same embeddings measures that bandwidth.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfer.heads import class_sums, imprint_head, support_sums
from jaxfer.heads.vectors import normalize
from tools.bench_contenders import Contender, timed

CLASSES, SHOT, DIM = 5000, 20, 256


class Moving(NamedTuple):
    """A contender, and the minimal number of bytes that it reads and writes."""

    contender: Contender
    nbytes: int


def contenders() -> dict[str, Moving]:
    """Return a copy, and imprinting of embeddings class by class or in any order."""
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(CLASSES, SHOT, DIM)), jnp.float32)
    labels = jnp.asarray(rng.permutation(np.repeat(np.arange(CLASSES), SHOT)))

    def in_order(z: Array) -> Array:
        return imprint_head(support_sums(z, unit=True)).weight

    def in_any_order(z: Array) -> Array:
        flat = normalize(z.reshape(-1, DIM))
        return imprint_head(class_sums(flat, labels, num_classes=CLASSES)).weight

    def over(function: Callable[[Array], Array]) -> Contender:
        call = jax.jit(function)
        return timed(lambda: call(z))

    rows = CLASSES * DIM * z.dtype.itemsize
    return {
        "copy": Moving(over(jnp.copy), 2 * z.nbytes),
        "imprint, class by class": Moving(over(in_order), z.nbytes + rows),
        "imprint, any order": Moving(over(in_any_order), z.nbytes + rows),
    }
