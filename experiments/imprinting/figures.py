"""Draw Figures 3 to 8 of Qi et al. 2018. Needs matplotlib, the `plot` extra."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.imprinting.members import ALONE, MEASURE
from experiments.imprinting.report import label, means
from experiments.imprinting.train import GALLERY
from experiments.plots import COLOURS, TidyRows, band, save, show_image, ticks
from jaxfer.claims import select
from jaxfer.runlog import read_json
from jaxfer.study import member_folder

ROW_STYLES = {
    "rand_noft": (COLOURS[7], "x"),
    "imprinting": (COLOURS[0], "o"),
    "imprinting_aug": (COLOURS[9], "s"),
    "nearest": (COLOURS[2], "*"),
    "rand_ft": (COLOURS[3], "v"),
    "imprinting_ft": (COLOURS[1], "^"),
    "joint": ("black", "P"),
    "joint_cosine": (COLOURS[4], "X"),
}


def draw(workdir: Path, result: Mapping[str, Any]) -> list[Path]:
    """Draw every figure that the networks of a study allow."""
    folder, rows, config = workdir / "figures", result["rows"], result["config"]
    folder.mkdir(exist_ok=True)
    drawn = [by_shots(folder, rows, config)]
    drawn.append(averages(folder, rows, config))
    if config["dims"]:
        drawn.append(dimensions(folder, rows, config))
    for prefix, name in (("", "epochs.png"), (ALONE, "transfer_epochs.png")):
        if curves := _curves(result, prefix):
            drawn.append(epochs(folder, name, curves, prefix))
    if (shown := _gallery(workdir, result)) is not None:
        drawn.append(gallery(folder, *shown))
    return drawn


def by_shots(folder: Path, rows: TidyRows, config: Mapping[str, Any]) -> Path:
    """Draw Tables 1 to 3 as accuracy against n, by row."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = (
        ("", "novel", "novel classes, among all"),
        ("", "all", "all classes"),
        (ALONE, "novel", "novel classes alone"),
    )
    for axes, (prefix, metric, title) in zip(
        figure.subplots(1, 3), panels, strict=True
    ):
        for row, (colour, marker) in ROW_STYLES.items():
            at = means(rows, row=prefix + row, metric=metric, dim=config["dim"])
            if at:
                band(axes, at, label(row), color=colour, marker=marker)
        axes.set(
            xscale="log",
            xlabel="n, examples per novel class",
            ylabel="test accuracy (%)",
            title=title,
        )
        ticks(axes, config["shots"])
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.axes[0].legend(fontsize=8)
    return save(figure, folder, "rows.png")


