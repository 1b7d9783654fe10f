"""A tiny labelled task, and a network and a head for it."""

import jax
import numpy as np
import pytest

from jaxfer import Optim, Recipe, linear_head
from jaxfer.data import Images
from tests.tiny import Tiny

NET = Tiny(width=2, dropout=0.0)
SHAPE = (8, 8, 1)


@pytest.fixture(scope="session")
def task() -> Images:
    """Forty images of four classes, told apart by their brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % 4
    pixels = 50 * labels[:, None, None, None] + rng.integers(0, 60, (40, *SHAPE))
    return Images("task", pixels.astype(np.uint8), labels, ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(Optim("sgd", 0.05, "cosine"), epochs=3, batch=10)


@pytest.fixture(scope="session")
def head():
    return linear_head(jax.random.key(1), 8, 4)
