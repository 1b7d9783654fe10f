"""Aggregate runs of several seeds, and compare settings on the same test episodes.

    python tools/compare.py runs/figure2/* [--json FILE] [--baseline way20_shot5]
        [--by distance --by task.way] [--figure FILE]

Runs whose configs differ in the seed alone are one setting, named after the options in
which settings differ. Each test task has the mean over all episodes and seeds, with two
95% intervals: over the episodes of all its runs, and over the means of its seeds.
Differences from the baseline (default: the first setting) are paired episode by
episode, between runs with the same seed, data and test options; others have none.
Within the baseline, methods are compared with its first one.

With --by, settings that differ in one option alone are compared with each other, by the
method that each was trained for, and all these pairs together. With --figure, the
accuracies of trained methods are drawn, one panel per task; this needs matplotlib.
"""

import argparse
import itertools
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np

from experiments.prototypes.report import spoken
from jaxfer import stats
from jaxfer.config import clean_errors
from jaxfer.runlog import read_result, write_json
from jaxfer.tables import markdown
from jaxfer.tensors import digest

# Options that do not change results.
_PLACES = ("seed", "data.dir", "figures", "devices", "extend")
# What NumPy raises for a damaged archive.
_DAMAGED = (
    *(OSError, ValueError, EOFError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, SyntaxError, TokenError),
)


class Run(NamedTuple):
    """A finished run: its options without the seed, and accuracies by metric."""

    options: dict[str, Any]
    seed: int
    paired_by: tuple[Any, ...]
    episodes: dict[str, np.ndarray]


def read_run(workdir: Path) -> Run:
    """Read a run.

    Raises:
        ValueError: an unfinished or damaged run.
    """
    kept = ("config", "seed", "dataset_fingerprint")
    result = read_result(workdir, kept)
    config = result["config"]
    try:
        with (
            (workdir / "episodes.npz").open("rb") as opened,
            np.load(opened) as file,
        ):
            episodes = {name: file[name] for name in file.files}
    except _DAMAGED as e:
        raise ValueError(f"{workdir / 'episodes.npz'} cannot be read ({e})") from e
    # Results of earlier versions have no checksum.
    if result.get("episodes_sha256") not in (None, digest(episodes)):
        raise ValueError(
            f"expected the accuracies of {workdir / 'result.json'} in "
            f"{workdir / 'episodes.npz'}, got others: it is damaged or edited"
        )
    options = {
        name: value
        for name, value in config.items()
        if name not in _PLACES and not name.startswith(("run.", "mesh."))
    }
    test = config["data.test"]
    same = ("test.query", "test.episodes", "test.grouped", "test.least_shot")
    episodes_of = result["dataset_fingerprint"][test], result["seed"]
    paired_by = (*episodes_of, *(config.get(name) for name in same))
    return Run(options, result["seed"], paired_by, episodes)


