"""What an imprinting study finds: accuracies over seeds, and the paper's claims."""

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.imprinting_config import Config
from experiments.imprinting_members import Member
from experiments.members import study_result
from jaxfer import config as configs
from jaxfer import runlog, stats
from jaxfer.data import Images
from jaxfer.stats import Summary

# The rows of the paper's tables, as it calls them, and two more.
ROWS = {
    "base_classifier": "the base classifier, of base classes alone",
    "rand_noft": "Rand-noFT",
    "imprinting": "Imprinting",
    "imprinting_aug": "Imprinting + Aug",
    "nearest": "nearest neighbour",
    "rand_ft": "Rand + FT",
    "imprinting_ft": "Imprinting + FT",
    "joint": "AllClassJoint",
    "joint_cosine": "AllClassJoint, cosine head",
}

# Before the names of rows of classifiers of novel classes alone (Table 3).
ALONE = "transfer_"

# Points within which accuracies are about equal: the paper's own are within 1.4.
_EQUAL = 2.0

# What is measured of a classifier, in percent.
Scores = dict[str, float]
# What is said of a difference.
Claim = Literal["above", "below", "equal"]
# Scores by seed, of a row at n.
Cells = dict[tuple[str, int], dict[int, Scores]]


def score(
    predicted: np.ndarray, labels: np.ndarray, base: int, class_names: Sequence[str]
) -> tuple[Scores, list[float]]:
    """Accuracies on test images of base, novel and all classes; recalls.

    Args:
        predicted: class of each image, among all of those the classifier has.
        labels: true ones; base classes come first.
        base: how many.
        class_names: of all classes.

    Returns:
        "base" and "novel", where there are images of both also "all" and "harmonic",
        the mean 2bn / (b + n), in percent; and the share of each class's images that
        are recognised.
    """
    hits, classes = predicted == labels, len(class_names)
    counts = np.bincount(labels, minlength=classes)
    recall = 100 * np.bincount(labels, hits, classes) / np.maximum(counts, 1)
    known = labels < base
    scores = {
        name: 100 * float(hits[chosen].mean())
        for name, chosen in (("base", known), ("novel", ~known))
        if chosen.any()
    }
    if len(scores) == 2:
        b, n = scores.values()
        scores["all"] = 100 * float(hits.mean())
        scores["harmonic"] = 2 * b * n / (b + n) if b + n else 0.0
    return scores, recall.tolist()


def cells_of(records: Mapping[Member, Mapping[str, Any]], config: Config) -> Cells:
    """The scores of every row at every n, by seed.

    Beside other dimensions and losses, which have seeds of their own, rows are named by
    their dimension: `imprinting_d64` has the seeds that `imprinting_d128` has.
    """
    cells: Cells = defaultdict(dict)
    for member, record in records.items():
        beside = (
            bool(config.dims or config.losses)
            and member.seed in config.side_seeds
            and (member.row, member.loss) in (("base", "softmax"), ("joint", "linear"))
        )
        for row, by_n in record["rows"].items():
            names = [row] * (member.dim == config.dim)
            names += [f"{row}_d{member.dim}"] * beside
            for name, (n, scores) in itertools.product(names, by_n.items()):
                cells[name, int(n)][member.seed] = scores
    return cells


