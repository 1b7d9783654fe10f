"""Who takes part in tools/bench.py: jaxfer in its ways, and peers in processes."""

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
import optax

from experiments import parts
from experiments.prototypes import make_measure
from experiments.prototypes_config import Config, Data, Embedding, Task
from experiments.prototypes_step import make_loss, make_net, prototype_logits
from jaxfer import sharding, steps
from jaxfer.data import Images
from jaxfer.types import Episode

THREADS = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
)


class Contender(NamedTuple):
    """One way to do a piece of work.

    Attributes:
        run: seconds for so many episodes.
        per_call: episodes are run in multiples of this.
        about: what it took to compile it, and the memory it holds.
    """

    run: Callable[[int], float]
    per_call: int = 1
    about: Mapping[str, float] = MappingProxyType({})


class Peer:
    """A worker process, and what it is asked to do."""

    def __init__(self, name: str, python: str) -> None:
        """Start it; a ValueError where it does not come up."""
        self.name = name
        command = [python, str(Path(__file__).with_name("bench_torch.py")), name]
        try:
            self._process: Any = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as e:
            raise ValueError(f"found no Python at {python} for {name} ({e})") from e
        try:
            self.about = self._ask({"threads": THREADS})
        except ChildProcessError as e:
            raise ValueError(
                f"{python} cannot import {name} ({e}), needed an environment that can: "
                "see --torch-python, --easyfsl-python"
            ) from e

    def contender(self, what: str, task: Task, classes: int, layout: str) -> Contender:
        """A kind of work there, as a contender here."""
        request = {"what": what, "layout": layout, "classes": classes}
        request |= {"way": task.way, "shot": task.shot, "query": task.query}
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
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Ours:
    """A network, its data, and the kinds of work with them."""

    def __init__(self, images: Images, task: Task, precision: Any) -> None:
        """Initialise, and put the data on the device."""
        self.config = Config(
            data=Data(), net=Embedding(precision=precision), task=task, devices=1
        )
        self.mesh = sharding.make_mesh(1)
        self.shape = task.shape()
        self.images, self.data = images, parts.place(images, self.mesh, limit=64.0)
        self.net = make_net(self.config)
        self.params, self.state = self.net.init(jax.random.key(0), (28, 28, 1))

    def feed(self, path: str, per_step: int) -> Callable[[], Any]:
        """What gives the next call's data."""
        if path == "resident":
            return lambda: self.data
        batches: Any = parts.feed(
            self.images,
            0,
            "train",
            **self.shape,
            per_step=per_step,
            put=partial(sharding.place, mesh=self.mesh),
        )
        return partial(next, batches(0))

    def train(self, path: str) -> Contender:
        """One episode a step, the state donated, metrics fetched at the end."""
        optimizer = optax.adam(1e-3)
        step = steps.make_train_step(
            make_loss(self.config, self.net, self.mesh), optimizer
        )
        call: Any = steps.compile_step(step)
        # A copy: the state is donated, the parameters serve the evaluation too.
        copied = jax.tree.map(lambda x: x.copy(), (self.params, self.state))
        started = steps.init_train_state(*copied, optimizer)
        train_state = sharding.place(started, self.mesh)
        following = self.feed(path, 1)
        call, about = _compiled(call, train_state, following(), count=1)

        def run(n: int) -> float:
            nonlocal train_state
            began = time.perf_counter()
            for _ in range(n):
                train_state, metrics = call(train_state, following())
            jax.block_until_ready(metrics)
            return time.perf_counter() - began

        return Contender(run, about=about)

    def classify(self) -> Contender:
        """Episodes of embeddings that are there already."""
        embedded = parts.make_embed(self.net, self.data)(self.params, self.state)
        measure = make_measure(self.config, "test", nearest_prototype, **self.shape)
        block = 100
        measure, about = _compiled(measure, embedded, np.zeros(block, np.uint32))

        def run(n: int) -> float:
            began = time.perf_counter()
            steps.evaluate_episodes(measure, embedded, episodes=n, block=block)
            return time.perf_counter() - began

        return Contender(run, block, about)

    def embed_anew(self, path: str, block: int = 1) -> Contender:
        """Episodes of images, each embedded for itself, so many a call."""

        def classify(episode: Episode) -> jax.Array:
            images = jnp.concatenate([episode.support, episode.query], axis=1)
            flat = images.reshape(-1, *images.shape[2:])
            z, _ = self.net.apply(self.params, self.state, flat)
            z = z.reshape(*images.shape[:2], -1)
            shot = self.config.task.shot
            return nearest_prototype(Episode(z[:, :shot], z[:, shot:], episode.classes))

        measure = make_measure(self.config, "test", classify, **self.shape)
        following = self.feed(path, block)
        numbers = np.arange(block, dtype=np.uint32)
        measure, about = _compiled(measure, following(), numbers)

        def run(n: int) -> float:
            began = time.perf_counter()
            for first in range(0, n, block):
                # A streamed batch is drawn from by place.
                at = numbers + np.uint32(first) if path == "resident" else numbers
                jax.device_get(measure(following(), at))
            return time.perf_counter() - began

        return Contender(run, block, about)


def nearest_prototype(episode: Episode) -> jax.Array:
    return prototype_logits(episode, "sqeuclidean")


def _compiled(call: Any, *args: Any, **static: Any) -> tuple[Any, dict[str, float]]:
    """A jitted call, compiled; with the time that took, and what it holds at once."""
    began = time.perf_counter()
    compiled = call.lower(*args, **static).compile()
    seconds = time.perf_counter() - began
    m = compiled.memory_analysis()
    held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    megabytes = (held + m.temp_size_in_bytes) / 1e6
    return compiled, {"compile_s": seconds, "memory_mb": megabytes}