def averages(folder: Path, rows: TidyRows, config: Mapping[str, Any]) -> Path:
    """Draw Figure 6: means and nearest neighbours, by the loss of the embedding."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    seeds = tuple(config["side_seeds"] if config["losses"] else config["seeds"])
    losses = ["softmax", *config["losses"]]
    for colour, loss in zip(COLOURS, losses, strict=False):
        for kind, dashes in (("average", "-"), ("nearest", ":")):
            row = f"{loss}_{kind}"
            at = means(rows, row=row, metric="novel", dim=config["dim"], seed=seeds)
            band(axes, at, f"{loss}, {kind}", color=colour, marker="o", ls=dashes)
    axes.set(
        xscale="log",
        xlabel="n, examples per novel class",
        ylabel="accuracy among novel classes (%)",
    )
    ticks(axes, config["shots"])
    axes.legend(fontsize=8)
    return save(figure, folder, "nearest.png")


def dimensions(folder: Path, rows: TidyRows, config: Mapping[str, Any]) -> Path:
    """Draw Figure 7: accuracy against embedding dimensions, one colour per n."""
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    dims, seeds = sorted([config["dim"], *config["dims"]]), tuple(config["side_seeds"])
    panels = figure.subplots(1, 2, sharex=True)
    for axes, metric in zip(panels, ("novel", "all"), strict=True):
        own = select(rows, metric=metric, seed=seeds)
        for (row, dashes), (colour, n) in itertools.product(
            (("imprinting", "-"), ("joint", ":")),
            zip(COLOURS, config["shots"], strict=False),
        ):
            at = {
                dim: np.mean([r["value"] for r in found])
                for dim in dims
                if (found := select(own, row=row, n=n, dim=dim))
            }
            if len(at) > 1:
                name = f"{label(row)}, n = {n}"
                axes.plot(
                    [*at], [*at.values()], dashes, color=colour, marker="o", label=name
                )
        axes.set(
            xscale="log",
            xlabel="dimensions of the embedding",
            ylabel="test accuracy (%)",
            title=f"{metric} classes",
        )
        ticks(axes, dims)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside right upper")
    return save(figure, folder, "dimensions.png")


def epochs(
    folder: Path,
    name: str,
    curves: Mapping[tuple[int, str], Sequence[Sequence[Any]]],
    prefix: str,
) -> Path:
    """Draw Figures 3, 4 and 8: accuracy by epoch, one panel per n and metric."""
    shots = sorted({n for n, _ in curves})
    metrics = ["novel"] if prefix else ["novel", "all"]
    figure = Figure(figsize=(3.2 * len(shots) + 1, 2.7 * len(metrics)))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(metrics), len(shots), squeeze=False, sharex=True)
    for axes, metric in zip(grid, metrics, strict=True):
        for panel, n in zip(axes, shots, strict=True):
            for (at, row), runs in curves.items():
                if at != n:
                    continue
                colour, marker = ROW_STYLES[row]
                values = np.array([[line[metric] for line in run] for run in runs])
                number = [line["step"] for line in runs[0]]
                if not prefix:
                    number = np.arange(1, len(number) + 1)
                mean, low, high = values.mean(0), values.min(0), values.max(0)
                how = {"color": colour, "marker": marker, "ms": 4}
                panel.plot(number, mean, label=label(row), **how)
                panel.fill_between(number, low, high, color=colour, alpha=0.15)
            panel.set(title=f"{metric} classes, n = {n}")
            panel.xaxis.get_major_locator().set_params(integer=True)
            if metric == metrics[-1]:
                panel.set(xlabel="step" if prefix else "epoch")
        axes[0].set(ylabel="test accuracy (%)")
    grid[0, -1].legend(fontsize=8)
    return save(figure, folder, name)


def gallery(
    folder: Path, shown: Mapping[str, np.ndarray], recall: Sequence[float]
) -> Path:
    """Draw Figure 5: exemplars by recall, and test images above predicted exemplars.

    Correctly predicted images are framed in green, the others in red.

    Args:
        folder: folder of the PNG.
        shown: see `measure.gallery_images`.
        recall: recall of each exemplar's class, in percent.
    """
    exemplars, images = shown["exemplars"], shown["images"]
    order = np.argsort(recall)[::-1]
    columns = max(len(images) // 2, 10)
    above = -(-len(order) // columns)
    figure = Figure(figsize=(0.8 * columns, 0.95 * (above + 4) + 0.8))
    grid = figure.subplots(above + 4, columns, squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.94, wspace=0.1, hspace=0.35)
    for axes in grid.flat:
        axes.set_axis_off()

    def show(place: tuple[int, int], image: np.ndarray, colour: Any = None) -> Any:
        axes = grid[place]
        axes.set_axis_on()
        show_image(axes, image, colour)
        return axes

    for place, number in enumerate(order):
        row, column = divmod(place, columns)
        axes = show((row, column), exemplars[number])
        axes.set_title(f"{recall[number]:.0f}%", fontsize=7, pad=2)
    for row, chosen in enumerate((shown["right"], ~shown["right"])):
        for column, place in enumerate(np.flatnonzero(chosen)[:columns]):
            given = exemplars[shown["predicted"][place]]
            colour = "red" if row else "green"
            show((above + 2 * row, column), images[place], colour)
            show((above + 2 * row + 1, column), given)
    figure.suptitle(
        "exemplars of novel classes by recall; test images above the exemplar of the "
        "predicted class",
        fontsize=9,
    )
    return save(figure, folder, "gallery.png")


def _curves(
    result: Mapping[str, Any], prefix: str
) -> dict[tuple[int, str], list[Sequence[Any]]]:
    """Return the epochs of every network of the study's dimension, by n and row."""
    found = defaultdict(list)
    for m in result["members"]:
        row = m["row"].removeprefix(prefix)
        mine = m["row"].startswith(prefix) and m["dim"] == result["config"]["dim"]
        if mine and row in ROW_STYLES and m["name"] in result["curves"]:
            found[m["n"], row].append(result["curves"][m["name"]])
    return dict(found)


def _gallery(
    workdir: Path, result: Mapping[str, Any]
) -> tuple[Mapping[str, np.ndarray], list[float]] | None:
    config = result["config"]
    for m in result["members"]:
        folder = member_folder(workdir, m["name"])
        first = m["row"] == MEASURE and m["n"] == min(config["shots"])
        if first and (folder / GALLERY).exists():
            record = read_json(folder / "record.json")["record"]
            recall = record["recalls"]["imprinting"]
            with np.load(folder / GALLERY) as file:
                shown = {name: file[name] for name in file.files}
            return shown, [recall[result["base"] + c] for c in shown["classes"]]
    return None
