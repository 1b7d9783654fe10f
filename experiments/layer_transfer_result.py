"""What a layer-transfer study finds: networks on disk, differences with intervals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.layer_transfer_config import Config
from experiments.layer_transfer_members import Member
from experiments.members import study_result
from jaxfer import config as configs
from jaxfer import runlog, stats
from jaxfer.data import Images
from jaxfer.stats import Summary
from jaxfer.transfer import decouple

# Accuracies of one treatment at one n by target name.
ByTarget = dict[str, float]
Cells = dict[tuple[str, str, int], ByTarget]


def row(folder: Path, member: Member, done: int, of: int, left: float) -> str:
    """A line of the progress table."""
    record = runlog.read_json(folder / f"{member.name}.json")
    cached = " (cached)" if record["cached"] else ""
    return (
        f"[{done}/{of}] {member.name}: {record['accuracy']:.2f}%{cached}, about "
        f"{left / 60:.0f} min to go"
    )


def make_result(
    config: Config,
    workdir: Path,
    queue: Sequence[Member],
    train: Images,
    test: Images,
    published: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of result.json."""
    records = {
        member.name: runlog.read_json(workdir / "members" / f"{member.name}.json")
        for member in queue
    }
    cells: Cells = defaultdict(dict)
    for m in queue:
        accuracy = records[m.name]["accuracy"]
        cells[m.target.grid, m.kind, m.n][m.target.name] = accuracy
    metrics = {
        f"{_place(grid, n)}/{kind}/accuracy": _metric(summarize(values))
        for (grid, kind, n), values in cells.items()
    }
    metrics |= differences(cells)
    return {
        "experiment": "layer_transfer",
        "config": configs.to_json(config),
        "reference": runlog.compare(metrics, published),
        "metrics": metrics,
        "findings": findings(cells),
        "members": [
            {
                "name": m.name,
                "grid": m.target.grid,
                "target": m.target.name,
                "treatment": m.kind,
                "n": m.n,
                "accuracy": records[m.name]["accuracy"],
                "train_accuracy": records[m.name]["train_accuracy"],
                "wall_s": records[m.name]["wall_s"],
                "cached": records[m.name]["cached"],
            }
            for m in queue
        ],
        "seed": sorted({m.target.seed for m in queue}),
        **study_result(
            [*records.values()], train, test, config.data, devices=config.devices or 1
        ),
    }


def differences(cells: Cells) -> dict[str, dict[str, Any]]:
    """Every treatment against its base networks, and where the loss is from.

    Paired by target: each network less the base network of the same task. Beside it
    the paper's way, the difference of the means.
    """
    found = {}
    for (grid, kind, n), values in cells.items():
        if kind == "base":
            continue
        base, place = cells[grid, "base", 0], f"{_place(grid, n)}/{kind}"
        found[f"{place}/minus_base"] = _metric(_paired(values, base))
        found[f"{place}/minus_base_unpaired"] = _metric(
            stats.unpaired([*values.values()], [*base.values()])
        )
        if all(base.values()):
            found[f"{place}/relative_to_base"] = _metric(_relative(values, base))
    for grid, n in sorted({(grid, n) for grid, _, n in cells if n}):
        bnb, anb = cells.get((grid, "BnB", n)), cells.get((grid, "AnB", n))
        if bnb is None or anb is None:
            continue
        base = cells[grid, "base", 0]
        lost = decouple(*([x[name] for name in base] for x in (base, bnb, anb)))
        place = f"{_place(grid, n)}/decoupling"
        apart = [[*x.values()] for x in (base, bnb, anb)]
        for i, (name, value) in enumerate(zip(lost._fields[:2], lost[:2], strict=True)):
            found[f"{place}/{name}"] = _metric(value)
            unpaired = stats.unpaired(*apart[i : i + 2])
            found[f"{place}/{name}_unpaired"] = _metric(unpaired)
        found[f"{place}/dominant"] = {**_metric(lost.excess), "is": lost.dominant}
    return found


