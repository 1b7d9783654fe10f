"""Draw Figures 2 and 3 and the first filters of Yosinski et al. 2014.

Needs matplotlib, the `plot` extra.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import plots
from experiments.inputs import Network
from experiments.layer_transfer.report import repetitions
from experiments.plots import Mark, Result, TidyRows
from jaxfer import models, stats
from jaxfer.claims import select
from jaxfer.study import member_folder
from jaxfer.trees import flatten

# Open markers are networks whose layers all train.
_KINDS = {
    "base": Mark("base: trained from scratch", plots.BLACK, "o", False, ""),
    "base+": Mark("base+: base, trained a second time", plots.GREY, "P", False, ""),
    "base3": Mark("base3: trained three times as long", plots.GREY, "X", False, ""),
    "BnB": Mark("BnB: its own layers, frozen", plots.BLUE, "s"),
    "BnB+": Mark("BnB+: its own layers, fine-tuned", plots.SKY, "s", False),
    "AnB": Mark("AnB: layers of the other half, frozen", plots.RED, "D"),
    "AnB+": Mark(
        "AnB+: layers of the other half, fine-tuned", plots.ORANGE, "D", False
    ),
    "random": Mark("untrained layers, frozen", plots.GREEN, "^"),
}
# Halves A and B of the rules that are no random split.
_HALVES = {
    "made": ("man-made classes", "natural classes"),
    "animals": ("animals and people", "plants, scenes and things"),
    "family": ("angular glyphs", "curved glyphs"),
}
# The treatment of each grid in Figure 3, the grid in words, and its own look.
_GRIDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "similar": ("AnB", "AnB, random halves", {}),
    "dissimilar": ("AnB", "AnB, dissimilar halves", {"marker": "h", "dashes": ":"}),
    "untrained": ("random", "untrained layers", {}),
}


def draw(workdir: Path, result: Result) -> plots.Drawn:
    """Return every figure that the networks of a study allow, by name."""
    rows, config = result["rows"], result["config"]
    similar = select(rows, grid="similar")
    distant = select(rows, grid=("dissimilar", "untrained"))
    return {
        "treatments": treatments(similar, config) if similar else None,
        "distance": distance(rows, config) if distant else None,
        "filters": filters(workdir, result),
    }


def treatments(rows: TidyRows, config: Result) -> Figure:
    """Draw Figure 2: every network above, means minus base with intervals below."""
    shown = select(rows, metric="accuracy")
    figure, grid = plots.panels(
        config,
        (2, 2),
        5.2,
        "random halves of the classes",
        "Above: every network; thin lines join the networks of one task.",
        f"Below: means over both halves. {plots.intervals([_repeated(shown)])}",
        sharey="row",
    )
    marks = _kinds({row["treatment"] for row in shown})
    for (above, below), source in zip(grid.T, "BA", strict=True):
        for name in [name for name in marks if name.startswith(("base", source))]:
            minus = select(rows, treatment=name, metric="minus_base")
            plots.band(below, _by_n(minus), marks[name])
            mark = marks[name]._replace(label="")
            _networks(above, select(shown, treatment=name), mark)
        below.axhline(0, color=plots.BLACK, lw=0.8)
        below.set(xlabel="n, number of copied layers (0: base networks)")
        plots.ticks(below, {row["n"] for row in shown})
    (own, other), (below, _) = grid
    own.set(title="first n layers of its own base network", ylabel="test accuracy (%)")
    other.set(title="first n layers of the other half's base network")
    below.set(ylabel="minus its base network\n(percentage points)")
    plots.percent((own, other))
    plots.legend(figure, 2)
    return figure


def distance(rows: TidyRows, config: Result) -> Figure:
    """Draw Figure 3: dissimilar halves, untrained layers, both with random halves.

    As in the paper, the last panel subtracts the accuracy of base networks.
    """
    found = {
        grid: select(rows, grid=grid, treatment=("base", kind))
        for grid, (kind, _, _) in _GRIDS.items()
        if select(rows, grid=grid)
    }
    repeated = {grid: _repeated(own) for grid, own in found.items()}
    apart = [grid for grid in found if grid != "similar"]
    figure, ((*left, right),) = plots.panels(
        config,
        (1, len(apart) + 1),
        3.4,
        "dissimilar halves of the classes, and untrained layers",
        "Accuracies: every network; thin lines join the networks of one task.",
        f"Differences: means over both halves. {plots.intervals(repeated.values())}",
    )
    for axes, grid in zip(left, apart, strict=True):
        kind, words, _ = _GRIDS[grid]
        shown = select(found[grid], metric="accuracy")
        for half, mark in _by_half(config[f"{grid}.by"], _KINDS[kind]).items():
            _networks(axes, select(shown, half=half), mark)
        _networks(axes, select(shown, treatment="base"), _KINDS["base"])
        what = "copied" if kind == "AnB" else "untrained"
        axes.set(title=words, xlabel=f"n, number of {what} layers")
        axes.set(ylabel="test accuracy (%)")
    for grid, own in found.items():
        kind, words, look = _GRIDS[grid]
        mark = _KINDS[kind]._replace(label=f"{words} ({repeated[grid]})", **look)
        plots.band(right, _by_n(select(own, metric="minus_base")), mark)
    right.axhline(0, color=plots.BLACK, lw=0.8)
    right.set(title="difference from base", xlabel="n", ylabel="percentage points")
    for axes in (*left, right):
        plots.ticks(axes, {row["n"] for row in rows})
    plots.percent(left)
    plots.legend(figure, 2)
    return figure


def _networks(axes: Any, rows: TidyRows, mark: Mark) -> None:
    """Plot accuracies by n, with a thin line per task that starts at its base."""
    look = mark.style() | {"linewidth": 0.6, "alpha": 0.85}
    for target in dict.fromkeys(row["target"] for row in rows):
        line = sorted((row["n"], row["value"]) for row in select(rows, target=target))
        where = slice(int(len(line) > 1 and line[0][0] == 0), None)
        xy = zip(*line, strict=True)
        axes.plot(*xy, **look, label=mark.label, markevery=where)


def _by_half(by: str, mark: Mark) -> dict[str, Mark]:
    """Return the marks of a treatment by half, for halves by some rule."""
    if by == "whole":
        return {"W": mark._replace(label="")}
    one, other = _HALVES.get(by, ("half A", "half B"))
    return {
        "A": mark._replace(label=f"target: {one}", marker="^", dashes="-"),
        "B": mark._replace(label=f"target: {other}", marker="v", dashes="--"),
    }


def _kinds(kinds: set[str]) -> dict[str, Mark]:
    """Return the marks of the treatments in Figure 2, those of the paper first."""
    marks = dict(_KINDS)
    for i, name in enumerate(sorted(kinds - {*marks})):
        marks[name] = Mark(name, plots.PURPLE, "v^<>"[i % 4], dashes=("-", "--")[i % 2])
    return {name: mark for name, mark in marks.items() if name in kinds}


def _repeated(rows: TidyRows) -> str:
    """Return how often networks were trained, such as "2 splits x 3 seeds"."""
    sizes = {name: len({row[name] for row in rows}) for name in ("split", "seed")}
    many = [f"{size} {name}s" for name, size in sizes.items() if size > 1]
    return " x ".join(many) or "one seed"


def filters(workdir: Path, result: Result) -> Figure | None:
    """Draw first-layer filters of a base network per half, and of an untrained one."""
    config, found = result["config"], {}
    named = {k.partition("net.")[2]: v for k, v in config.items() if k[:4] == "net."}
    net = Network(**named).build()
    for label, treatment, half in (
        ("base network, half A", "base", "A"),
        ("base network, half B", "base", "B"),
        ("untrained", "random", "W"),
    ):
        for row in select(result["rows"], treatment=treatment, half=half)[:1]:
            model = models.load_model(member_folder(workdir, row["member"]), net)
            first = flatten(model.params[model.net.layers[0]])
            if kernels := [x for x in first.values() if np.ndim(x) == 4]:
                found[label] = np.asarray(kernels[0])
    if not found:
        return None
    text = ("filters of the first layer", "Each filter is scaled to its own range.")
    figure, (grid,) = plots.panels(config, (1, len(found)), 2.7, *text)
    for axes, (name, kernel) in zip(grid, found.items(), strict=True):
        axes.imshow(_mosaic(kernel))
        axes.set(title=name)
        axes.set_axis_off()
    return figure


def _mosaic(kernel: np.ndarray) -> np.ndarray:
    """Tile filters `[h, w, channels, count]` with pale blue lines between them."""
    # Each weight is a square of 8 pixels, so that the lines are thin.
    kernel = kernel.repeat(8, axis=0).repeat(8, axis=1)
    h, w, channels, count = kernel.shape
    # Filters with other than 1 or 3 channels are shown by their mean over channels.
    shown = kernel if channels in (1, 3) else kernel.mean(axis=2, keepdims=True)
    low, high = shown.min((0, 1, 2)), shown.max((0, 1, 2))
    shown = (shown - low) / np.maximum(high - low, 1e-12)
    columns = int(np.ceil(np.sqrt(count)))
    lines, h, w = -(-count // columns), h + 4, w + 4
    tiles = np.full((lines * columns, h, w, 3), (0.8, 0.9, 1.0))
    tiles[:count, 2:-2, 2:-2] = np.moveaxis(shown, -1, 0)
    grid = tiles.reshape(lines, columns, h, w, 3).swapaxes(1, 2)
    return grid.reshape(lines * h, columns * w, 3)


def _by_n(rows: TidyRows) -> dict[int, dict[str, Any]]:
    """Return means with intervals over splits and seeds, by n."""
    return {
        n: stats.summarize([*repetitions(select(rows, n=n)).values()])._asdict()
        for n in sorted({row["n"] for row in rows})
    }
