"""How many episodes a second, side by side: resident, streamed, float32, bf16, PyTorch.

    python tools/bench.py
    python tools/bench.py --against torch easyfsl --torch-python PATH --json bench.json

times the Conv4 prototypical network of the presets on 28x28 images. All contenders for
one piece of work take turns, so that a machine's moods hit them alike; a row gives the
median time and, against a peer that does the same in the same precision, the median of
the ratios within a turn. Peers run eagerly, on the same kind of device, in a process of
their own (tools/bench_torch.py) with a thread for every core that JAX may use.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from tqdm.auto import tqdm

from experiments import parts
from experiments.prototypes import make_measure
from experiments.prototypes_config import Config, Data, Embedding, Task
from experiments.prototypes_step import make_loss, make_net, prototype_logits
from jaxfer import runlog, sharding, steps
from jaxfer.config import clean_errors
from jaxfer.data import Images, load
from jaxfer.types import Episode

TASKS = {
    "60-way 1-shot 5-query": Task(way=60, shot=1, query=5),
    "5-way 1-shot 15-query": Task(way=5, shot=1, query=15),
}
TESTS = [*itertools.product((5, 20), (1, 5))]
TEST_QUERY, TEST_EPISODES = 15, 1000
THREADS = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        data: the data set; its test classes are tested, its training classes trained.
        dir: where it lies (see the README).
        against: peers, where their Python can import them.
        torch_python: the Python of an environment that has torch, and easyfsl.
        easyfsl_python: of another one, for easyfsl.
        precision: of the activations.
        turns: how often each contender runs.
        seconds: roughly, of one contender's turn.
        json: where the figures are written.
    """

    data: Literal["glyphs", "omniglot"] = "glyphs"
    dir: str | None = None
    against: tuple[Literal["torch", "easyfsl"], ...] = ()
    torch_python: str = sys.executable
    easyfsl_python: str | None = None
    precision: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    turns: int = 7
    seconds: float = 1.5
    json: str | None = None


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
        measure = make_measure(self.config, "test", _classify, **self.shape)
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
            return _classify(Episode(z[:, :shot], z[:, shot:], episode.classes))

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


def _classify(episode: Episode) -> jax.Array:
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


def race(
    work: str, contenders: Mapping[str, Contender], options: Options
) -> dict[str, list[float]]:
    """Seconds an episode, for each contender and turn; they take turns."""
    counts = {}
    for name, (run, unit, _) in tqdm(
        contenders.items(), f"{work}: warming up", leave=False
    ):
        run(unit)
        units = options.seconds / (run(2 * unit) / 2)
        counts[name] = unit * max(1, round(units))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in tqdm(range(options.turns), work, unit="turn", leave=False):
        for name, contender in contenders.items():
            times[name].append(contender.run(counts[name]) / counts[name])
    return times


# What peers do too: float32, and every test episode embedded for itself.
_SAME_WORK = ("jaxfer resident float32", "jaxfer streamed float32")