def make_result(
    config: Config,
    workdir: Path,
    queue: Sequence[Member],
    train: Images,
    test: Images,
    base: int,
    published: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of result.json; `base` is the number of base classes."""
    folder = workdir / "members"
    records = {m: runlog.read_json(folder / f"{m.name}.json") for m in queue}
    cells = cells_of(records, config)
    split = f"{base}+{train.num_classes - base}"
    metrics = {
        f"{split}/n{n}/{row}/{metric}": _metric([s[metric] for s in by_seed.values()])
        for (row, n), by_seed in cells.items()
        for metric in next(iter(by_seed.values()))
    }
    return {
        "experiment": "imprinting",
        "config": configs.to_json(config),
        "base": base,
        "reference": runlog.compare(metrics, published),
        "metrics": metrics,
        "findings": findings(cells, config),
        "curves": {m.name: r["epochs"] for m, r in records.items() if r["epochs"]},
        "members": [
            {**m._asdict(), "name": m.name, "wall_s": records[m]["wall_s"]}
            for m in queue
        ],
        "seed": list(config.seeds),
        **study_result([*records.values()], train, test, config.data, devices=1),
    }


def findings(cells: Cells, config: Config) -> dict[str, dict[str, Any]]:
    """What Qi et al. 2018 say of their rows, as differences paired by seed.

    Seen where the 95% interval over seeds is on the paper's side of 0, not seen where
    it is on the other, None where it holds 0 or there is none. What they call about
    equal is seen where the interval is within 2 points of 0, not seen where it is
    outside of them.
    """
    found: dict[str, dict[str, Any]] = {}

    def say(
        name: str,
        what: str,
        one: str,
        other: str,
        n: int,
        *,
        metric: str = "novel",
        claim: Claim | None = "above",
    ) -> None:
        ours, theirs = cells.get((one, n)), cells.get((other, n))
        if not ours or not theirs:
            return
        if not (seeds := sorted(ours.keys() & theirs.keys())):
            return
        value = stats.paired(
            [ours[s][metric] for s in seeds], [theirs[s][metric] for s in seeds]
        )
        found[f"{name}/n{n}"] = {
            "what": f"{what}, n = {n}, {metric}",
            "difference": value.metric(over="seeds", unit="%"),
        }
        if claim is not None:
            found[f"{name}/n{n}"]["seen"] = _seen(value, claim)

    for n in sorted({n for _, n in cells}):
        say("1", "Imprinting - Rand-noFT", "imprinting", "rand_noft", n)
        say("2", "Imprinting - Rand+FT", "imprinting", "rand_ft", n)
        say(
            "3",
            "+Aug - Imprinting: about equal",
            "imprinting_aug",
            "imprinting",
            n,
            claim="equal",
        )
        say("4", "Imprinting+FT - Rand+FT", "imprinting_ft", "rand_ft", n)
        say(
            "5",
            "Imprinting+FT - Imprinting",
            "imprinting_ft",
            "imprinting",
            n,
            claim="below" if n == 1 else "above",
        )
        say(
            "5/all",
            "Imprinting+FT - Imprinting",
            "imprinting_ft",
            "imprinting",
            n,
            metric="all",
        )
        for loss in ("softmax", *config.losses):
            what = f"the mean - nearest neighbour, embedding by {loss}, novel alone"
            # Of one example they are the same.
            if n > 1:
                say(f"6/{loss}", what, f"{loss}_average", f"{loss}_nearest", n)
        for dim in config.dims:
            what = f"{dim} - {config.dim} dimensions: little effect"
            say(f"7/d{dim}", what, f"imprinting_d{dim}", "imprinting", n, claim="equal")
        joint = "AllClassJoint - Imprinting+FT"
        say("8", joint, "joint", "imprinting_ft", n, claim="below")
        say(
            "8/cosine",
            "AllClassJoint with the cosine head - Imprinting+FT",
            "joint_cosine",
            "imprinting_ft",
            n,
            claim=None,
        )
    return found


def _seen(value: Summary, claim: Claim) -> bool | None:
    if value.ci95 is None:
        return None
    low, high = value.mean - value.ci95, value.mean + value.ci95
    if claim == "below":
        low, high = -high, -low
    if claim != "equal":
        return True if low > 0 else False if high < 0 else None
    if -_EQUAL <= low and high <= _EQUAL:
        return True
    return False if low > _EQUAL or high < -_EQUAL else None


def tables(result: Mapping[str, Any]) -> str:
    """The paper's tables as Markdown: a line a row, a column an n.

    One a metric of classifiers of all classes (Tables 1, 2 and 4), and one of those of
    novel classes alone (Table 3, and the numbers of Figure 6).
    """
    titles = ("novel", "base", "all", "harmonic", "novel alone")
    by_table = {title: defaultdict(dict) for title in titles}
    for name, entry in result["metrics"].items():
        _, at, row, metric = name.split("/")
        kinds = ("_average", "_nearest")
        alone = row.startswith(ALONE) or _kind(row)[0].endswith(kinds)
        by_row = by_table[f"{metric} alone" if alone else metric]
        shown = Summary(entry["mean"], entry["ci95"], entry["n"])
        by_row[row.removeprefix(ALONE)][int(at[1:])] = str(shown)
    return "\n\n".join(_table(*found) for found in by_table.items())


def draw(workdir: Path, result: Mapping[str, Any]) -> None:
    """The figures of a study, where matplotlib is installed."""
    try:
        from experiments import imprinting_figures
    except ImportError:
        print("no figures: matplotlib is not installed (the 'plot' extra)")
        return
    imprinting_figures.draw(workdir, result)


def _table(title: str, by_row: Mapping[str, Mapping[int, str]]) -> str:
    columns = sorted({n for cells in by_row.values() for n in cells})
    lines = [
        f"| {title} | " + " | ".join(f"n = {n}" for n in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for row in sorted(by_row, key=lambda row: _kind(row)[1]):
        shown = " | ".join(by_row[row].get(n, "") for n in columns)
        name, dim = _kind(row)
        called = ROWS.get(name, name) + (f", {dim} dimensions" if dim else "")
        lines.append(f"| {called} | {shown} |")
    return "\n".join(lines)


def _kind(row: str) -> tuple[str, int]:
    """A row without its dimension, and this; 0 for none."""
    found = re.search(r"_d(\d+)$", row)
    return (row[: found.start()], int(found[1])) if found else (row, 0)


def _metric(values: Sequence[float]) -> dict[str, Any]:
    return stats.summarize(values).metric(over="seeds", unit="%")
