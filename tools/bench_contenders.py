"""The contenders of tools/bench.py: jaxfer in several ways, and peers in processes."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer import methods, models, optim, sharding, steps
from jaxfer.data import Images, Resident, resident, stream
from jaxfer.data.feed import take_episode
from jaxfer.models.episode_step import (
    EpisodeProgram,
    EpisodeShape,
    make_episode_optimizer,
    make_episode_step,
)
from jaxfer.nets import Conv4
from jaxfer.types import EVAL, Episode

THREADS = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
)


class Contender(NamedTuple):
    """One way to do a piece of work.

    Attributes:
        run: returns the seconds that a given number of episodes takes.
        per_call: the number of episodes has to be a multiple of this.
        about: the seconds to compile it, and the memory it uses.
    """

    run: Callable[[int], float]
    per_call: int = 1
    about: Mapping[str, float] = MappingProxyType({})


def timed(call: Callable[[], Any], **about: float) -> Contender:
    """Return a contender that makes a call again and again, each to its end."""

    def run(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            jax.block_until_ready(call())
        return time.perf_counter() - began

    return Contender(run, about=about)


class Peer:
    """A worker process that runs the work of a peer on request."""

    def __init__(self, name: str, python: str) -> None:
        """Start the process; raise ValueError if its Python cannot import the peer."""
        self.name = name
        command = [python, str(Path(__file__).with_name("bench_torch.py")), name]
        try:
            self._process: Any = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as e:
            raise ValueError(
                f"expected a Python for {name} at {python}, got none ({e})"
            ) from e
        try:
            self.about = self._ask({"threads": THREADS})
        except ChildProcessError as e:
            raise ValueError(
                f"expected a Python that can import {name}, got {python} ({e}): set "
                "--torch-python or --easyfsl-python"
            ) from e

    def contender(
        self, what: str, shape: EpisodeShape, images: Images, layout: str
    ) -> Contender:
        """Return a contender whose work runs in the process."""
        request = {"what": what, "layout": layout, "classes": images.num_classes}
        request |= {"image": images.images.shape[1:]}
        request |= {"way": shape.way, "shot": shape.shot, "query": shape.n_query}
        request |= {"device": "cpu" if jax.default_backend() == "cpu" else "cuda"}
        return Contender(lambda n: self._ask({**request, "episodes": n})["seconds"])

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            code = self._process.returncode
            raise ChildProcessError(f"the process of {self.name} ended with {code}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Ours:
    """A model and its data, with one method per kind of work."""

    def __init__(
        self, images: Images, shape: EpisodeShape, precision: Any, step: Any = None
    ) -> None:
        """Initialise the model, and put the data on the device.

        Args:
            images: images of all classes.
            shape: shape of the episodes.
            precision: precision of the activations.
            step: returns the compiled step of a program; default: as in training.
        """
        net, image_shape = Conv4(precision=precision), images.images.shape[1:]
        self.model = models.init_model(net, image_shape, jax.random.key(0))
        recipe = models.Recipe(optim.Optim("adam", 1e-3), episodes=10**6)
        self.program = EpisodeProgram(
            self.model.net, recipe, shape, methods.prototypes(), 0, "train"
        )
        self.sizes, self.images = shape.sizes(), images
        self.data = sharding.place(resident(images), sharding.make_mesh(1))
        self._make_step = step or make_episode_step

    def feed(self, path: str, per_step: int) -> Callable[[], Any]:
        """Return a function that returns the data of the next call."""
        if path == "resident":
            return lambda: self.data
        batches = stream(self.images, 0, "train", **self.sizes, per_step=per_step)
        return partial(next, batches(0))

    def train(self, path: str) -> Contender:
        """Train on one episode per step; metrics are fetched at the end."""
        # A copy, since the state is donated and the evaluation needs the parameters.
        params, state = jax.tree.map(jnp.copy, (self.model.params, self.model.state))
        train_state = steps.init_train_state(
            {"net": params}, state, make_episode_optimizer(self.program)
        )
        following, pixels = self.feed(path, 1), self.model.pixels
        call, about = _compiled(
            self._make_step(self.program), train_state, (following(), pixels), count=1
        )

        def run(n: int) -> float:
            nonlocal train_state
            began = time.perf_counter()
            for _ in range(n):
                train_state, metrics = call(train_state, (following(), pixels))
            jax.block_until_ready(metrics)
            return time.perf_counter() - began

        return Contender(run, about=about)

    def embedded(self) -> Resident:
        """Return the embeddings of all images."""
        return self.data._replace(items=models.embed(self.model, self.data.items))

    def measure(self, classify: Callable[[Episode], jax.Array] | None = None) -> Any:
        """Return the function that measures episodes; default: of embeddings."""
        logits = classify or partial(self.program.method.logits, {})
        draw = partial(take_episode, seed=0, split="test", **self.sizes)
        return steps.make_episode_eval(lambda data, k: draw(data, number=k), logits)

    def classify(self) -> Contender:
        """Classify episodes of embeddings that were computed before."""
        embedded, block = self.embedded(), 100
        numbers = np.zeros(block, np.uint32)
        measure, about = _compiled(self.measure(), embedded, numbers)

        def run(n: int) -> float:
            began = time.perf_counter()
            steps.evaluate_episodes(measure, embedded, episodes=n, block=block)
            return time.perf_counter() - began

        return Contender(run, block, about)

    def embed_anew(self, path: str, block: int = 1) -> Contender:
        """Classify episodes of images, each embedded anew, `block` per call."""
        net, params, state = self.model.net, self.model.params, self.model.state

        def classify(episode: Episode) -> jax.Array:
            together = models.embed_together(net, params, state, episode, EVAL)[0]
            return self.program.method.logits({}, together)

        measure, following = self.measure(classify), self.feed(path, block)
        numbers = np.arange(block, dtype=np.uint32)
        measure, about = _compiled(measure, following(), numbers)

        def run(n: int) -> float:
            began = time.perf_counter()
            for first in range(0, n, block):
                # Episodes of a streamed batch are numbered by position in the batch.
                at = numbers + np.uint32(first) if path == "resident" else numbers
                jax.device_get(measure(following(), at))
            return time.perf_counter() - began

        return Contender(run, block, about)


def _compiled(call: Any, *args: Any, **static: Any) -> tuple[Any, dict[str, float]]:
    """Compile a jitted call; return it with its compile time and its memory."""
    began = time.perf_counter()
    compiled = call.lower(*args, **static).compile()
    seconds = time.perf_counter() - began
    m = compiled.memory_analysis()
    held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    megabytes = (held + m.temp_size_in_bytes) / 1e6
    return compiled, {"compile_s": seconds, "memory_mb": megabytes}