def settings_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each setting, by the options in which settings differ.

    Raises:
        ValueError: two runs with the same options and seed.
    """
    names = dict.fromkeys(name for run in runs for name in run.options)
    differ = [
        name for name in names if len({repr(run.options.get(name)) for run in runs}) > 1
    ]
    found: dict[str, list[Run]] = {}
    for run in runs:
        words = [
            f"{name.rpartition('.')[2]} {run.options.get(name)}" for name in differ
        ]
        found.setdefault(", ".join(words) or "all runs", []).append(run)
    for name, own in found.items():
        seeds = [run.seed for run in own]
        if len({*seeds}) < len(seeds):
            raise ValueError(f"expected one run per seed of {name!r}, got {seeds}")
    return found


def compare(
    settings: Mapping[str, Sequence[Run]], baseline: str | None = None
) -> list[dict[str, Any]]:
    """Return one row per setting and metric.

    Args:
        settings: the runs of each setting.
        baseline: the setting, or a part of its name, that others are compared with;
            default: the first one.

    Raises:
        ValueError: an unknown baseline.
    """
    first = next(iter(settings))
    if baseline is not None:
        near = [name for name in settings if baseline in name]
        if not near:
            raise ValueError(
                f"expected one of the settings {[*settings]} as the baseline, got "
                f"{baseline!r}"
            )
        first = near[0]
    rows = []
    for name, runs in settings.items():
        for metric in runs[0].episodes:
            parts = [run.episodes[metric] for run in runs if metric in run.episodes]
            every = stats.summarize(np.concatenate(parts))
            row: dict[str, Any] = {
                "setting": name,
                "metric": metric,
                "seeds": len(runs),
                "trained": metric.split("/")[2] == _method(runs[0]),
            }
            row |= {"mean": every.mean, "ci95_episodes": every.ci95, "n": every.n}
            means = stats.summarize([part.mean() for part in parts])
            row["ci95_seeds"] = means.ci95
            rows.append(row | _difference(runs, settings[first], metric))
    return rows


def _difference(
    runs: Sequence[Run], baseline: Sequence[Run], metric: str
) -> dict[str, Any]:
    """The paired difference of a metric, from the task's first method in the baseline.

    A metric has the form split/task/method/accuracy.
    """
    split, task, _, _ = metric.split("/")
    by_episodes = {run.paired_by: run for run in baseline}
    differences = []
    for run in runs:
        other = by_episodes.get(run.paired_by)
        if other is None:
            continue
        same = [x for x in other.episodes if x.split("/")[:2] == [split, task]]
        against = metric if run is not other and metric in same else (*same, None)[0]
        if against is not None and (run is not other or against != metric):
            differences.append(run.episodes[metric] - other.episodes[against])
    if not differences:
        return {}
    gap = _gap(differences, runs=len(differences))
    return {
        "difference": gap["difference"],
        "difference_ci95_episodes": gap["ci95_episodes"],
        "difference_ci95_seeds": gap["ci95_seeds"],
    }


def compare_by(
    settings: Mapping[str, Sequence[Run]], option: str
) -> list[dict[str, Any]]:
    """Return paired differences between settings that differ in one option alone.

    Args:
        settings: the runs of each setting.
        option: the option, such as "distance".

    Returns:
        One row per pair of settings and task, and one per pair of values and task for
        all such pairs together, whose setting is "all": their differences on the same
        episode are averaged first.

    Raises:
        ValueError: no two settings differ in that option alone and were tested on the
            same episodes.
    """
    rows, together = [], {}
    for one, other in itertools.combinations(settings.values(), 2):
        mine, theirs = one[0].options, other[0].options
        differ = {k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k)}
        if differ != {option}:
            continue
        # The later value minus the earlier one.
        pair = f"{theirs.get(option)} - {mine.get(option)}"
        rest = _others(settings, mine, option)
        for task, found in _paired(other, one).items():
            gap = _gap([*found.values()], runs=len(found))
            rows.append({"pair": pair, "setting": rest, "task": task, **gap})
            for episodes, values in found.items():
                at = together.setdefault((pair, task), {})
                at.setdefault(episodes, []).append(values)
    if not rows:
        raise ValueError(
            f"expected settings that differ in {option} alone and were tested on the "
            f"same episodes, got {[*settings]}"
        )
    for (pair, task), at in together.items():
        means = [np.mean(values, axis=0) for values in at.values()]
        gap = _gap(means, runs=sum(map(len, at.values())))
        rows.append({"pair": pair, "setting": "all", "task": task, **gap})
    return rows


def _others(
    settings: Mapping[str, Sequence[Run]], own: Mapping[str, Any], option: str
) -> str:
    """Return the values of the options, apart from one, in which settings differ."""
    every = [runs[0].options for runs in settings.values()]
    names = dict.fromkeys(name for options in every for name in options)
    differ = [n for n in names if len({repr(x.get(n)) for x in every}) > 1]
    words = [f"{n.rpartition('.')[2]} {own.get(n)}" for n in differ if n != option]
    return ", ".join(words)


def _trained(run: Run) -> dict[str, np.ndarray]:
    """Return the accuracies of the method that a run trained, by task."""
    found = {}
    for name, values in run.episodes.items():
        _, task, method, _ = name.split("/")
        if method == _method(run):
            found[task] = values
    return found


def _method(run: Run) -> str:
    """Return the name of the method that a run trained."""
    return run.options.get("method", "prototypes")


def _paired(
    runs: Sequence[Run], others: Sequence[Run]
) -> dict[str, dict[Any, np.ndarray]]:
    """Return differences between runs, by task and by the episodes they share."""
    by_episodes = {run.paired_by: _trained(run) for run in others}
    found: dict[str, dict[Any, np.ndarray]] = {}
    for run in runs:
        other = by_episodes.get(run.paired_by, {})
        for task, values in _trained(run).items():
            if task in other:
                found.setdefault(task, {})[run.paired_by] = values - other[task]
    return found


def _gap(differences: Sequence[np.ndarray], *, runs: int) -> dict[str, Any]:
    every = stats.summarize(np.concatenate(differences))
    over = stats.summarize([x.mean() for x in differences])
    return {
        "difference": every.mean,
        "ci95_episodes": every.ci95,
        "n": every.n,
        "runs": runs,
        "ci95_seeds": over.ci95,
    }


def table_by(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of `compare_by` as a Markdown table."""
    lines = []
    for row in rows:
        gap = stats.Summary(row["difference"], row["ci95_episodes"], row["n"])
        seeds = "" if row["ci95_seeds"] is None else f"{row['ci95_seeds']:.2f}"
        cells = [row["pair"], row["setting"], row["task"], str(gap), seeds]
        lines.append([*cells, str(row["runs"])])
    header = ["pair", "setting", "task", "difference", "± over seeds", "pairs of runs"]
    return markdown(header, lines)


