"""Draw Figures 2 and 3, Table 1 and the first filters of Yosinski et al. 2014.

Needs matplotlib, the `plot` extra.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.inputs import Network
from experiments.layer_transfer.report import repetitions
from experiments.plots import COLOURS, TidyRows, band, save, ticks
from jaxfer import models, stats
from jaxfer.claims import select
from jaxfer.study import member_folder

TREATMENT_STYLES = {
    "base": ("black", "o"),
    "base+": ("dimgray", "P"),
    "base3": ("silver", "X"),
    "BnB": (COLOURS[0], "v"),
    "BnB+": (COLOURS[9], "^"),
    "AnB": (COLOURS[3], "v"),
    "AnB+": (COLOURS[1], "^"),
    "random": (COLOURS[7], "s"),
}


def draw(workdir: Path, result: Mapping[str, Any]) -> list[Path]:
    """Draw every figure that the networks of a study allow."""
    folder, rows = workdir / "figures", result["rows"]
    folder.mkdir(exist_ok=True)
    grids = {row["grid"] for row in rows}
    drawn = []
    if "similar" in grids:
        drawn.append(treatments(folder, select(rows, grid="similar")))
    if grids & {"dissimilar", "untrained"}:
        drawn.append(distance(folder, rows))
    if kernels := _first_kernels(workdir, result):
        drawn.append(filters(folder, kernels))
    return drawn


def treatments(folder: Path, rows: TidyRows) -> Path:
    """Draw Figure 2: every network above, means minus base with intervals below."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    shown = select(rows, metric="accuracy")
    kinds = {row["treatment"] for row in shown} - {"random", "pixels"}
    others = sorted(kinds - {*TREATMENT_STYLES})
    styles = {
        **TREATMENT_STYLES,
        **{name: (COLOURS[i], "D") for i, name in enumerate(others, 4)},
    }
    for name, (colour, marker) in styles.items():
        if name not in kinds:
            continue
        own = select(shown, treatment=name)
        x, y = ([row[k] for row in own] for k in ("n", "value"))
        above.scatter(x, y, color=colour, marker=marker, s=22, alpha=0.7, label=name)
        if name != "base":
            minus = select(rows, treatment=name, metric="minus_base")
            band(below, _by_n(minus), name, color=colour, marker=marker)
    below.axhline(0, color="black", lw=0.8)
    above.set(ylabel="test accuracy (%)", title="every network, by treatment")
    below.set(
        xlabel="n, the layer at which the network is cut (0: the whole network)",
        ylabel="minus its own base network (percentage points)",
        title="means over splits and seeds with 95% intervals",
    )
    ticks(below, sorted({row["n"] for row in shown}))
    for axes in (above, below):
        axes.legend(ncols=7, fontsize=8)
    return save(figure, folder, "treatments.png")


def distance(folder: Path, rows: TidyRows) -> Path:
    """Draw Figure 3: dissimilar halves, untrained layers, both with similar halves."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _by_half(left, select(rows, grid="dissimilar"), "AnB")
    left.set(title="dissimilar halves, frozen (AnB)")
    _by_half(middle, select(rows, grid="untrained"), "random")
    middle.set(title="untrained layers, all classes")
    lines = (
        ("similar", "AnB", "similar halves"),
        ("dissimilar", "AnB", "dissimilar halves"),
        ("untrained", "random", "untrained layers"),
    )
    for colour, (grid, kind, label) in zip(COLOURS, lines, strict=False):
        own = select(rows, grid=grid, treatment=kind, metric="minus_base")
        if own:
            band(right, _by_n(own), label, color=colour, marker="o")
    right.axhline(0, color="black", lw=0.8)
    right.set(title="minus the base network", xlabel="n", ylabel="percentage points")
    right.legend(fontsize=8)
    return save(figure, folder, "distance.png")


def _by_half(axes: Any, rows: TidyRows, kind: str) -> None:
    shown = select(rows, metric="accuracy", treatment=("base", kind))
    halves = sorted({row["half"] for row in shown})
    for colour, half in zip(COLOURS, halves, strict=False):
        own = select(shown, half=half)
        x, y = ([row[k] for row in own] for k in ("n", "value"))
        axes.scatter(x, y, color=colour, s=20, label=f"target: half {half}")
        layers = sorted(set(x))
        means = [np.mean([r["value"] for r in select(own, n=n)]) for n in layers]
        axes.plot(layers, means, color=colour, lw=1)
    axes.set(xlabel="n (0: base network)", ylabel="test accuracy (%)")
    if len(halves) > 1:
        axes.legend(fontsize=8)


def filters(folder: Path, kernels: Mapping[str, np.ndarray]) -> Path:
    """Draw the filters of the first layer, scaled to their common range."""
    figure = Figure(figsize=(4 * len(kernels), 4.2), layout="constrained")
    axes = np.ravel(figure.subplots(1, len(kernels), squeeze=False))
    for ax, (name, kernel) in zip(axes, kernels.items(), strict=True):
        ax.imshow(_mosaic(kernel), cmap="gray")
        ax.set(title=name, xticks=[], yticks=[])
    return save(figure, folder, "filters.png")


def _mosaic(kernel: np.ndarray) -> np.ndarray:
    """Tile filters `[h, w, channels, count]` with white lines between them."""
    h, w, channels, count = kernel.shape
    # Filters with other than 1 or 3 channels are shown by their mean over channels.
    shown = kernel if channels in (1, 3) else kernel.mean(axis=2, keepdims=True)
    low, high = shown.min((0, 1, 2)), shown.max((0, 1, 2))
    shown = (shown - low) / np.maximum(high - low, 1e-12)
    columns = int(np.ceil(np.sqrt(count)))
    lines = -(-count // columns)
    canvas = np.ones((lines * (h + 1) - 1, columns * (w + 1) - 1, shown.shape[2]))
    for i in range(count):
        y, x = i // columns * (h + 1), i % columns * (w + 1)
        canvas[y : y + h, x : x + w] = shown[..., i]
    return canvas.squeeze()


def _first_kernels(workdir: Path, result: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the first kernels of a base network per half, and of an untrained one."""
    rows, found = result["rows"], {}
    options = {
        name.removeprefix("net."): value
        for name, value in result["config"].items()
        if name.startswith("net.")
    }
    net = Network(**options).build()
    for label, treatment, half in (
        ("base A", "base", "A"),
        ("base B", "base", "B"),
        ("untrained", "random", "W"),
    ):
        for row in select(rows, treatment=treatment, half=half, metric="accuracy")[:1]:
            model = models.load_model(member_folder(workdir, row["member"]), net)
            first = model.params[model.net.layers[0]]
            kernels = [x for x in _leaves(first) if np.ndim(x) == 4]
            if kernels:
                found[label] = np.asarray(kernels[0])
    return found


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    return [tree]


def _by_n(rows: TidyRows) -> dict[int, dict[str, Any]]:
    """Return means with intervals over splits and seeds, by n."""
    return {
        n: stats.summarize([*repetitions(select(rows, n=n)).values()])._asdict()
        for n in sorted({row["n"] for row in rows})
    }
