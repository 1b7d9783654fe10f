"""Estimate a training on accelerators that are not at hand, by compiling for them.

    python tools/plan.py --config configs/omniglot_1shot.py --topology v5e:1x1 v5e:16x16
        [--per-chip 1] [--model 1] [--streamed] [--json FILE] [--figure FILE]
        [-- --net.precision bfloat16 ...]

The real training step of a config of prototypes, layer_transfer or imprinting (for the
last two, that of a base network) is compiled by the compilers of the TPU (extra
plan-tpu) and of NVIDIA GPUs (extra plan-gpu), which run on any machine with Linux.
Topologies are v5e:4x4, v5e:16x16*4 for four slices, or h100:4x8 for four hosts with
eight GPUs each. Options of the config follow "--".

For each topology the table has the bytes that a chip needs beside those it has, the
operations and bytes of a step per chip, the collectives between chips, and an estimate
of the time of a step: the larger of operations and bytes, each divided by the rates of
the data sheet, plus the time of the collectives and 5 microseconds per kernel of a GPU.
Nothing overlaps with collectives. Efficiency is the time on the first topology of the
same chip divided by that on this one, since every chip has the same work. The numbers
are estimates: no accelerator is used.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxfer.config import clean_errors, parse
from jaxfer.runlog import read_json, write_json
from jaxfer.tables import markdown
from tools.planning.chips import Topology, read_topology, use_compilers_only

_GPU_OPTIONS = {"xla_gpu_autotune_level": "0"}


def plan(
    config: Any,
    topology: Topology,
    facts: Any,
    *,
    per_chip: int | None = None,
    model: int = 1,
    streamed: bool = False,
) -> dict[str, Any]:
    """Compile the step of a config for a topology, and return a row of the table.

    Args:
        config: the config of an experiment.
        topology: the chips.
        facts: the size of the training data.
        per_chip: see `steps.lower`.
        model: chips that share the rows of a head.
        streamed: see `steps.lower`.

    Raises:
        ValueError: a config, a number of chips or a topology that does not fit.
    """
    from jaxfer.sharding import make_mesh
    from tools.planning import steps
    from tools.planning.programs import cost_of

    if topology.size % model:
        raise ValueError(
            f"expected --model to divide the {topology.size} chips of {topology.name}, "
            f"got {model}"
        )
    chip = topology.chip
    mesh = make_mesh(topology.size // model, model, devices=topology.devices())
    lowered = steps.lower(
        config,
        facts,
        mesh,
        platform=chip.platform,
        per_chip=per_chip,
        streamed=streamed,
    )
    begun = time.monotonic()
    options = _GPU_OPTIONS if chip.platform == "gpu" else {}
    compiled = lowered.program.compile(compiler_options=options)
    seconds = time.monotonic() - begun
    cost = cost_of(
        compiled,
        lowered.program,
        # The network is whole on each chip of "model".
        chips=topology.size // model,
        platform=chip.platform,
        compile_s=round(seconds, 1),
    )
    times = step_times(cost, topology, half=config.net.precision == "bfloat16")
    return {
        "topology": topology.name,
        "chips": topology.size,
        "per_step": lowered.per_step,
        "unit": lowered.unit,
        "num_steps": lowered.num_steps,
        **cost._asdict(),
        "chip_memory": chip.memory,
        **times,
        "minutes": lowered.num_steps * times["step_s"] / 60,
    }


def step_times(cost: Any, topology: Topology, *, half: bool) -> dict[str, float]:
    """Return the seconds of a step by the rates of a chip's data sheet.

    Among n chips of a slice or host, an array of an all-reduce is sent 2 (n - 1) / n
    times, one of a reduce-scatter (n - 1) / n times, and one of an all-gather n - 1
    times. Hosts and their GPUs reduce an array in turn, so that each GPU sends a part
    of it to other hosts.

    Args:
        cost: the cost of the step per chip.
        topology: the chips.
        half: whether products are of bfloat16 arrays.
    """
    chip, near = topology.chip, topology.together
    products = cost.flops / (chip.flops if half else chip.flops32)
    ring = (near - 1) / near
    times = {"all-reduce": 2 * ring, "all-gather": near - 1, "send": 0}
    near_bytes = sum(times.get(name, ring) * x for name, x in cost.sent.items())
    hosts = topology.size / near
    far_bytes = cost.sent.get("send", 0.0)
    if chip.platform == "gpu":
        far_bytes = 2 * (hosts - 1) / hosts * cost.sent.get("all-reduce", 0.0) / near
    rounds = near_bytes / chip.link + far_bytes / chip.network
    arrays = cost.read / chip.bandwidth
    kernels = (cost.kernels or 0) * chip.kernel
    return {
        "products_s": products,
        "arrays_s": arrays,
        "collectives_s": rounds,
        "kernels_s": kernels,
        "step_s": max(products, arrays) + rounds + kernels,
    }


def with_efficiency(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the efficiency of each, by the first row of its chip."""
    first: dict[str, Mapping[str, Any]] = {}
    found = []
    for row in rows:
        base = first.setdefault(row["topology"].partition(":")[0], row)
        per_chip = row["per_step"] / row["chips"] / row["step_s"]
        expected = base["per_step"] / base["chips"] / base["step_s"]
        found.append({**row, "efficiency": per_chip / expected})
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    unit = rows[0]["unit"]
    lines = []
    for row in rows:
        said = ", ".join(f"{n} {name}" for name, n in row["collectives"].items())
        lines.append(
            [
                row["topology"],
                f"{row['chips']:,}",
                f"{row['per_step']:,}",
                f"{row['compile_s']:.0f}",
                f"{row['memory'] / 1e9:.2f} of {row['chip_memory'] / 1e9:.0f}",
                f"{row['temporary'] / 1e6:.0f}",
                f"{row['flops'] / 1e9:.1f}",
                f"{row['read'] / 1e9:.2f}",
                said or "none",
                f"{sum(row['sent'].values()) / 1e6:.2f}",
                "" if row["kernels"] is None else str(row["kernels"]),
                f"{1e3 * row['step_s']:.2f}",
                f"{row['efficiency']:.2f}",
                f"{row['minutes']:.2f}",
            ]
        )
    header = ["topology", "chips", f"{unit}s per step", "compile (s)", "GB per chip"]
    header += ["MB temporary", "GFLOP", "GB moved", "collectives", "MB sent", "kernels"]
    return markdown([*header, "step (ms)", "efficiency", "minutes"], lines)


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return a figure of the estimated time of a step by the number of chips."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["topology"].partition(":")[0] for row in rows):
        own = [row for row in rows if row["topology"].startswith(f"{name}:")]
        chips = [row["chips"] for row in own]
        axes.plot(chips, [1e3 * row["step_s"] for row in own], "o-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="chips", ylabel="estimated time of a step (ms)")
    axes.legend(frameon=False)
    return figure


def read_config(path: Path, options: Sequence[str]) -> Any:
    """Return the config in a file, of whichever experiment, with options applied."""
    from experiments.imprinting.config import Config as Imprinting
    from experiments.layer_transfer.config import Config as LayerTransfer
    from experiments.prototypes.config import Config as Prototypes

    line = ["--config", str(path), *options]
    for kind in (Prototypes, LayerTransfer, Imprinting):
        name = kind.__module__.rpartition(".")[0]
        try:
            return parse(name, kind, line).config
        except ValueError as e:
            if "expected config = experiments." not in str(e):
                raise
    raise ValueError(
        f"expected a config of prototypes, layer_transfer or imprinting in {path}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="config file")
    parser.add_argument(
        "--topology", nargs="+", required=True, help="such as v5e:4x4 or h100:1x8"
    )
    parser.add_argument(
        "--per-chip",
        type=int,
        help="episodes or images per step and chip; default: those of the config",
    )
    parser.add_argument(
        "--model", type=int, default=1, help="chips that share a head; default: 1"
    )
    parser.add_argument(
        "--streamed", action="store_true", help="images are passed to each step"
    )
    parser.add_argument("--classes", type=int, help="classes of the training data")
    parser.add_argument("--per-class", type=int, help="images of each class")
    parser.add_argument(
        "--image", type=int, nargs=3, help="height, width and channels of an image"
    )
    parser.add_argument(
        "--json", type=Path, help="write the rows to this file, beside those it has"
    )
    parser.add_argument("--figure", type=Path, help="draw the times to this file")
    parser.add_argument("options", nargs="*", help="options of the config, after --")
    args = parser.parse_args(argv)
    use_compilers_only()
    with clean_errors():
        for name, value in (("per-chip", args.per_chip), ("model", args.model)):
            if value is not None and value < 1:
                raise ValueError(f"expected --{name} of at least 1, got {value}")
        config = read_config(args.config, args.options)
        rows, facts = [], _facts(args, config)
        content: dict[str, Any] = {"plan": []}
        for topology in map(read_topology, args.topology):
            try:
                row = plan(
                    config,
                    topology,
                    facts,
                    per_chip=args.per_chip,
                    model=args.model,
                    streamed=args.streamed,
                )
            except RuntimeError as e:
                if "RESOURCE_EXHAUSTED" not in str(e):
                    raise
                text = " ".join(str(e).split())[:200]
                print(f"{topology.name} has too little memory: {text}", flush=True)
                continue
            print(f"{topology.name}: compiled in {row['compile_s']:.1f} s", flush=True)
            rows.append(row)
            content = _joined(args, facts, rows)
            if args.json:
                write_json(args.json, content)
        if not (rows := content["plan"]):
            raise ValueError("expected chips with enough memory, got none")
        print(f"\nEstimates for {args.config}:\n\n{table(rows)}")
        if args.figure:
            from experiments import plots

            with plots.style():
                draw(rows).savefig(args.figure)
            print(f"drawn to {args.figure}")
    return 0


def _joined(
    args: argparse.Namespace, facts: Any, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the content of the file, with rows that it has of other topologies."""
    what = {
        "config": args.config.name,
        "options": args.options,
        "per_chip": args.per_chip,
        "model": args.model,
        "streamed": args.streamed,
        "data": [facts.classes, facts.per_class, *facts.shape],
    }
    if args.json and args.json.is_file():
        found = read_json(args.json)
        if {name: found.get(name) for name in what} != what:
            raise ValueError(f"expected plans of {what} in {args.json}, got others")
        new = {row["topology"] for row in rows}
        rows = [*(x for x in found["plan"] if x["topology"] not in new), *rows]
    return {**what, "plan": with_efficiency(rows)}


def _facts(args: argparse.Namespace, config: Any) -> Any:
    from tools.planning import steps

    given = args.classes, args.per_class, args.image and tuple(args.image)
    if all(given):
        return steps.Facts(*given)
    known = steps.facts_of(config)
    return known._make(a or b for a, b in zip(given, known, strict=True))


if __name__ == "__main__":
    sys.exit(main())
