"""Figures 2 and 3, Table 1 and the first filters of Yosinski et al. 2014, of a study.

Needs matplotlib, the `plot` extra.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.members import read_net
from jaxfer import stats

_COLOURS = matplotlib.colormaps["tab10"].colors
_STYLES = {
    "base": ("black", "o"),
    "base+": ("dimgray", "P"),
    "base3": ("silver", "X"),
    "BnB": (_COLOURS[0], "v"),
    "BnB+": (_COLOURS[9], "^"),
    "AnB": (_COLOURS[3], "v"),
    "AnB+": (_COLOURS[1], "^"),
    "random": (_COLOURS[7], "s"),
}
Values = dict[str, dict[int, dict[str, float]]]


def draw(workdir: Path, result: Mapping[str, Any]) -> list[Path]:
    """Every figure that a study has the networks for, and its table."""
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    grids = _grids(result)
    drawn = []
    if "similar" in grids:
        drawn.append(treatments(folder / "treatments.png", grids["similar"]))
        table = boosts(grids["similar"])
        if table:
            drawn.append(folder / "boosts.md")
            drawn[-1].write_text(table)
    if grids.keys() & {"dissimilar", "untrained"}:
        drawn.append(distance(folder / "distance.png", grids))
    nets = _first_nets(workdir, result)
    if nets:
        drawn.append(filters(folder / "filters.png", nets))
    return drawn


def treatments(path: Path, values: Values) -> Path:
    """Figure 2: every network above, means with intervals below, less the base."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    styles = {
        # What has no style of its own takes what colours are left.
        **{name: (_COLOURS[i % 10], "D") for i, name in enumerate(values, 2)},
        **_STYLES,
    }
    # The styles of the paper's treatments stand in its order, and before the others.
    names = [name for name in {**_STYLES, **styles} if name in values]
    names = [name for name in names if name not in ("random", "pixels")]
    for place, name in enumerate(names):
        colour, marker = styles[name]
        aside = 0.1 * (place - len(names) / 2)
        for n, by_target in values[name].items():
            above.scatter(
                [n + aside] * len(by_target),
                [*by_target.values()],
                color=colour,
                marker=marker,
                s=22,
                alpha=0.8,
                label=name if n == min(values[name]) else None,
            )
        if name != "base":
            _line(below, values[name], values["base"][0], aside, colour, marker, name)
    below.axhline(0, color="black", lw=0.8)
    layers = sorted({n for at in values.values() for n in at})
    above.set(ylabel="test accuracy (%)", title="every network, by treatment")
    below.set(
        xlabel="n, the layer at which the network is cut (0: the whole network)",
        ylabel="less its own base network (points)",
        xticks=layers,
        title="means over targets with 95% intervals",
    )
    above.legend(ncols=7, fontsize=8)
    below.legend(ncols=7, fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def _line(
    axes: Any,
    values: Mapping[int, Mapping[str, float]],
    base: Mapping[str, float],
    aside: float,
    colour: Any,
    marker: str,
    name: str,
) -> None:
    layers = sorted(values)
    differences = [
        stats.paired([*values[n].values()], [base[t] for t in values[n]])
        for n in layers
    ]
    axes.errorbar(
        [n + aside for n in layers],
        [d.mean for d in differences],
        yerr=[d.ci95 or 0 for d in differences],
        color=colour,
        marker=marker,
        ms=5,
        lw=1.2,
        capsize=2,
        label=name,
    )


def distance(path: Path, grids: Mapping[str, Values]) -> Path:
    """Figure 3: dissimilar halves, untrained layers, and all beside similar halves."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    if "dissimilar" in grids:
        _by_half(left, grids["dissimilar"], "AnB")
    left.set(title="dissimilar halves, frozen (AnB)")
    if "untrained" in grids:
        _by_half(middle, grids["untrained"], "random")
    middle.set(title="untrained layers, all classes")
    lines = [
        ("similar", "AnB", "similar halves"),
        ("dissimilar", "AnB", "dissimilar halves"),
        ("untrained", "random", "untrained layers"),
    ]
    for place, (grid, kind, label) in enumerate(lines):
        values = grids.get(grid, {})
        if kind not in values:
            continue
        layers, base = sorted(values[kind]), values["base"][0]
        shares = [
            stats.summarize([100 * x / base[t] for t, x in values[kind][n].items()])
            for n in layers
        ]
        right.errorbar(
            [0] + [n + 0.08 * (place - 1) for n in layers],
            [100] + [s.mean for s in shares],
            yerr=[0] + [s.ci95 or 0 for s in shares],
            color=_COLOURS[place],
            marker="o",
            ms=4,
            capsize=2,
            label=label,
        )
    right.axhline(100, color="black", lw=0.8)
    right.set(title="in percent of the base network", xlabel="n", ylabel="%")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def _by_half(axes: Any, values: Values, kind: str) -> None:
    halves = sorted({t.split("-")[1][-1] for t in values["base"][0]})
    for colour, half in zip(_COLOURS, halves, strict=False):
        for at, label in ((values["base"], None), (values.get(kind, {}), half)):
            points = [
                (n, x)
                for n, by_target in at.items()
                for target, x in by_target.items()
                if target.split("-")[1][-1] == half
            ]
            if points:
                name = None if label is None else f"target: half {half}"
                axes.scatter(*zip(*points, strict=True), color=colour, s=20, label=name)
        layers = sorted(values.get(kind, {}))
        means = [
            np.mean(
                [
                    x
                    for t, x in (
                        values["base"][0] if not n else values[kind][n]
                    ).items()
                    if t.split("-")[1][-1] == half
                ]
            )
            for n in [0, *layers]
        ]
        axes.plot([0, *layers], means, color=colour, lw=1)
    axes.set(xlabel="n (0: base network)", ylabel="test accuracy (%)")
    if len(halves) > 1:
        axes.legend(fontsize=8)


def boosts(values: Values) -> str:
    """Table 1: what fine-tuned transfer adds, averaged over spans of n, as Markdown.

    Paired by target, with the 95% interval over targets.
    """
    if "AnB+" not in values:
        return ""
    against = {
        "base": lambda n, t: values["base"][0][t],
        "base+": lambda n, t: values["base+"][0][t],
        "BnB+": lambda n, t: values["BnB+"][n][t],
    }
    against = {name: get for name, get in against.items() if name in values}
    lines = [
        "| n | " + " | ".join(f"AnB+ over {name}" for name in against) + " |",
        "| --- |" + " --- |" * len(against),
    ]
    layers = sorted(values["AnB+"])
    # The spans of the paper: all n, from 3 and from 5.
    for lowest in sorted({layers[0], *(n for n in (3, 5) if n in layers)}):
        span = [n for n in layers if n >= lowest]
        cells = []
        for get in against.values():
            differences = [
                np.mean([values["AnB+"][n][t] - get(n, t) for n in span])
                for t in values["base"][0]
            ]
            cells.append(str(stats.summarize(differences)))
        which = ", ".join(map(str, span))
        lines.append(f"| {which} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def filters(path: Path, nets: Mapping[str, Path]) -> Path:
    """The filters of the first layer, each scaled to its own range."""
    figure = Figure(figsize=(4 * len(nets), 4.2), layout="constrained")
    axes = np.ravel(figure.subplots(1, len(nets), squeeze=False))
    for ax, (name, file) in zip(axes, nets.items(), strict=True):
        ax.imshow(_mosaic(_first_kernel(read_net(file)["params"])), cmap="gray")
        ax.set(title=name, xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
    return path


def _first_kernel(params: Mapping[str, Any]) -> np.ndarray:
    first = params["conv1"]
    return np.asarray(first["Conv_0"]["kernel"])


def _mosaic(kernel: np.ndarray) -> np.ndarray:
    """Filters `[h, w, channels, count]` side by side, a white line between."""
    h, w, channels, count = kernel.shape
    # More channels than colours are shown by their mean.
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


def _grids(result: Mapping[str, Any]) -> dict[str, Values]:
    grids: dict[str, Values] = defaultdict(lambda: defaultdict(dict))
    for m in result["members"]:
        at = grids[m["grid"]][m["treatment"]].setdefault(m["n"], {})
        at[m["target"]] = m["accuracy"]
    return grids


def _first_nets(workdir: Path, result: Mapping[str, Any]) -> dict[str, Path]:
    """A base network of each half, and an untrained one."""
    found = {}
    wanted: Sequence[tuple[str, str, str]] = [
        ("base A", "base", "A"),
        ("base B", "base", "B"),
        ("untrained", "random", "W"),
    ]
    for label, kind, half in wanted:
        for m in result["members"]:
            path = workdir / "members" / f"{m['name']}.npz"
            right = m["treatment"] == kind and m["target"].split("-")[1][-1] == half
            if right and path.exists() and label not in found:
                found[label] = path
    return found