def findings(cells: Cells) -> dict[str, dict[str, Any]]:
    """The five findings of the paper as differences, each with whether it is seen.

    Seen where the 95% interval over targets (split x half x seed) is on the paper's
    side of 0, not seen where it is on the other, and None where it holds 0 or where
    there is no interval.
    """
    layers = sorted({n for _, _, n in cells if n})
    if not layers:
        return {}
    similar = {kind: _levels(cells, "similar", kind, layers) for _, kind, _ in cells}
    base = cells.get(("similar", "base", 0), {})
    found: dict[str, dict[str, Any]] = {}

    def say(name: str, value: Summary, sign: int, what: str) -> None:
        seen = None
        if value.ci95 is not None and abs(value.mean) > value.ci95:
            seen = bool(sign * value.mean > 0)
        found[name] = {"what": what, "difference": _metric(value), "seen": seen}

    for kind, what in (
        ("base3", "trained three times as long - base"),
        ("base+", "base trained for a second time - base"),
        ("pixels", "logistic regression on pixels - base"),
    ):
        if judged := cells.get(("similar", kind, 0)):
            value = _paired(judged, base)
            found[f"0/{kind}"] = {"what": what, "difference": _metric(value)}
            found[f"0/{kind}"]["seen"] = None
    middle = [n for n in layers if layers[0] < n < layers[-1]]
    first, last = layers[0], layers[-1]
    bnb, bnb2 = similar.get("BnB", {}), similar.get("BnB+", {})
    anb, anb2 = similar.get("AnB", {}), similar.get("AnB+", {})
    for n in middle:
        if n in bnb:
            what = f"BnB - base at n = {n}: selffers dip at middle n"
            say(f"1/n{n}", _paired(bnb[n], base), -1, what)
        if n in bnb and n in bnb2:
            what = f"BnB+ - BnB at n = {n}: fine-tuning recovers"
            say(f"2/n{n}", _paired(bnb2[n], bnb[n]), 1, what)
        if n in bnb2:
            what = f"BnB+ - base at n = {n}: all of it"
            say(f"2/n{n}/base", _paired(bnb2[n], base), 1, what)
    if first < last and first in anb and last in anb:
        what = f"AnB at n = {last} - at n = {first}: transfer falls with n"
        say("3/falls", _paired(anb[last], anb[first]), -1, what)
    if last in anb and last in bnb:
        lost = decouple(*([x[t] for t in base] for x in (base, bnb[last], anb[last])))
        what = f"specificity - co-adaptation at n = {last}: specificity dominates late"
        say("3/specificity", lost.excess, 1, what)
    if anb2:
        over = {t: float(np.mean([anb2[n][t] for n in anb2])) for t in base}
        say("4/base", _paired(over, base), 1, "AnB+ over all n - base")
        control = cells.get(("similar", "base+", 0))
        if control:
            what = "AnB+ over all n - base trained twice as long"
            say("4/control", _paired(over, control), 1, what)
        if bnb2:
            selffer = {t: float(np.mean([bnb2[n][t] for n in anb2])) for t in base}
            say("4/selffer", _paired(over, selffer), 1, "AnB+ - BnB+, over all n")
    far = _levels(cells, "dissimilar", "AnB", layers)
    far_base = cells.get(("dissimilar", "base", 0), {})
    drawn = _levels(cells, "untrained", "random", layers)
    drawn_base = cells.get(("untrained", "base", 0), {})
    if not all([*base.values(), *far_base.values(), *drawn_base.values()]):
        return found
    for n in layers:
        if n in far and n in anb:
            what = f"AnB / base, dissimilar - similar halves, n = {n}: falls faster"
            value = stats.unpaired(_ratios(far[n], far_base), _ratios(anb[n], base))
            say(f"5/falls/n{n}", value, -1, what)
        if n in far and n in drawn:
            what = f"AnB of dissimilar halves / base - random / base, n = {n}: above"
            value = stats.unpaired(
                _ratios(far[n], far_base), _ratios(drawn[n], drawn_base)
            )
            say(f"5/random/n{n}", value, 1, what)
    return found


def summarize(values: ByTarget) -> Summary:
    """Mean and interval over targets."""
    return stats.summarize([*values.values()])


def _levels(
    cells: Cells, grid: str, kind: str, layers: Sequence[int]
) -> dict[int, ByTarget]:
    return {n: cells[grid, kind, n] for n in layers if (grid, kind, n) in cells}


def _paired(values: ByTarget, baseline: ByTarget) -> Summary:
    names = [*values]
    return stats.paired([*values.values()], [baseline[name] for name in names])


def _ratios(values: ByTarget, base: ByTarget) -> list[float]:
    return [100 * value / base[name] for name, value in values.items()]


def _relative(values: ByTarget, base: ByTarget) -> Summary:
    return stats.summarize(_ratios(values, base))


def _metric(summary: Summary) -> dict[str, Any]:
    return summary.metric(over="targets", unit="%")


def _place(grid: str, n: int) -> str:
    return f"{grid}/n{n}"


def draw(workdir: Path, result: Mapping[str, Any]) -> None:
    """The figures of a study, where matplotlib is installed."""
    try:
        from experiments import layer_transfer_figures
    except ImportError:
        print("no figures: matplotlib is not installed (the 'plot' extra)")
        return
    layer_transfer_figures.draw(workdir, result)
