"""Time the step that tools/plan.py estimates, on one device that is here.

    python tools/bench_plan.py --config configs/omniglot_1shot.py --chip h200

The step is the real one, with random parameters and pixels. Its time is that of a call
of many steps, divided by their number, the median of several calls; on a CPU, of single
steps. The table has the estimate of tools/plan.py beside it, for --chip, one of the
chips that it knows. With --kernels the kernels of a step on a GPU are counted by JAX's
profiler.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer.config import clean_errors
from jaxfer.keys import key_of
from jaxfer.runlog import write_json
from jaxfer.sharding import make_mesh
from jaxfer.tables import markdown
from tools import plan
from tools.planning import steps
from tools.planning.chips import read_topology
from tools.planning.programs import cost_of


def filled(like: Any, facts: Any, rng: np.random.Generator) -> Any:
    """Return arrays of the given shapes: random parameters and pixels, and real rows.

    Args:
        like: the shapes of the arguments of a step.
        facts: the size of the training data.
        rng: the source of random numbers.
    """

    def one(path: Any, x: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(key_of(0), x.shape)
        if x.dtype == np.uint8:
            return jax.device_put(rng.integers(0, 256, x.shape, np.uint8))
        if name.endswith("counts"):
            return jnp.full(x.shape, facts.per_class, jnp.int32)
        if name.endswith(("rows", "labels")):
            numbers = jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape)
            return numbers % facts.classes if name.endswith("labels") else numbers
        if "trainable" in name:
            return jnp.asarray(0.05 * rng.standard_normal(x.shape), x.dtype)
        # Running variances, and the divisor of pixels.
        whole = jnp.ones if name.endswith(("var", "std")) else jnp.zeros
        return whole(x.shape, x.dtype)

    return jax.tree_util.tree_map_with_path(one, like)


def _ready(config: Any, facts: Any, count: int) -> tuple[Any, Any, Any, Any]:
    """Return the lowered and the compiled step, and its state and data."""
    platform = jax.default_backend()
    lowered = steps.lower(config, facts, make_mesh(1), platform=platform, count=count)
    state, data = filled(lowered.arguments, facts, np.random.default_rng(0))
    return lowered, lowered.program.compile(), state, data


def timed(config: Any, facts: Any, *, count: int, calls: int = 7) -> dict[str, Any]:
    """Return the seconds of a step, the bytes it needs, and its rate.

    Args:
        config: the config of an experiment.
        facts: the size of its training data.
        count: steps per call.
        calls: timed calls.
    """
    lowered, compiled, state, data = _ready(config, facts, count)
    seconds = []
    for turn in range(calls + 2):
        began = time.perf_counter()
        state, metrics = compiled(state, data)
        jax.block_until_ready(metrics)
        if turn > 1:
            seconds.append((time.perf_counter() - began) / count)
    middle = statistics.median(seconds)
    use = compiled.memory_analysis()
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "unit": lowered.unit,
        "steps_per_call": count,
        "step_s": middle,
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "rate": lowered.per_step / middle,
        "temporary": use.temp_size_in_bytes,
    }


def kernels(config: Any, facts: Any, *, count: int = 10) -> float | None:
    """Return the kernels that a GPU runs per step; None without a GPU's profile."""
    _, compiled, state, data = _ready(config, facts, count)
    state, metrics = jax.block_until_ready(compiled(state, data))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(compiled(state, data))
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        found = [
            sum(1 for _ in line.events)
            for plane in planes
            if plane.name.startswith("/device:GPU")
            for line in plane.lines
            if line.name.startswith("Stream")
        ]
    return sum(found) / count if found else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--chip", help="chip of the estimate, such as h200")
    parser.add_argument("--steps-per-call", type=int, help="default: 50, or 1 on CPUs")
    parser.add_argument("--kernels", action="store_true", help="count the kernels")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("options", nargs="*", help="options of the config, after --")
    args = parser.parse_args(argv)
    count = args.steps_per_call or (1 if jax.default_backend() == "cpu" else 50)
    rows = []
    with clean_errors():
        for path in args.config:
            config = plan.read_config(path, args.options)
            facts = steps.facts_of(config)
            row = {"config": path.name, "options": args.options}
            row |= timed(config, facts, count=count)
            if args.kernels:
                row["kernels"] = kernels(config, facts)
            if args.chip:
                row |= _estimate(config, facts, args.chip)
            rows.append(row)
            print(f"{path.name}: {1e3 * row['step_s']:.3f} ms per step", flush=True)
        print(f"\n{table(rows)}")
        if args.json:
            write_json(args.json, {"measured": rows})
    return 0


def _estimate(config: Any, facts: Any, chip: str) -> dict[str, float]:
    """Return the estimate of a step on the device that is here, by a chip's rates."""
    topology, platform = read_topology(f"{chip}:1x1"), jax.default_backend()
    lowered = steps.lower(config, facts, make_mesh(1), platform=platform)
    compiled = lowered.program.compile()
    cost = cost_of(compiled, lowered.program, chips=1, platform=platform)
    half = config.net.precision == "bfloat16"
    times = plan.step_times(cost, topology, half=half)
    return {f"estimated_{name}": value for name, value in times.items()} | {
        "flops": cost.flops,
        "read": cost.read,
        "counted_kernels": cost.kernels,
    }


def table(rows: Sequence[Any]) -> str:
    """Return the rows as a Markdown table."""
    lines = []
    for row in rows:
        estimate = row.get("estimated_step_s")
        lines.append(
            [
                " ".join([row["config"], *row["options"]]),
                row["device"],
                str(row["steps_per_call"]),
                f"{1e3 * row['step_s']:.3f}",
                "" if estimate is None else f"{1e3 * estimate:.3f}",
                "" if estimate is None else f"{row['step_s'] / estimate:.1f}",
                f"{row['rate']:,.0f} {row['unit']}s/s",
                f"{row.get('kernels') or row.get('counted_kernels') or ''}",
            ]
        )
    header = ["config", "device", "steps per call", "step (ms)", "estimate (ms)"]
    return markdown([*header, "ratio", "rate", "kernels"], lines)


if __name__ == "__main__":
    sys.exit(main())
