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
from jaxfer.tables import markdown

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
_ALL = ", with all classes as candidates, in percent"
_TITLES = {
    "novel": f"Accuracy on images of novel classes{_ALL}",
    "base": f"Accuracy on images of base classes{_ALL}",
    "all": f"Accuracy on images of all classes{_ALL}",
    "harmonic": "Harmonic mean of the accuracies on base and on novel classes",
    "alone": "Accuracy among novel classes alone, in percent",
    "dimensions": f"Accuracy on novel classes by embedding dimensions{_ALL}",
}


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
    parts = {config.data.train: train, config.data.test: test}
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
        **about(records, parts, devices=config.mesh.make().size),
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

    The name of a row with another dimension than `dim` ends with that dimension, as in
    `imprinting_d128`.
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


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the paper's tables as Markdown by title: a line per row, a column per n.

    Tables 1, 2 and 4 of the paper test classifiers of all classes, Table 3 classifiers
    of novel classes alone, Figure 6 losses and Figure 7 dimensions.
    """
    cells: dict[str, dict[tuple[str, str], dict[int, str]]] = {}
    for name, metric in result["metrics"].items():
        _, n, place, score = name.split("/")
        row, _, dim = place.partition("_d")
        if (title := _title(row, dim, score)) is None:
            continue
        summary = Summary(metric["mean"], metric["ci95"], metric["n"])
        at = cells.setdefault(title, {}).setdefault((row.removeprefix(ALONE), dim), {})
        at[int(n.removeprefix("n"))] = str(summary)
    return {title: _table(cells[title]) for title in _TITLES.values() if title in cells}


def label(row: str, dim: str = "") -> str:
    """Return the name of a row in tables and figures."""
    name = row.removeprefix(ALONE)
    loss, _, kind = name.rpartition("_")
    shown = ROWS.get(name) or f"{loss}, {kind}"
    return shown + (f", {dim} dimensions" if dim else "")


def _title(row: str, dim: str, score: str) -> str | None:
    """Return the title of the table that has a metric; None if no table has it."""
    if row.startswith(ALONE) or row.endswith(("_average", "_nearest")):
        return _TITLES["alone"] if score == "novel" and not dim else None
    if dim:
        return _TITLES["dimensions"] if score == "novel" else None
    return _TITLES.get(score)


def _table(cells: Mapping[tuple[str, str], Mapping[int, str]]) -> str:
    columns = sorted({n for at in cells.values() for n in at})
    order = [*ROWS, *(row for row, _ in cells if row not in ROWS)]
    lines = sorted(cells, key=lambda key: (int(key[1] or 0), order.index(key[0])))
    return markdown(
        ["row", *(f"n = {n}" for n in columns)],
        [
            [label(row, dim), *(cells[row, dim].get(n, "") for n in columns)]
            for row, dim in lines
        ],
    )
