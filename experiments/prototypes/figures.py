"""Figures of a run of prototypical networks. Needs matplotlib, the `plot` extra."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments import plots
from experiments.plots import Mark, Result
from experiments.prototypes.measure import EXAMPLE
from jaxfer.runlog import read_metrics

# Points of a smooth learning curve, at most.
_POINTS = 40


def draw(workdir: Path, result: Result) -> plots.Drawn:
    """Return the learning curve, one test episode and its embeddings, by name."""
    config = result["config"]
    drawn: plots.Drawn = {}
    # A base network alone has no episodes to show.
    if config["episodes"]:
        drawn["learning_curve"] = learning_curve(read_metrics(workdir), config)
    # Runs of earlier versions and runs without figures left no example.
    if (workdir / EXAMPLE).exists():
        with np.load(workdir / EXAMPLE) as file:
            shown = dict(file)
        classes = result["classes"][config["data.test"]]
        names = [plots.short_names(classes)[classes[c]] for c in shown["classes"]]
        drawn["episode"] = episode(shown, names, config)
        drawn["embeddings"] = embeddings(shown, names, config)
    return drawn


def learning_curve(lines: Sequence[Mapping[str, float]], config: Result) -> Figure:
    """Plot loss and accuracy of every phase against episodes, from metrics.jsonl."""
    note = "Pale lines: every value of the log." * (len(lines) > _POINTS)
    figure, (grid,) = plots.panels(config, (1, 2), 2.8, "learning curve", note)
    per_step = config["episodes_per_step"]
    train = ("task.way", config["run.log_every"] * per_step)
    for phase, name, colour, (way, each) in (
        ("train", "training", plots.BLUE, train),
        ("val", "validation", plots.ORANGE, ("val.way", config["val.episodes"])),
        ("retrain", "second training", plots.GREEN, train),
    ):
        columns = ("step", f"{phase}/loss", f"{phase}/accuracy")
        logged = [[x[c] for c in columns] for x in lines if columns[1] in x]
        if not logged:
            continue
        values = np.array(logged) * (per_step, 1, 100)
        # A value is the mean of `each` episodes, and a point that of `group` values.
        group = -(-len(values) // _POINTS)
        points = values[: len(values) // group * group].reshape(-1, group, 3)
        task = f"{name}, {config[way]}-way {config['task.shot']}-shot"
        label = f"{task}: mean of {group * each} episodes per point"
        for axes, y in zip(grid, (1, 2), strict=True):
            if note:
                axes.plot(*values[:, [0, y]].T, color=colour, alpha=0.25, lw=0.7)
            means = points[..., y].mean(axis=1)
            axes.plot(points[:, -1, 0], means, color=colour, label=label)
    loss, accuracy = grid
    loss.set(xlabel="training episodes", ylabel="loss (nats)", yscale="log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter("{x:g}")
    loss.minorticks_off()
    accuracy.set(xlabel="training episodes", ylabel="accuracy (%)")
    plots.percent([accuracy])
    plots.legend(figure, 1)
    return figure


def episode(
    shown: Mapping[str, np.ndarray], names: Sequence[str], config: Result
) -> Figure:
    """Show every image of an episode: support on the left, framed queries on the right.

    Args:
        shown: see `measure.example`.
        names: names of the classes, one per row.
        config: the config of the result.
    """
    support, query, predicted = shown["support"], shown["query"], shown["predicted"]
    way, shot = support.shape[:2]
    marks, right = _class_marks(names), predicted == np.arange(way)[:, None]
    # In inches; half an image is left free between support and queries.
    left, top, cell = 1.2, 0.62, 0.33
    width = left + cell * (shot + 0.5 + query.shape[1])
    height = top + way * 1.1 * cell
    figure = Figure(figsize=(width, height))
    title = f"a {way}-way {shot}-shot episode, {right.sum()} of {right.size} correct"
    note = "Frame colour: predicted class. Dashed frame and number: wrong prediction."
    plots.heading(figure, config, title, note, y=1 - 0.08 / height)
    for x, text in ((0, "support"), (shot + 0.5, "queries")):
        figure.text((left + x * cell) / width, 1 - (top - 0.05) / height, text)
    for row, mark in enumerate(marks):
        y = top + row * 1.1 * cell
        name = "\n".join(textwrap.wrap(mark.label, 17, max_lines=2))
        at = ((left - 0.08) / width, 1 - (y + cell / 2) / height)
        how = {"va": "center", "ha": "right", "color": mark.colour, "size": 7}
        figure.text(*at, name, **how)
        given = [row] * shot + predicted[row].tolist()
        images = [*support[row], *query[row]]
        for i, (image, c) in enumerate(zip(images, given, strict=True)):
            wrong, colour = c != row, marks[c].colour
            dashes = {"linestyle": (0, (3, 1.5)), "linewidth": 2} if wrong else {}
            x = left + cell * (i + 0.5 * (i >= shot))
            frame = {"color": colour, "linewidth": 1.2} | dashes
            axes = plots.show_image(figure, image, x, y, 0.88 * cell, **frame)
            if wrong:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
                how = {"ha": "right", "va": "top", "size": 6, "color": colour}
                where = {"transform": axes.transAxes, "weight": "bold", "bbox": box}
                axes.text(0.93, 0.93, str(c + 1), **how, **where)
    return figure


def embeddings(
    shown: Mapping[str, np.ndarray], names: Sequence[str], config: Result
) -> Figure:
    """Plot the embeddings and prototypes of an episode on two principal axes.

    Args:
        shown: see `measure.example`.
        names: names of the classes.
        config: the config of the result.
    """
    support, query = shown["support_z"], shown["query_z"]
    way, shot = support.shape[:2]
    points = query.reshape(-1, query.shape[-1])
    centre = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - centre, full_matrices=False)
    share = float((spread[:2] ** 2).sum() / (spread**2).sum())
    figure, ((ax,),) = plots.panels(
        config,
        (1, 1),
        max(4.2, 1 + 0.17 * way),
        f"embeddings of a {way}-way {shot}-shot episode",
        f"The two principal axes of the queries hold {share:.0%} of their variance.",
    )
    wrong = shown["predicted"] != np.arange(way)[:, None]
    for row, mark in enumerate(_class_marks(names)):
        flat = (query[row] - centre) @ axes[:2].T
        prototype = (support[row].mean(axis=0) - centre) @ axes[:2].T
        look = mark.style() | {"linestyle": ""}
        ax.plot(*flat.T, **look, alpha=0.8, label=mark.label)
        ring = {"marker": "o", "ms": 9, "mfc": "none", "mec": plots.BLACK, "ls": ""}
        ax.plot(*flat[wrong[row]].T, **ring, mew=0.8)
        look |= {"marker": "*", "markersize": 13, "markeredgecolor": plots.BLACK}
        ax.plot(*prototype, **look, zorder=3)
    star = {"marker": "*", "ms": 11, "mfc": "white", "mec": plots.BLACK, "ls": ""}
    ax.plot([], [], **star, label="prototype")
    ax.plot([], [], **ring, label=f"classified wrongly ({wrong.sum()} of {wrong.size})")
    ax.set(xlabel="first principal axis", ylabel="second principal axis")
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _class_marks(names: Sequence[str]) -> list[Mark]:
    """Return a mark per class, with its number and name."""
    return [
        Mark(f"{i + 1} {name}", plots.COLOURS[i % len(plots.COLOURS)], "osD^vP"[i % 6])
        for i, name in enumerate(names)
    ]