def draw(settings: Mapping[str, Sequence[Run]]) -> Any:
    """Return a figure of the accuracies of trained methods, one panel per task."""
    from matplotlib.figure import Figure

    tasks = [
        *dict.fromkeys(task for runs in settings.values() for task in _trained(runs[0]))
    ]
    names = [*settings]
    size = (6.5, 1.1 + 0.2 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for place, runs in enumerate(settings.values()):
            found = [x[task] for run in runs if task in (x := _trained(run))]
            if not found:
                continue
            mean, half, _ = stats.summarize(np.concatenate(found))
            axes.errorbar(mean, place, xerr=half, fmt="o", color="#0072B2")
            means = [x.mean() for x in found]
            axes.plot(means, [place] * len(means), "|", color="#888888", zorder=1)
        axes.set(title=spoken(task), xlabel="accuracy (%)")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return figure


def trained_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the accuracies of trained methods: a row per setting, a column per task.

    Args:
        rows: rows of `compare`.
    """
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["trained"]:
            mean = stats.Summary(row["mean"], row["ci95_episodes"], row["n"])
            task = spoken(row["metric"].split("/")[1])
            cells.setdefault(row["setting"], {})[task] = str(mean)
    tasks = [*dict.fromkeys(task for own in cells.values() for task in own)]
    lines = [
        [name, *(own.get(task, "") for task in tasks)] for name, own in cells.items()
    ]
    return markdown(["setting", *tasks], lines)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    header = ["setting", "task", "method", "accuracy", "± over seeds", "difference"]
    lines = []
    for row in rows:
        _, task, method, _ = row["metric"].split("/")
        mean = stats.Summary(row["mean"], row["ci95_episodes"], row["n"])
        seeds = "" if row["ci95_seeds"] is None else f"{row['ci95_seeds']:.2f}"
        gap = ""
        if "difference" in row:
            half = row["difference_ci95_episodes"]
            gap = str(stats.Summary(row["difference"], half, row["n"]))
        lines.append([row["setting"], task, method, str(mean), seeds, gap])
    return markdown(header, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument(
        "--baseline", help="setting to compare with; default: the first"
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="OPTION",
        help="compare settings that differ in this option alone; may be repeated",
    )
    parser.add_argument("--figure", type=Path, help="draw accuracies to this file")
    args = parser.parse_args(argv)
    with clean_errors():
        settings = settings_of([*map(read_run, args.runs)])
        rows = compare(settings, args.baseline)
        print(table(rows))
        pairs = {option: compare_by(settings, option) for option in args.by}
        for option, found in pairs.items():
            print(f"\n{option}:\n\n{table_by(found)}")
        if args.json:
            write_json(args.json, {"rows": rows, "by": pairs})
            print(f"written to {args.json}")
        if args.figure:
            try:
                from experiments import plots
            except ImportError as e:
                raise ValueError(
                    "--figure needs matplotlib: install the extra 'plot'"
                ) from e
            with plots.style():
                draw(settings).savefig(args.figure)
            print(f"drawn to {args.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
