"""Draw Figures 3 to 8 of Qi et al. 2018. Needs matplotlib, the `plot` extra."""

import textwrap
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import plots
from experiments.imprinting.members import ALONE, MEASURE, Imprinted
from experiments.imprinting.report import label, means
from experiments.imprinting.train import GALLERY
from experiments.plots import Mark, Result
from jaxfer.claims import select
from jaxfer.runlog import read_json
from jaxfer.study import member_folder

_LOOKS = {
    "rand_noft": (plots.GREY, "x"),
    "imprinting": (plots.BLUE, "o"),
    "imprinting_aug": (plots.SKY, "s"),
    "nearest": (plots.GREEN, "D"),
    "rand_ft": (plots.RED, "v"),
    "imprinting_ft": (plots.ORANGE, "^"),
    "joint": (plots.BLACK, "P"),
    "joint_cosine": (plots.PURPLE, "X"),
}
_ROW_MARKS = {row: Mark(label(row), *look) for row, look in _LOOKS.items()}
# Losses of an embedding under their names in titles.
_LOSSES = {"lifted": "lifted structured", "nca": "NCA", "proxy_nca": "Proxy-NCA"}
_SHOTS = "n: images per novel class"
# Images in a row of the gallery.
_COLUMNS = 10
# Means with intervals by number, by row, by the names of a row and a column of axes.
_Panels = Mapping[tuple[str, str], Mapping[str, Mapping[int, Any]]]


def draw(workdir: Path, result: Result) -> plots.Drawn:
    """Return every figure that the networks of a study allow, by name."""
    return {
        "rows": by_shots(result),
        "nearest": averages(result),
        "dimensions": dimensions(result) if result["config"]["dims"] else None,
        "epochs": epochs(result),
        "transfer_epochs": epochs(result, ALONE),
        "gallery": gallery(workdir, result),
    }


def by_shots(result: Result) -> Figure | None:
    """Draw Tables 1 to 3 as accuracy against n, by row."""
    config = result["config"]
    own = select(result["rows"], dim=config["dim"])
    found = {
        ("", title): {
            row: means(own, row=prefix + row, metric=metric) for row in _ROW_MARKS
        }
        for prefix, metric, title in (
            ("", "novel", "novel classes, among all"),
            ("", "all", "all classes"),
            (ALONE, "novel", "novel classes alone"),
        )
    }
    title = "accuracy after adding novel classes"
    return _by_number(config, title, found, config["shots"], _SHOTS, sharey=False)


def averages(result: Result) -> Figure | None:
    """Draw Figure 6: means and nearest neighbours, by the loss of the embedding."""
    config = result["config"]
    seeds = tuple(config["side_seeds"] if config["losses"] else config["seeds"])
    how = {"metric": "novel", "dim": config["dim"], "seed": seeds}
    found = {
        ("", _LOSSES.get(loss, loss)): {
            row: means(result["rows"], row=f"{loss}_{kind}", **how)
            for row, kind in (("imprinting", "average"), ("nearest", "nearest"))
        }
        for loss in ("softmax", *config["losses"])
    }
    title = "novel classes alone, by the loss of the embedding"
    return _by_number(config, title, found, config["shots"], "n: images per class")


def dimensions(result: Result) -> Figure | None:
    """Draw Figure 7: accuracy against embedding dimensions, one column per n."""
    config, rows = result["config"], result["rows"]
    dims = sorted([config["dim"], *config["dims"]])
    own = select(rows, seed=tuple(config["side_seeds"]))
    found = {
        (f"{metric} classes,\n", f"n = {n}"): {
            row: {
                dim: means(own, metric=metric, row=row, dim=dim).get(n) for dim in dims
            }
            for row in ("imprinting", "joint")
        }
        for metric in ("novel", "all")
        for n in config["side_shots"] or config["shots"]
    }
    title = "dimensions of the embedding"
    return _by_number(config, title, found, dims, "dimensions", f"{_SHOTS}. ")


def epochs(result: Result, prefix: str = "") -> Figure | None:
    """Draw Figures 3, 4 and 8: accuracy by epoch, one panel per n and metric.

    Args:
        result: the content of result.json.
        prefix: `ALONE` for networks with novel classes alone, whose steps are counted.
    """
    runs = defaultdict(list)
    for m in result["members"]:
        mine = m["row"].startswith(prefix) and m["dim"] == result["config"]["dim"]
        if mine and m["name"] in result["curves"]:
            runs[m["n"], m["row"].removeprefix(prefix)] += [result["curves"][m["name"]]]
    found = {
        (f"{metric} classes,\n", f"n = {n}"): {
            row: means(
                [
                    {"n": line["step"] if prefix else epoch, "value": line[metric]}
                    for run in runs[n, row]
                    for epoch, line in enumerate(run, 1)
                ]
            )
            for row in _ROW_MARKS
            if (n, row) in runs
        }
        for metric in (("novel",) if prefix else ("novel", "all"))
        for n in sorted({n for n, row in runs if row in _ROW_MARKS})
    }
    title = "training on novel classes alone" if prefix else "training on all classes"
    how = ((), "step" if prefix else "epoch", f"{_SHOTS}. ")
    return _by_number(result["config"], title, found, *how) if found else None


