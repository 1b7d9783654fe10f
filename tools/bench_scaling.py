"""Time a step in one process and in several of this machine, each on its own cores.

    python tools/bench_scaling.py --config configs/omniglot_1shot.py

Every process has the same work, so the step would take equally long if processes did
not disturb each other. It is timed in one process, in several that do not communicate,
and in several that train one model. The estimate is made as in tools/plan.py, but from
measured times: that of one process plus that of an all-reduce of as many bytes as the
collectives of the step send. Cores are logical ones, which may share a physical core.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxfer import clusters, compilation, distributed, sharding
from jaxfer.config import clean_errors
from jaxfer.runlog import write_json
from jaxfer.tables import markdown
from tools import plan
from tools.bench_plan import filled
from tools.planning import steps
from tools.planning.programs import cost_of

ROOT = Path(__file__).resolve().parents[1]
_MARK = "measured "


def measure(config: Any, *, seconds: float, together: bool = True) -> dict[str, float]:
    """Time the step in all processes that have joined.

    Args:
        config: the config of an experiment.
        seconds: how long to time.
        together: whether all of them train one model, or each its own.

    Returns:
        Seconds of a step, bytes that its collectives send, and the seconds of an
        all-reduce of as many.
    """
    backend = jax.default_backend()
    size = jax.device_count() if together else jax.local_device_count()
    mesh, facts = sharding.make_mesh(size), steps.facts_of(config)
    lowered = steps.lower(config, facts, mesh, platform=backend)
    options = compilation.compiler_options(backend)
    compiled = lowered.program.compile(compiler_options=options)
    arrays = filled(lowered.arguments, facts, np.random.default_rng(0))
    at = jax.tree.map(lambda x: x.sharding, lowered.arguments)
    state, data = sharding.place_as(arrays, at)

    def step() -> Any:
        nonlocal state
        state, metrics = compiled(state, data)
        return metrics

    cost = cost_of(compiled, lowered.program, chips=size, platform=backend)
    sent = sum(cost.sent.values())
    found = {"step_s": _middle(step, seconds), "sent": sent, "reduce_s": 0.0}
    if size > 1:
        parts = sharding.place_batch(np.ones((size, int(sent / 4)), np.float32), mesh)
        total = jax.jit(lambda x: x.sum(0), out_shardings=sharding.replicated(mesh))
        jax.block_until_ready(total(parts))
        found["reduce_s"] = _middle(lambda: total(parts), seconds / 4)
    return found


def _middle(call: Callable[[], Any], seconds: float) -> float:
    """Return the median seconds of a call, after two calls that are not timed.

    Args:
        call: what to time.
        seconds: they set the number of calls, which is that of all processes.
    """
    distributed.barrier("the timing")
    began = time.perf_counter()
    for _ in range(2):
        jax.block_until_ready(call())
    each = max(distributed.share((time.perf_counter() - began) / 2))
    times = []
    for _ in range(max(3, int(seconds / each))):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _start(arguments: Sequence[str], processes: int, cores: int) -> dict[str, float]:
    """Measure in processes of their own, and return the means over them."""
    command = [
        *(sys.executable, str(ROOT / "tools/launch/local.py"), "-n", str(processes)),
        *("--cpu-devices", "1", "--cores", str(cores), "--"),
        *(sys.executable, str(Path(__file__).resolve()), *arguments),
    ]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    lines = [x.partition(_MARK)[2] for x in ended.stdout.splitlines() if _MARK in x]
    if ended.returncode or len(lines) != processes:
        *_, last = (ended.stderr or ended.stdout).strip().splitlines() or [""]
        raise ValueError(f"expected {processes} measurements, got {len(lines)}: {last}")
    found = [json.loads(line) for line in lines]
    return {name: statistics.mean(x[name] for x in found) for name in found[0]}


def compared(
    path: Path, more: Sequence[str], *, processes: int, repeats: int, seconds: float
) -> dict[str, Any]:
    """Return the times of one config, the medians of alternating repetitions.

    Args:
        path: a config file.
        more: options of the config.
        processes: the number of processes to compare one with.
        repeats: repetitions.
        seconds: how long each is timed.
    """
    cores = len(os.sched_getaffinity(0)) // processes
    if not cores:
        raise ValueError(
            f"expected at least {processes} cores, got {len(os.sched_getaffinity(0))}"
        )
    base = ["--config", str(path), "--seconds", str(seconds), "--measure"]
    times: dict[str, list[float]] = {}
    row: dict[str, Any] = {"config": path.name, "options": list(more)}
    row |= {"processes": processes, "cores": cores, "repeats": repeats}
    row |= {"cpu": platform.processor() or platform.machine(), "jax": jax.__version__}
    for _ in tqdm(range(repeats), desc=path.name, disable=None):
        for name, count, how in (
            ("one_s", 1, "apart"),
            ("apart_s", processes, "apart"),
            ("together_s", processes, "together"),
        ):
            found = _start([*base, how, "--", *more], count, cores)
            times.setdefault(name, []).append(found["step_s"])
            if how == "together":
                times.setdefault("reduce_s", []).append(found["reduce_s"])
                row["sent"] = found["sent"]
    row |= {name: statistics.median(values) for name, values in times.items()}
    row["efficiencies"] = [
        one / other
        for one, other in zip(times["one_s"], times["together_s"], strict=True)
    ]
    return row


def table(rows: Sequence[Any]) -> str:
    """Return the rows as a Markdown table."""
    lines = []
    for row in rows:
        one, together = row["one_s"], row["together_s"]
        estimate = one / (one + row["reduce_s"])
        names = ("one_s", "apart_s", "together_s", "reduce_s")
        spread = f"{min(row['efficiencies']):.2f} to {max(row['efficiencies']):.2f}"
        lines.append(
            [
                " ".join([row["config"], *row["options"]]),
                f"{row['processes']} x {row['cores']}",
                str(row["repeats"]),
                f"{row['sent'] / 1e6:.2f}",
                *(f"{1e3 * row[name]:,.1f}" for name in names),
                f"{one / row['apart_s']:.2f}",
                f"{one / together:.2f} ({spread})",
                f"{estimate:.2f}",
                f"{one / together - estimate:+.2f}",
            ]
        )
    header = [
        "config",
        "processes x cores",
        "turns",
        "MB sent",
        "one process (ms)",
        "apart (ms)",
    ]
    header += ["together (ms)", "all-reduce alone (ms)", "efficiency apart"]
    return markdown([*header, "efficiency", "estimate", "gap"], lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--processes", type=int, default=2, help="compared with one; default: 2"
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns; default: 3")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of each measurement; default: 10"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--measure", choices=["apart", "together"], help="for one turn")
    parser.add_argument("options", nargs="*", help="options of the config, after --")
    args = parser.parse_args(argv)
    with clean_errors():
        if args.measure:
            distributed.initialize(clusters.find_start())
            config = plan.read_config(args.config[0], args.options)
            together = args.measure == "together"
            found = measure(config, seconds=args.seconds, together=together)
            print(_MARK + json.dumps(found), flush=True)
            return 0
        for name, least in (("processes", 2), ("repeats", 1)):
            if (value := getattr(args, name)) < least:
                raise ValueError(f"expected --{name} of at least {least}, got {value}")
        how = {"repeats": args.repeats, "seconds": args.seconds}
        rows = [
            compared(path, args.options, processes=args.processes, **how)
            for path in args.config
        ]
        print(f"\n{table(rows)}")
        if args.json:
            write_json(args.json, {"scaling": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
