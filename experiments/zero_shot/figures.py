"""Draw zero-shot accuracy beside few-shot curves.

Needs matplotlib, the `plot` extra.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import plots
from experiments.plots import Mark, Result
from experiments.zero_shot.train import FEW
from jaxfer import stats
from jaxfer.claims import select

_MARKS = {
    "zero_shot": Mark("attributes, no image", plots.RED, "D"),
    FEW: Mark("prototypes of images", plots.BLUE, "o"),
    "chance": Mark("chance", plots.GREY, "", dashes="--"),
}


def draw(workdir: Path, result: Result) -> plots.Drawn:
    """Return every figure of a study, by name."""
    del workdir
    return {"shots": beside_shots(result)}


def beside_shots(result: Result) -> Figure | None:
    """Draw accuracy against shots, one panel per noise level."""
    config, rows = result["config"], select(result["rows"], metric="accuracy")
    levels = [*dict.fromkeys(row["noise"] for row in rows)]
    if not levels:
        return None
    several = len({row["seed"] for row in rows})
    repeated = "one seed" if several == 1 else f"{several} seeds"
    figure, grid = plots.panels(
        config,
        (1, len(levels)),
        2.8,
        "classes from attributes, and from a few images",
        plots.intervals([repeated]),
        sharey="row",
    )
    shots = sorted({row["shot"] for row in rows})
    # Evenly spaced, since shots grow by factors.
    place = {shot: float(i) for i, shot in enumerate(shots)}
    for axes, level in zip(grid.flat, levels, strict=True):
        own = select(rows, noise=level)
        for method, mark in _MARKS.items():
            found = _means(select(own, method=method), place)
            if method == "chance":
                value = next(iter(found.values()))["mean"]
                axes.axhline(value, label=mark.label, color=mark.colour, ls="--", lw=1)
            elif found:
                plots.band(axes, found, mark)
        title = "" if level is None else f"noise {level:g}"
        axes.set(title=title, xlabel="shots")
        axes.set_xticks([*place.values()], [str(shot) for shot in shots])
        axes.minorticks_off()
    grid[0, 0].set_ylabel("accuracy (%)")
    axes = grid[0, 0]
    axes.set_ylim(0, min(100, 1.1 * max(row["value"] for row in rows)))
    plots.legend(figure, 3)
    return figure


def _means(rows: Any, place: dict[int, float]) -> dict[float, dict[str, Any]]:
    found = {}
    for shot in np.unique([row["shot"] for row in rows]):
        values = [row["value"] for row in select(rows, shot=int(shot))]
        found[place[int(shot)]] = stats.summarize(values)._asdict()
    return found
