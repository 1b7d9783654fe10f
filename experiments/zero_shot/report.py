"""Results of a zero-shot study: tidy rows, means with intervals, findings."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.studies import about, tidy
from experiments.zero_shot.claims import claims
from experiments.zero_shot.config import Config
from experiments.zero_shot.members import Mapped
from experiments.zero_shot.train import FEW
from jaxfer import config as configs
from jaxfer import runlog, stats
from jaxfer.claims import judge
from jaxfer.data import Images
from jaxfer.data.lists import counted
from jaxfer.stats import Summary
from jaxfer.study import Record
from jaxfer.tables import markdown


def make_result(
    config: Config,
    queue: Sequence[Mapped],
    records: Mapping[str, Record],
    parts: Mapping[str, Images],
    attributes: Sequence[str],
    published: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the content of result.json for the seeds that are done."""
    lacking = [m.name for m in queue if m.name not in records]
    queue = [m for m in queue if m.name in records]
    way = next(x.num_classes for name, x in parts.items() if name.startswith("test"))
    rows = tidy_rows(queue, records, way)
    metrics = summaries(rows, way)
    levels = [*dict.fromkeys(m.noise for m in queue)]
    return {
        "experiment": "zero_shot",
        "config": configs.to_json(config),
        "reference": runlog.compare(metrics, published),
        "metrics": metrics,
        "findings": judge(rows, claims(levels, config.shots)),
        "rows": rows,
        "lacking": lacking,
        "classes": {name: list(part.class_names) for name, part in parts.items()},
        "attributes": list(attributes),
        "seed": sorted({m.seed for m in queue}),
        **about(records, parts, devices=config.mesh.make().size),
    }


def tidy_rows(
    queue: Sequence[Mapped], records: Mapping[str, Record], way: int
) -> list[dict[str, Any]]:
    """Return one row per seed, noise level, method, shot and score.

    The method "chance" guesses one of the classes.

    Args:
        queue: the members that are done.
        records: their records.
        way: number of test classes.
    """
    rows = []
    for m in queue:
        record = records[m.name]
        member = {"member": m.name, "seed": m.seed, "noise": m.noise}
        scores = {name: record[name] for name in ("accuracy", "balanced_accuracy")}
        rows += tidy({**member, "method": "zero_shot", "shot": 0}, scores)
        chance = {"accuracy": 100 / way}
        rows += tidy({**member, "method": "chance", "shot": 0}, chance)
        for shot, accuracy in record["few_shot"].items():
            where = {**member, "method": FEW, "shot": int(shot)}
            rows += tidy(where, {"accuracy": accuracy})
    return rows


def summaries(rows: Sequence[Mapping[str, Any]], way: int) -> dict[str, dict[str, Any]]:
    """Return means over seeds with 95% intervals, by noise level, shot and method."""
    grouped = defaultdict(list)
    for row in rows:
        if row["method"] == "chance":
            continue
        level = "" if row["noise"] is None else f"_noise{row['noise']:g}"
        task = f"{way}way_{row['shot']}shot"
        name = f"test{level}/{task}/{row['method']}/{row['metric']}"
        grouped[name].append(row["value"])
    return {
        name: stats.summarize(values).metric(over="seeds", unit="%")
        for name, values in grouped.items()
    }


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the accuracies as a Markdown table, keyed by its title."""
    cells: dict[str, dict[str, str]] = {}
    way = ""
    for name, metric in result["metrics"].items():
        split, task, method, score = name.split("/")
        way, _, shot = task.removesuffix("shot").partition("way_")
        if score != "accuracy":
            continue
        column = "zero-shot" if method == "zero_shot" else f"{shot}-shot"
        level = split.partition("_noise")[2]
        summary = Summary(metric["mean"], metric["ci95"], metric["n"])
        cells.setdefault(level, {})[column] = str(summary)
    published = {row["value"] for row in result["reference"]}
    columns = [*dict.fromkeys(column for row in cells.values() for column in row)]
    rows = []
    for level, row in cells.items():
        line = [f"noise {level}" if level else "features"]
        line += [row.get(column, "") for column in columns]
        rows.append([*line, f"{100 / int(way):.2f}", *map(str, published)])
    title = (
        f"Accuracy on {way} test classes in percent, means over "
        f"{counted(len(result['seed']), 'seed')} with 95% intervals"
    )
    head = ["", *columns, "chance", *["published"] * len(published)]
    return {title: markdown(head, rows)}
