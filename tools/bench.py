"""Benchmarks: episodes per second against peers, frozen layers, imprinting, search.

    python tools/bench.py
    python tools/bench.py --against torch easyfsl --torch-python PATH --json bench.json
    python tools/bench.py --work transfer
    python tools/bench.py --work imprint
    python tools/bench.py --work search
    python tools/bench.py --work compile

The first two commands time the Conv4 prototypical network of the presets on 28x28
images, or with `--data photos` on random 84x84 images: 80 classes of 20 for training,
and 20 of 600, as miniImageNet has, for testing. Without Grain, no rows are streamed.
All contenders for the same work take turns, so that changes in the speed of the machine
affect them equally. A row gives the median time and, against each peer that does the
same work in the same precision, the median of the ratios within a turn. Peers run
eagerly, on the same kind of device, in their own process (tools/bench_torch.py), with
one thread per core that JAX may use. The third command times steps of the
layer-transfer study: full, frozen, on cached activations, and with a masked optimizer
(tools/bench_transfer.py). The fourth times imprinting against a copy of the embeddings
that it reads (tools/bench_imprint.py). The fifth times the search for the nearest of a
million templates beside faiss (tools/bench_search.py). The last one times the
prototypes step with and without jaxfer's compiler options, and with and without the
gradient of jaxfer.nets.pool (tools/bench_compile.py).
"""

import contextlib
import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal

import jax
import numpy as np
import tyro
from tqdm.auto import tqdm

from jaxfer import runlog, steps, versions
from jaxfer.config import clean_errors
from jaxfer.data import Images, load
from jaxfer.models import EpisodeShape
from tools import bench_compile, bench_imprint, bench_search, bench_transfer
from tools.bench_contenders import THREADS, Contender, Ours, Peer

