"""Results of an imprinting study: tidy rows, tables over seeds, findings."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.imprinting.claims import claims
from experiments.imprinting.classes import ClassSplit
from experiments.imprinting.config import Config
from experiments.imprinting.members import ALONE, MEASURE, Imprinted
from experiments.studies import about, tidy
from jaxfer import config as configs
from jaxfer import runlog, stats
from jaxfer.claims import judge, select
from jaxfer.data import Images
from jaxfer.stats import Summary
from jaxfer.study import Record

# The rows of the paper's tables under their names there, and further rows.
ROWS = {
    "base_classifier": "base classifier, base classes alone",
    "rand_noft": "Rand-noFT",
    "imprinting": "Imprinting",
    "imprinting_aug": "Imprinting + Aug",
    "nearest": "nearest neighbour",
    "rand_ft": "Rand + FT",
    "imprinting_ft": "Imprinting + FT",
    "joint": "AllClassJoint",
    "joint_cosine": "AllClassJoint, cosine head",
}
_METRICS = ("novel", "base", "all", "harmonic")


def make_result(
    config: Config,
    queue: Sequence[Imprinted],
    records: Mapping[str, Record],
    train: Images,
    test: Images,
    splits: Mapping[int, ClassSplit],
    published: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the content of result.json for the networks that are done."""
    lacking = [network.name for network in queue if network.name not in records]
    queue = [network for network in queue if network.name in records]
    rows = tidy_rows(queue, records)
    base = next(iter(splits.values())).base
    metrics = summaries(rows, f"{base}+{train.num_classes - base}", config.dim)
    shots = sorted({row["n"] for row in rows if row["n"]})
    return {
        "experiment": "imprinting",
        "config": configs.to_json(config),
        "base": base,
        "reference": runlog.compare(metrics, published),
        "metrics": metrics,
        "findings": judge(rows, claims(config, shots)),
        "rows": rows,
        "classes": {
            str(seed): {
                "base": list(split.names[: split.base]),
                "novel": list(split.names[split.base :]),
            }
            for seed, split in splits.items()
        },
        "curves": {
            network.name: records[network.name]["epochs"]
            for network in queue
            if records[network.name].get("epochs")
        },
        "lacking": lacking,
        "members": [{**network._asdict(), "name": network.name} for network in queue],
        "seed": sorted({network.seed for network in queue}),
        **about(records, train, test, config.data, devices=config.devices or 1),
    }


def tidy_rows(
    queue: Sequence[Imprinted], records: Mapping[str, Record]
) -> list[dict[str, Any]]:
    """Return one row per network or measurement, table row and score."""
    rows = []
    for network in queue:
        for name, scores in records[network.name]["rows"].items():
            n = network.n if network.row == MEASURE or network.n else 0
            properties = {
                "member": network.name,
                "seed": network.seed,
                "row": name,
                "n": n,
                "dim": network.dim,
                "loss": network.loss,
            }
            rows += tidy(properties, scores)
    return rows


def summaries(
    rows: Sequence[Mapping[str, Any]], split: str, dim: int
) -> dict[str, dict[str, Any]]:
    """Return means over seeds with 95% intervals, by n, row and metric.

    Rows of a dimension other than the study's end with it, such as `imprinting_d128`.
    """
    grouped = defaultdict(list)
    for row in rows:
        name = row["row"] if row["dim"] == dim else f"{row['row']}_d{row['dim']}"
        grouped[f"{split}/n{row['n']}/{name}/{row['metric']}"].append(row["value"])
    return {
        name: stats.summarize(values).metric(over="seeds", unit="%")
        for name, values in grouped.items()
    }


def means(
    rows: Sequence[Mapping[str, Any]], **wanted: Any
) -> dict[int, dict[str, Any]]:
    """Return means over seeds with 95% intervals, by n."""
    found = select(rows, **wanted)
    return {
        n: stats.summarize([r["value"] for r in select(found, n=n)])._asdict()
        for n in sorted({row["n"] for row in found})
    }


def tables(rows: Sequence[Mapping[str, Any]], dim: int) -> str:
    """Return the paper's tables as Markdown: one line per row, one column per n.

    There is one table per metric for classifiers of all classes (Tables 1, 2 and 4),
    and one for classifiers of novel classes alone (Table 3 and Figure 6).
    """
    alone = [r for r in rows if r["row"].startswith(ALONE) or _is_metric_row(r["row"])]
    apart = {id(row) for row in alone}
    others = [row for row in rows if id(row) not in apart]
    parts = [_table(metric, select(others, metric=metric), dim) for metric in _METRICS]
    parts.append(_table("novel alone", select(alone, metric="novel"), dim))
    return "\n\n".join(part for part in parts if part)


def label(row: str, dim: int | None = None) -> str:
    """Return the name of a row in tables and figures."""
    name = row.removeprefix(ALONE)
    shown = ROWS.get(name, name.replace("_", ", "))
    return shown + (f", {dim} dimensions" if dim else "")


def _is_metric_row(row: str) -> bool:
    return row.endswith(("_average", "_nearest"))


def _table(title: str, rows: Sequence[Mapping[str, Any]], dim: int) -> str:
    if not rows:
        return ""
    columns = sorted({row["n"] for row in rows})
    order = [*ROWS]
    kinds = sorted(
        {(row["row"], row["dim"]) for row in rows},
        key=lambda kind: (
            kind[1] != dim,
            kind[1],
            order.index(name) if (name := kind[0].removeprefix(ALONE)) in order else 99,
        ),
    )
    lines = [
        f"| {title} (%) | " + " | ".join(f"n = {n}" for n in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for row, own in kinds:
        at = means(rows, row=row, dim=own)
        cells = " | ".join(str(Summary(**at[n])) if n in at else "" for n in columns)
        lines.append(f"| {label(row, own if own != dim else None)} | {cells} |")
    return "\n".join(lines)
