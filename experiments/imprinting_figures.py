"""Figures 3 to 8 of Qi et al. 2018, of a study. Needs matplotlib, the `plot` extra."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.imprinting_members import Member
from experiments.imprinting_result import ALONE, ROWS, tables
from experiments.members import read_net
from jaxfer.runlog import read_json

_COLOURS = matplotlib.colormaps["tab10"].colors
_STYLES = {
    "rand_noft": (_COLOURS[7], "x"),
    "imprinting": (_COLOURS[0], "o"),
    "imprinting_aug": (_COLOURS[9], "s"),
    "nearest": (_COLOURS[2], "*"),
    "rand_ft": (_COLOURS[3], "v"),
    "imprinting_ft": (_COLOURS[1], "^"),
    "joint": ("black", "P"),
    "joint_cosine": (_COLOURS[4], "X"),
}
# Means with intervals by n, of a row and a metric.
Lines = dict[tuple[str, str], dict[int, Mapping[str, Any]]]


def draw(workdir: Path, result: Mapping[str, Any]) -> list[Path]:
    """Every figure that a study has the networks for, and its tables."""
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    lines: Lines = defaultdict(dict)
    for name, entry in result["metrics"].items():
        _, at, row, metric = name.split("/")
        lines[row, metric][int(at[1:])] = entry
    drawn = [folder / "tables.md"]
    drawn[0].write_text(tables(result) + "\n")
    drawn.append(by_shots(folder / "rows.png", lines, result))
    drawn.append(averages(folder / "nearest.png", lines, result))
    if result["config"]["dims"]:
        drawn.append(dimensions(folder / "dimensions.png", lines, result))
    for prefix, name in (("", "epochs.png"), (ALONE, "transfer_epochs.png")):
        curves = _curves(result, prefix)
        if curves:
            drawn.append(epochs(folder / name, curves, prefix))
    shown = _gallery(workdir, result)
    if shown is not None:
        drawn.append(gallery(folder / "gallery.png", *shown))
    return drawn


def by_shots(path: Path, lines: Lines, result: Mapping[str, Any]) -> Path:
    """Tables 1 to 3: accuracy against n, by row."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, (prefix, metric, title) in zip(
        figure.subplots(1, 3),
        (
            ("", "novel", "novel classes, of all"),
            ("", "all", "all classes"),
            (ALONE, "novel", "novel classes alone"),
        ),
        strict=True,
    ):
        for row, (colour, marker) in _STYLES.items():
            if (at := lines.get((prefix + row, metric))) is not None:
                _line(axes, at, ROWS[row], color=colour, marker=marker)
        axes.set(
            xscale="log",
            xlabel="n, examples a novel class",
            ylabel="test accuracy (%)",
            title=title,
        )
        _count(axes, result["config"]["shots"])
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def averages(path: Path, lines: Lines, result: Mapping[str, Any]) -> Path:
    """Figure 6: means against nearest neighbours, by the loss of the embedding."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    config = result["config"]
    # The softmax loss of the seeds that the others have.
    beside = f"_d{config['dim']}" if config["losses"] else ""
    losses = ["softmax", *config["losses"]]
    for colour, loss in zip(_COLOURS, losses, strict=False):
        for kind, dashes in (("average", "-"), ("nearest", ":")):
            name = f"{loss}_{kind}" + beside * (loss == "softmax")
            at, label = lines[name, "novel"], f"{loss}, {kind}"
            _line(axes, at, label, color=colour, marker="o", ls=dashes)
    axes.set(
        xscale="log",
        xlabel="n, examples a novel class",
        ylabel="accuracy among novel classes (%)",
    )
    _count(axes, config["shots"])
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def dimensions(path: Path, lines: Lines, result: Mapping[str, Any]) -> Path:
    """Figure 7: accuracy against the dimension of the embedding, a colour an n."""
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    config = result["config"]
    dims = sorted([config["dim"], *config["dims"]])
    panels = figure.subplots(1, 2, sharex=True)
    for axes, metric in zip(panels, ("novel", "all"), strict=True):
        for (row, dashes), (colour, n) in itertools.product(
            (("imprinting", "-"), ("joint", ":")),
            zip(_COLOURS, config["shots"], strict=False),
        ):
            at = {d: lines.get((f"{row}_d{d}", metric), {}) for d in dims}
            means = {d: by_n[n]["mean"] for d, by_n in at.items() if n in by_n}
            if len(means) > 1:
                label, xs, ys = f"{ROWS[row]}, n = {n}", [*means], [*means.values()]
                axes.plot(xs, ys, dashes, color=colour, marker="o", label=label)
        axes.set(
            xscale="log",
            xlabel="dimensions of the embedding",
            ylabel="test accuracy (%)",
            title=f"{metric} classes",
        )
        _count(axes, dims)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=120)
    return path


def epochs(
    path: Path, curves: Mapping[tuple[int, str], Sequence[Sequence[Any]]], prefix: str
) -> Path:
    """Figures 3, 4 and 8: accuracy after every epoch, a panel an n and a metric."""
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
                colour, marker = _STYLES[row]
                values = np.array([[line[metric] for line in run] for run in runs])
                number = [line["step"] for line in runs[0]]
                if not prefix:
                    number = np.arange(1, len(number) + 1)
                mean, name = values.mean(axis=0), ROWS[row]
                panel.plot(number, mean, color=colour, marker=marker, ms=4, label=name)
                panel.fill_between(
                    number, values.min(0), values.max(0), color=colour, alpha=0.15
                )
            panel.set(title=f"{metric} classes, n = {n}")
            panel.xaxis.get_major_locator().set_params(integer=True)
            if metric == metrics[-1]:
                panel.set(xlabel="step" if prefix else "epoch")
        axes[0].set(ylabel="test accuracy (%)")
    grid[0, -1].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def gallery(
    path: Path, shown: Mapping[str, np.ndarray], recall: Sequence[float]
) -> Path:
    """Figure 5: exemplars by recall; test images, each above the one it was given to.

    Right ones are framed in green, wrong ones in red.

    Args:
        path: of the picture.
        shown: see `Study`.
        recall: of each exemplar's class.
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
    for place, number in enumerate(order):
        axes = grid[divmod(place, columns)]
        _image(axes, exemplars[number])
        axes.set_title(f"{recall[number]:.0f}%", fontsize=7, pad=2)
    for row, chosen in enumerate((shown["right"], ~shown["right"])):
        for column, place in enumerate(np.flatnonzero(chosen)[:columns]):
            colour = "red" if row else "green"
            given = exemplars[shown["predicted"][place]]
            _image(grid[above + 2 * row, column], images[place], colour)
            _image(grid[above + 2 * row + 1, column], given)
    figure.suptitle(
        "exemplars of novel classes by recall; test images above the exemplar of the "
        "class they were given",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
    return path


def _image(axes: Any, image: np.ndarray, colour: str | None = None) -> None:
    axes.imshow(image.squeeze(), cmap=None if image.shape[-1] == 3 else "gray_r")
    if colour:
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for side in axes.spines.values():
            side.set(color=colour, linewidth=2.5)


def _line(
    axes: Any, at: Mapping[int, Mapping[str, Any]], label: str, **how: Any
) -> None:
    shots = sorted(at)
    means = [at[n]["mean"] for n in shots]
    half = [at[n]["ci95"] or 0 for n in shots]
    axes.errorbar(shots, means, half, label=label, capsize=2, ms=4, lw=1.2, **how)


def _count(axes: Any, numbers: Any) -> None:
    numbers = sorted(numbers)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()


def _curves(
    result: Mapping[str, Any], prefix: str
) -> dict[tuple[int, str], list[Sequence[Any]]]:
    """The epochs of every network, by n and row."""
    found = defaultdict(list)
    for m in result["members"]:
        row = m["row"].removeprefix(prefix)
        if (
            m["row"].startswith(prefix)
            and row in _STYLES
            and m["name"] in result["curves"]
        ):
            found[m["n"], row].append(result["curves"][m["name"]])
    return dict(found)


def _gallery(
    workdir: Path, result: Mapping[str, Any]
) -> tuple[Mapping[str, np.ndarray], list[float]] | None:
    config = result["config"]
    member = Member(config["seeds"][0], "base", 0, config["dim"], "softmax")
    path = workdir / "members" / f"{member.name}.npz"
    if not path.exists():
        return None
    record = read_json(path.with_suffix(".json"))
    recall = record["recalls"]["imprinting"][str(min(config["shots"]))]
    shown = read_net(path)["gallery"]
    return shown, [recall[result["base"] + c] for c in shown["classes"]]