def rows_of(
    work: str, contenders: Mapping[str, Contender], times: Mapping[str, list[float]]
) -> Iterator[dict[str, Any]]:
    """A row a contender: median, spread, and how much faster than each peer."""
    for name, ours in times.items():
        row: dict[str, Any] = {
            "work": work,
            "contender": name,
            "ms_per_episode": 1e3 * statistics.median(ours),
            "ms_lowest": 1e3 * min(ours),
            "ms_highest": 1e3 * max(ours),
            "episodes_per_s": 1 / statistics.median(ours),
            **contenders[name].about,
            "faster_than": {
                peer: statistics.median(
                    b / a for a, b in zip(ours, theirs, strict=True)
                )
                for peer, theirs in times.items()
                if name in _SAME_WORK and not peer.startswith("jaxfer")
            },
        }
        yield row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    peers = list(dict.fromkeys(p for row in rows for p in row["faster_than"]))
    head = ["work", "contender", "episodes/s", "ms", "compile s", "MB"]
    lines = [head + [f"x {peer}" for peer in peers]]
    for row in rows:
        cells = [row["work"], row["contender"], f"{row['episodes_per_s']:.4g}"]
        cells.append(f"{row['ms_per_episode']:.4g}")
        cells += [_cell(row.get("compile_s"), 1), _cell(row.get("memory_mb"), 0)]
        lines.append(cells + [_cell(row["faster_than"].get(p), 2) for p in peers])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def episodes_a_second(
    images: Mapping[str, Images], peers: list[Peer], options: Options
) -> list[dict[str, Any]]:
    """Training and evaluation of both tasks, in every way, and the peers."""
    rows = []
    layouts = [(p, x) for p in peers for x in ("nchw", "channels_last")]
    layouts = [(p, x) for p, x in layouts if p.name == "torch" or x == "nchw"]
    for name, task in TASKS.items():
        for what in ("train", "eval"):
            part = images[what]
            contenders: dict[str, Contender] = {}
            for precision in options.precision:
                ours = Ours(part, task, precision)
                for path in ("resident", "streamed"):
                    key = f"jaxfer {path} {precision}"
                    if what == "train":
                        contenders[key] = ours.train(path)
                    else:
                        contenders[key] = ours.embed_anew(path)
                if what == "eval":
                    contenders[f"jaxfer cached {precision}"] = ours.classify()
            for peer, layout in layouts:
                contenders[f"{peer.name} {layout}"] = peer.contender(
                    what, task, part.num_classes, layout
                )
            work = f"{what} {name}"
            rows += rows_of(work, contenders, race(work, contenders, options))
    return rows


def whole_test(images: Images, options: Options) -> dict[str, Any]:
    """All four test settings of 1000 episodes: embedded once, or each episode anew.

    Anew is timed on fewer episodes of each setting, in proportion to the whole.
    """
    share, block = 20, 10
    tasks = [Task(way=w, shot=s, query=TEST_QUERY) for w, s in TESTS]
    ours = [Ours(images, task, "float32") for task in tasks]
    first = ours[0]
    embed = parts.make_embed(first.net, first.data)
    measures = [make_measure(o.config, "test", _classify, **o.shape) for o in ours]
    anew = [o.embed_anew("resident", block).run for o in ours]

    def once() -> float:
        began = time.perf_counter()
        embedded = embed(first.params, first.state)
        for measure in measures:
            steps.evaluate_episodes(measure, embedded, episodes=TEST_EPISODES)
        return time.perf_counter() - began

    def each() -> float:
        return sum(run(TEST_EPISODES // share) for run in anew) * share

    once()
    for run in anew:
        run(block)
    pairs = [
        (once(), each()) for _ in tqdm(range(options.turns), "4 x 1000 test episodes")
    ]
    return {
        "once_s": statistics.median(a for a, _ in pairs),
        "anew_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "images": len(images.images),
    }


def main() -> int:
    """The command line; the exit code."""
    options = tyro.cli(Options, description=__doc__)
    with clean_errors(), contextlib.ExitStack() as stack:
        measure(options, stack)
    return 0


def measure(options: Options, stack: contextlib.ExitStack) -> None:
    """Measure, print, and write; peers are ended with the stack."""
    splits = {"train": "trainval", "eval": "test"}
    loaded = load(options.data, [*splits.values()], options.dir)
    images = {what: loaded[split] for what, split in splits.items()}
    pythons = {"torch": options.torch_python}
    pythons["easyfsl"] = options.easyfsl_python or options.torch_python
    peers = []
    for name in options.against:
        peers.append(Peer(name, pythons[name]))
        stack.callback(peers[-1].close)
    rows = episodes_a_second(images, peers, options)
    test = whole_test(images["eval"], options)
    print(table(rows))
    print(
        f"4 x {TEST_EPISODES} test episodes of {test['images']} images: "
        f"{test['once_s']:.1f} s with the embedding, {test['anew_s']:.1f} s with each "
        f"episode embedded anew, {test['ratio']:.1f} times as long"
    )
    if options.json:
        about = runlog.environment(jax.devices()[:1])
        about |= {"threads": THREADS, "options": dataclasses.asdict(options)}
        about |= {"peers": {peer.name: peer.about for peer in peers}}
        content = {**about, "rows": rows, "test": test}
        runlog.write_json(options.json, content)
        print(f"written to {options.json}")


if __name__ == "__main__":
    sys.exit(main())