def _by_number(
    config: Result,
    title: str,
    found: _Panels,
    numbers: Collection[int],
    unit: str,
    note: str = "",
    sharey: bool | str = "row",
) -> Figure | None:
    """Draw accuracies against numbers, in a panel each; open markers are one seed."""
    above, titles = ([*dict.fromkeys(names)] for names in zip(*found, strict=True))
    every = [at for rows in found.values() for at in rows.values()]
    counts = {mean["n"] for at in every for mean in at.values() if mean}
    seeds = ("one seed" if n == 1 else f"{n} seeds" for n in sorted(counts))
    note += plots.intervals(seeds) + " Open markers: one seed." * ({1} < counts)
    shape, height = (len(above), len(titles)), 1.5 * len(above) + 1.9
    figure, grid = plots.panels(config, shape, height, title, note, sharey=sharey)
    for axes, ((name, column), rows) in zip(grid.flat, found.items(), strict=True):
        for row, at in rows.items():
            known = {n: mean for n, mean in at.items() if mean}
            if known:
                several = any(mean["n"] > 1 for mean in known.values())
                plots.band(axes, known, _ROW_MARKS[row]._replace(filled=several))
        if numbers:
            axes.set(xscale="log")
            plots.ticks(axes, numbers)
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(title=column, xlabel=unit, ylabel=f"{name}test accuracy (%)")
        if sharey:
            axes.label_outer()
    plots.percent(grid.flat)
    plots.legend(figure, 4)
    return figure if counts else None


def gallery(workdir: Path, result: Result) -> Figure | None:
    """Draw Figure 5: exemplars by recall, and test images above predicted exemplars."""
    config, n = result["config"], min(result["config"]["shots"])
    measured = Imprinted(config["seeds"][0], MEASURE, n, config["dim"], "softmax")
    folder = member_folder(workdir, measured.name)
    if not (folder / GALLERY).exists():
        return None
    with np.load(folder / GALLERY) as file:
        shown = dict(file)
    classes = result["classes"][str(measured.seed)]
    base, novel = classes["base"], classes["novel"]
    short = plots.short_names(base + novel)
    # The exemplars of classes, each with its name and without a frame.
    known = {
        c: (image, short[novel[c]], {})
        for c, image in zip(shown["classes"].tolist(), shown["exemplars"], strict=True)
    }
    recalls = read_json(folder / "record.json")["record"]["recalls"]["imprinting"]
    recall = {c: recalls[len(base) + c] for c in known}
    text = "Images that classes were imprinted from, with the recall of the class"
    best = sorted(known, key=lambda c: -recall[c])
    first = [(known[c][0], f"{known[c][1]}\n{recall[c]:.0f}%", {}) for c in best]
    parts: list[tuple[str, list[Any]]] = [(text, first)]
    for chosen, word, colour, dashes in (
        (shown["right"], "Correct (solid green frames)", plots.GREEN, "-"),
        (~shown["right"], "Wrong (dashed red frames)", plots.RED, (0, (3, 1.5))),
    ):
        frame = {"color": colour, "linestyle": dashes, "linewidth": 2}
        rows = np.flatnonzero(chosen)[:_COLUMNS].tolist()
        # Results of earlier versions lack the true classes.
        true = {i: short[novel[shown["labels"][i]]] for i in rows if "labels" in shown}
        tests = [(shown["images"][i], true.get(i, ""), frame) for i in rows]
        parts.append((f"{word}: test images, above the predicted class", tests))
        given = shown["classes"][shown["predicted"][rows]].tolist()
        parts.append(("", [known[c] for c in given]))
    title = f"imprinting from {n} image{'s' * (n > 1)} per novel class"
    return _sheet(config, title, [part for part in parts if part[1]])


def _sheet(config: Result, title: str, parts: Sequence[tuple[str, list]]) -> Figure:
    """Return a figure of images with a text each, in parts with a heading each."""
    cell, y, placed = plots.WIDTH / _COLUMNS, 0.25, []
    for text, cells in parts:
        y += 0.25 * bool(text)
        words = [name.split("\n") for _, name, _ in cells]
        lines = [
            [*textwrap.wrap(name, 13, max_lines=2), *more] for name, *more in words
        ]
        height = 0.9 * cell + 0.1 * max(map(len, lines))
        placed.append((y, height, lines))
        y += height * -(-len(cells) // _COLUMNS)
    figure = Figure(figsize=(plots.WIDTH, y))
    plots.heading(figure, config, title, y=1 - 0.08 / y)
    for (text, cells), (top, height, lines) in zip(parts, placed, strict=True):
        figure.text(0.01, 1 - (top - 0.07) / y, text)
        for i, (image, _, frame) in enumerate(cells):
            row, column = divmod(i, _COLUMNS)
            at = ((column + 0.1) * cell, top + row * height, 0.8 * cell)
            axes = plots.show_image(figure, image, *at, **frame)
            axes.set_xlabel("\n".join(lines[i]), size=5.5, labelpad=2)
    return figure
