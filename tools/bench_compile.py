"""The compilation part of tools/bench.py: compiler options and the pool's gradient.

Each contender runs the training step of a prototypical network, compiled in a different
way: with jaxfer's compiler options (`jaxfer.compilation`), with XLA's default options,
and with JAX's automatic gradient in place of that of `jaxfer.nets.pool`.
"""

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer import steps
from jaxfer.data import Images
from jaxfer.models.episode_step import (
    EpisodeProgram,
    EpisodeShape,
    make_episode_loss,
    make_episode_optimizer,
)
from jaxfer.nets import pool
from tools.bench_contenders import Contender, Ours

# Side and channels of the images, and the task: those of Omniglot and miniImageNet.
SETTINGS = {
    "28 px, 60-way 1-shot 5-query": (28, 1, EpisodeShape(60, 1, 5)),
    "84 px, 20-way 5-shot 15-query": (84, 3, EpisodeShape(20, 5, 15)),
}
OURS, XLA, AUTODIFF = "jaxfer", "XLA's options", "JAX's gradient"


def contenders(side: int, channels: int, shape: EpisodeShape) -> dict[str, Contender]:
    """Return the contenders by name; each runs a given number of steps."""
    images, made = _noise(side, channels, shape), {}
    for name in (OURS, XLA, AUTODIFF):
        formula = plain_pool if name == AUTODIFF else pool.batch_norm_pool
        step = _step_as_xla_has_it if name == XLA else _step
        with mock.patch.object(pool, "batch_norm_pool", formula):
            made[name] = Ours(images, shape, "float32", step).train("resident")
    return made


def plain_pool(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
    """Return the value of `pool.batch_norm_pool`, without its custom gradient."""
    wide = x.astype(jnp.float32)
    mean = wide.mean((0, 1, 2))
    var = jnp.maximum((wide * wide).mean((0, 1, 2)) - mean * mean, 0)
    pooled = pool._extreme(x, scale)
    return pool._activate(pooled, mean, var, scale, bias), mean, var


def _step(program: EpisodeProgram) -> Any:
    """Return a new step, since the one in training is compiled once per program."""
    step = steps.make_train_step(
        make_episode_loss(program), make_episode_optimizer(program)
    )
    return steps.compile_step(step)


def _step_as_xla_has_it(program: EpisodeProgram) -> Any:
    function = _step(program).__wrapped__
    return jax.jit(function, static_argnames="count", donate_argnums=0)


def _noise(side: int, channels: int, shape: EpisodeShape) -> Images:
    each = shape.shot + shape.n_query
    size = (shape.way * each, side, side, channels)
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    labels = np.repeat(np.arange(shape.way, dtype=np.int32), each)
    return Images("noise", pixels, labels, tuple(f"c{i}" for i in range(shape.way)))