SHAPES = {
    "60-way 1-shot 5-query": EpisodeShape(60, 1, 5),
    "5-way 1-shot 15-query": EpisodeShape(5, 1, 15),
}
# The training episodes of Snell et al. 2017, Table 2, and its test episodes.
PHOTO_SHAPES = {
    "20-way 5-shot 15-query": EpisodeShape(20, 5, 15),
    "5-way 5-shot 15-query": EpisodeShape(5, 5, 15),
}
TESTS = [*itertools.product((5, 20), (1, 5))]
TEST_QUERY, TEST_EPISODES = 15, 1000


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a benchmark.

    Attributes:
        work: episodes of prototypical networks, steps of layer transfer, imprinting,
            search among a million classes, or ways to compile a step.
        data: data set; training is timed on its trainval classes, evaluation on its
            test classes. photos are random pixels, since the time does not depend on
            them.
        dir: data directory; default: $JAXFER_DATA (see the README).
        against: peers to compare with, torch and easyfsl; default: none.
        torch_python: path of a Python that can import torch; default: this Python.
        easyfsl_python: path of a Python that can import easyfsl; default: torch_python.
        precision: precisions of the activations, one or more.
        turns: number of turns of each contender.
        seconds: approximate length of a contender's turn.
        whole_test: also time four test settings of 1000 episodes.
        json: path of a JSON file to write the results to; default: none.
    """

    work: Literal["episodes", "transfer", "imprint", "search", "compile"] = "episodes"
    data: Literal["glyphs", "omniglot", "photos"] = "glyphs"
    dir: str | None = None
    against: tuple[Literal["torch", "easyfsl"], ...] = ()
    torch_python: str = sys.executable
    easyfsl_python: str | None = None
    precision: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    turns: int = 7
    seconds: float = 1.5
    whole_test: bool = True
    json: str | None = None


def race(
    work: str, contenders: Mapping[str, Contender], options: Options
) -> dict[str, list[float]]:
    """Return seconds per episode, for each contender and turn."""
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


# Contenders that do the work of peers: float32, each test episode is embedded again.
_SAME_WORK = ("jaxfer resident float32", "jaxfer streamed float32")


def rows_of(
    work: str, contenders: Mapping[str, Contender], times: Mapping[str, list[float]]
) -> Iterator[dict[str, Any]]:
    """Yield one row per contender: median, spread, and speed relative to each peer."""
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
    """Return the rows as text."""
    peers = list(dict.fromkeys(p for row in rows for p in row["faster_than"]))
    head = ["work", "contender", "episodes/s", "ms/episode", "compile s", "memory MB"]
    lines = [head + [f"speed / {peer}" for peer in peers]]
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
    """Time training and evaluation of both tasks, with every path and every peer."""
    rows = []
    layouts = [(p, x) for p in peers for x in ("nchw", "channels_last")]
    layouts = [(p, x) for p, x in layouts if p.name == "torch" or x == "nchw"]
    shapes = PHOTO_SHAPES if options.data == "photos" else SHAPES
    # Streams are read by Grain.
    paths = ("resident", "streamed") if find_spec("grain") else ("resident",)
    for name, shape in shapes.items():
        for what in ("train", "eval"):
            part = images[what]
            contenders: dict[str, Contender] = {}
            for precision in options.precision:
                ours = Ours(part, shape, precision)
                for path in paths:
                    key = f"jaxfer {path} {precision}"
                    if what == "train":
                        contenders[key] = ours.train(path)
                    else:
                        contenders[key] = ours.embed_anew(path)
                if what == "eval":
                    contenders[f"jaxfer cached {precision}"] = ours.classify()
            for peer, layout in layouts:
                contenders[f"{peer.name} {layout}"] = peer.contender(
                    what, shape, part, layout
                )
            work = f"{what} {name}"
            rows += rows_of(work, contenders, race(work, contenders, options))
    return rows


def whole_test(images: Images, options: Options) -> dict[str, Any]:
    """Time four test settings of 1000 episodes, embedding images once or per episode.

    Embedding per episode is timed on a twentieth of the episodes of each setting, and
    the time is multiplied by 20.
    """
    share, block = 20, 10
    shapes = [EpisodeShape(way, shot, TEST_QUERY) for way, shot in TESTS]
    ours = [Ours(images, shape, "float32") for shape in shapes]
    measures = [one.measure() for one in ours]
    anew = [one.embed_anew("resident", block).run for one in ours]

    def once() -> float:
        began = time.perf_counter()
        embedded = ours[0].embedded()
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
    """Run the command line, and return the exit code."""
    options = tyro.cli(Options, description=__doc__)
    with clean_errors(), contextlib.ExitStack() as stack:
        if options.work == "transfer":
            content = transfer(options)
        elif options.work == "imprint":
            content = imprint(options)
        elif options.work == "search":
            content = search(options)
        elif options.work == "compile":
            content = compile_steps(options)
        else:
            content = measure(options, stack)
        if options.json:
            about = versions.environment(jax.devices()[:1])
            about |= {"threads": THREADS, "options": dataclasses.asdict(options)}
            runlog.write_json(options.json, {**about, **content})
            print(f"written to {options.json}")
    return 0


def transfer(options: Options) -> dict[str, Any]:
    """Measure and print the time of layer-transfer steps, relative to a full step."""
    config = bench_transfer.preset()
    content = {}
    for name, contenders, against in (
        ("step", bench_transfer.contenders(config), "full"),
        ("population", bench_transfer.populations(config), "one"),
    ):
        times = race(name, contenders, options)
        content[name] = {
            who: {
                "ms": 1e3 * statistics.median(took),
                "ratio": statistics.median(
                    a / b for a, b in zip(took, times[against], strict=True)
                ),
            }
            for who, took in times.items()
        }
        for who, row in content[name].items():
            print(
                f"{name}, {who}: {row['ms']:.2f} ms, {row['ratio']:.2f} times the time "
                f"of {against}"
            )
    return content


def imprint(options: Options) -> dict[str, Any]:
    """Measure and print the rate at which imprinting reads embeddings."""
    moving = bench_imprint.contenders()
    contenders = {name: contender for name, (contender, _) in moving.items()}
    times = race("imprint", contenders, options)
    rates = {name: [moving[name].nbytes / t for t in times[name]] for name in times}
    content = {}
    for name, rate in rates.items():
        ratio = [a / b for a, b in zip(rate, rates["copy"], strict=True)]
        content[name] = {
            "ms": 1e3 * statistics.median(times[name]),
            "gb_per_s": statistics.median(rate) / 1e9,
            "ratio": statistics.median(ratio),
        }
        print(
            f"{name}: {content[name]['ms']:.1f} ms, {content[name]['gb_per_s']:.2f} "
            f"GB/s, {content[name]['ratio']:.2f} of a copy's rate"
        )
    return content


def search(options: Options) -> dict[str, Any]:
    """Measure and print the time of a search for the nearest templates."""
    contenders = bench_search.contenders()
    times = race("search", contenders, options)
    content = {}
    for name, took in times.items():
        peer = times[bench_search.PEER]
        ratio = statistics.median(a / b for a, b in zip(took, peer, strict=True))
        s, memory = statistics.median(took), contenders[name].about["memory_mb"]
        content[name] = {"s": s, "ratio": ratio, "memory_mb": memory}
        print(
            f"{name}: {s:.3f} s, {ratio:.2f} times the time of {bench_search.PEER}, "
            f"{memory:.0f} MB"
        )
    return content


def compile_steps(options: Options) -> dict[str, Any]:
    """Measure and print the time of a step that is compiled in other ways than ours."""
    content: dict[str, Any] = {}
    for name, setting in bench_compile.SETTINGS.items():
        contenders = bench_compile.contenders(*setting)
        times = race(name, contenders, options)
        ours = times[bench_compile.OURS]
        content[name] = {}
        for who, took in times.items():
            ratio = statistics.median(b / a for a, b in zip(ours, took, strict=True))
            about, s = contenders[who].about, statistics.median(took)
            content[name][who] = {"s": s, "ratio": ratio, **about}
            print(
                f"{name}, {who}: {s:.3f} s per step, {ratio:.2f} times ours, "
                f"{about['memory_mb']:.0f} MB"
            )
    return content


def measure(options: Options, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Measure and print episodes per second; the stack ends the peers on exit."""
    splits = {"train": "trainval", "eval": "test"}
    if options.data == "photos":
        images = {"train": photos(80, 20), "eval": photos(20, 600)}
    else:
        loaded = load(options.data, [*splits.values()], options.dir)
        images = {what: loaded[split] for what, split in splits.items()}
    pythons = {"torch": options.torch_python}
    pythons["easyfsl"] = options.easyfsl_python or options.torch_python
    peers = []
    for name in options.against:
        peers.append(Peer(name, pythons[name]))
        stack.callback(peers[-1].close)
    rows = episodes_a_second(images, peers, options)
    print(table(rows))
    content = {"peers": {peer.name: peer.about for peer in peers}, "rows": rows}
    if not options.whole_test:
        return content
    test = whole_test(images["eval"], options)
    print(
        f"4 x {TEST_EPISODES} test episodes from {test['images']} images: "
        f"{test['once_s']:.1f} s if the images are embedded once, "
        f"{test['anew_s']:.1f} s if they are embedded again for each episode "
        f"({test['ratio']:.1f} times as long)"
    )
    return {**content, "test": test}


def photos(classes: int, per_class: int) -> Images:
    """Return random images of 84x84 pixels."""
    labels = np.repeat(np.arange(classes, dtype=np.int32), per_class)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(labels), 84, 84, 3), np.uint8)
    names = tuple(f"class {k}" for k in range(classes))
    return Images("photos", pixels, labels, names)


if __name__ == "__main__":
    sys.exit(main())
