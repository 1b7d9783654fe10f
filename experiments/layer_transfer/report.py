"""Results of a layer-transfer study: tidy rows, means with intervals, findings."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.layer_transfer.claims import OVER, claims
from experiments.layer_transfer.config import Config
from experiments.layer_transfer.members import Transfer
from experiments.studies import about, tidy
from jaxfer import config as configs
from jaxfer import runlog, stats
from jaxfer.claims import judge, select
from jaxfer.data import Images
from jaxfer.stats import Summary, decouple
from jaxfer.study import Record
from jaxfer.tables import markdown

# Networks that copy no layers.
UNCOPIED = ("base", "base+", "base3", "pixels")
_SCORES = ("accuracy", "balanced_accuracy", "train_accuracy")


def make_result(
    config: Config,
    queue: Sequence[Transfer],
    records: Mapping[str, Record],
    train: Images,
    test: Images,
    published: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the content of result.json for the networks that are done.

    A network is included once the base network that it is compared with is done too.
    """
    lacking = [m.name for m in queue if m.name not in records]
    queue = [m for m in queue if not {m.name, f"{m.target.name}-base"} & {*lacking}]
    rows = tidy_rows(queue, records)
    metrics = summaries(rows)
    layers = sorted({row["n"] for row in rows if row["n"]})
    targets = {m.target.name: m.target for m in queue}
    parts = {config.data.train: train, config.data.test: test}
    return {
        "experiment": "layer_transfer",
        "config": configs.to_json(config),
        "reference": runlog.compare(metrics, published),
        "metrics": metrics,
        "findings": judge(rows, claims(layers)),
        "rows": rows,
        "lacking": lacking,
        "classes": {name: list(target.classes) for name, target in targets.items()},
        "seed": sorted({target.seed for target in targets.values()}),
        **about(records, parts, devices=config.mesh.make().size),
    }


def tidy_rows(
    queue: Sequence[Transfer], records: Mapping[str, Record]
) -> list[dict[str, Any]]:
    """Return one row per network and score, and rows computed from several networks.

    For each network, "minus_base" is its accuracy minus that of the base network of the
    same task. At each n, rows of the treatments "co_adaptation" (base - BnB) and
    "specificity" (BnB - AnB) hold the two losses of frozen transfer.
    """
    rows = []
    for m in queue:
        target = m.target
        properties = {
            "member": m.name,
            "grid": target.grid,
            "target": target.name,
            "split": target.split,
            "half": target.half,
            "seed": target.seed,
            "treatment": m.kind,
            "n": m.n,
        }
        scores = {name: records[m.name][name] for name in _SCORES}
        base = records[f"{target.name}-base"]["accuracy"]
        rows += tidy(properties, {**scores, "minus_base": scores["accuracy"] - base})
    by_network = {
        (row["target"], row["treatment"], row["n"]): row
        for row in select(rows, metric="accuracy")
    }
    for (target, treatment, n), row in by_network.items():
        bnb = by_network.get((target, "BnB", n))
        if treatment != "AnB" or bnb is None:
            continue
        base = by_network[target, "base", 0]["value"]
        for loss, value in (
            ("co_adaptation", base - bnb["value"]),
            ("specificity", bnb["value"] - row["value"]),
        ):
            properties = {k: v for k, v in row.items() if k not in ("member", "value")}
            rows.append(
                {**properties, "treatment": loss, "metric": "loss", "value": value}
            )
    return rows


def summaries(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return means over splits and seeds with 95% intervals, by grid, n, treatment.

    The two halves of a split share base networks, so they are averaged first.
    """
    places = dict.fromkeys((row["grid"], row["n"], row["treatment"]) for row in rows)
    found = {}
    for grid, n, treatment in places:
        own = select(rows, grid=grid, n=n, treatment=treatment)
        place = f"{grid}/n{n}/{treatment}"
        for metric in dict.fromkeys(row["metric"] for row in own):
            if (treatment, metric) != ("base", "minus_base"):
                values = repetitions(select(own, metric=metric))
                found[f"{place}/{metric}"] = _metric(
                    stats.summarize([*values.values()])
                )
        accuracy = select(own, metric="accuracy")
        base = select(rows, grid=grid, treatment="base", metric="accuracy")
        if accuracy and treatment != "base":
            # As in the paper, where networks of different tasks are not paired.
            found[f"{place}/minus_base_unpaired"] = _metric(
                stats.unpaired(
                    [row["value"] for row in accuracy], [row["value"] for row in base]
                )
            )
    for grid, n in dict.fromkeys((grid, n) for grid, n, _ in places if n):
        at = [
            repetitions(select(rows, grid=grid, metric="accuracy", treatment=t, n=m))
            for t, m in (("base", 0), ("BnB", n), ("AnB", n))
        ]
        if all(at):
            lost = decouple(*([x[key] for key in at[0]] for x in at))
            found[f"{grid}/n{n}/decoupling/excess"] = {
                **_metric(lost.excess),
                "dominant": lost.dominant,
            }
    return {**found, **_gains(rows)}


def _gains(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return Table 1: the gain by fine-tuned transfer over spans of n.

    Differences are paired by target, with 95% intervals over splits and seeds.
    """
    shown = select(rows, metric="accuracy", grid="similar")
    layers = sorted({row["n"] for row in select(shown, treatment="AnB+")})
    found = {}
    # The spans of the paper: all n, n from 3, and n from 5.
    for lowest in sorted({*layers[:1], *(n for n in (3, 5) if n in layers)}):
        span = tuple(n for n in layers if n >= lowest)
        over = repetitions(select(shown, treatment="AnB+", n=span))
        for name in ("base", "base+", "BnB+"):
            at = span if name == "BnB+" else 0
            under = repetitions(select(shown, treatment=name, n=at))
            if pairs := [key for key in over if key in under]:
                gain = stats.paired(*([x[k] for k in pairs] for x in (over, under)))
                place = f"similar/n{lowest} to {span[-1]}/AnB+ - {name}/gain"
                found[place] = _metric(gain)
    return found


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of a study as Markdown, by title."""
    config, points = result["config"], "in percentage points"
    scores: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for name, metric in result["metrics"].items():
        grid, n, treatment, score = name.split("/")
        at = scores.setdefault(score, {}).setdefault((grid, treatment), {})
        summary = Summary(metric["mean"], metric["ci95"], metric["n"])
        at[n.removeprefix("n")] = str(summary)

    def by_n(score: str) -> str:
        cells = {
            key: at
            for key, at in scores.get(score, {}).items()
            if key[1] not in UNCOPIED
        }
        layers = dict.fromkeys(n for at in cells.values() for n in at)
        columns = [_column(*key, config[f"{key[0]}.by"]) for key in cells]
        rows = [[n, *(at.get(n, "") for at in cells.values())] for n in layers]
        return markdown(["n", *columns], rows)

    minus = scores.get("minus_base", {})
    alone = [
        [config[f"{grid}.by"], kind, at["0"], minus.get((grid, kind), {}).get("0", "")]
        for (grid, kind), at in scores["accuracy"].items()
        if kind in UNCOPIED
    ]
    found = {
        "Accuracy minus that of the base network of the same task, " + points: by_n(
            "minus_base"
        ),
        "Accuracy of networks without copied layers, in percent": markdown(
            ["classes", "network", "accuracy", "minus base"], alone
        ),
        "The same minus base, with unpaired intervals as in the paper": by_n(
            "minus_base_unpaired"
        ),
        "Accuracy that frozen transfer costs, by cause, " + points: by_n("loss"),
        "Gain by fine-tuned transfer over spans of n, " + points: by_n("gain"),
    }
    # A table of a header alone has no cells.
    return {title: table for title, table in found.items() if table.count("\n") > 1}


def _column(grid: str, treatment: str, by: str) -> str:
    return treatment if grid == "similar" else f"{treatment} ({by})"


def repetitions(rows: Sequence[Mapping[str, Any]]) -> dict[tuple, float]:
    """Return the mean over halves of each repetition, one split with one seed."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[tuple(row[name] for name in OVER)].append(row["value"])
    return {key: float(np.mean(grouped[key])) for key in sorted(grouped)}


def _metric(summary: Summary) -> dict[str, Any]:
    return summary.metric(over="splits and seeds", unit="%")
