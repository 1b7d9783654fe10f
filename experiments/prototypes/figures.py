"""Figures of a run of prototypical networks. Needs matplotlib, the `plot` extra."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jax import Array
from matplotlib.figure import Figure

from experiments.plots import COLOURS, show_image
from experiments.prototypes.config import Config
from jaxfer.data import Images, Resident
from jaxfer.data.feed import one_episode
from jaxfer.runlog import read_metrics
from jaxfer.types import Episode, Params


def draw(
    config: Config,
    workdir: Path,
    names: Sequence[str],
    images: Resident | Images,
    embedded: Resident,
    classify: Callable[[Params, Episode], Array],
) -> None:
    """Draw the learning curve, one test episode, and the embeddings of its classes.

    Args:
        config: the config of the run.
        workdir: the folder of the run.
        names: names of the test classes.
        images: images of the test classes.
        embedded: embeddings of these images.
        classify: returns the logits of an embedded episode.
    """
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    learning_curve(folder / "learning_curve.png", read_metrics(workdir))
    test = config.test
    shape = dict(way=min(test.ways), shot=min(test.shots), n_query=test.query)
    seen = one_episode(images, config.seed, config.data.test, 0, **shape)
    known = one_episode(embedded, config.seed, config.data.test, 0, **shape)
    predicted = np.asarray(classify({}, known).argmax(-1))
    shown = [str(names[c]) for c in known.classes.tolist()]
    episode(folder / "episode.png", seen, predicted, shown)
    embeddings(folder / "embeddings.png", known, shown)


def learning_curve(path: Path, lines: Sequence[Mapping[str, float]]) -> None:
    """Plot loss and accuracy of every phase against steps, from metrics.jsonl."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, name, scale in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True
    ):
        for colour, phase in zip(COLOURS, ("train", "val", "retrain"), strict=False):
            points = [
                (line["step"], scale * line[f"{phase}/{name}"])
                for line in lines
                if f"{phase}/{name}" in line
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=phase)
        axes.legend()
    loss, accuracy = figure.axes
    loss.set(xlabel="step", ylabel="loss (nats)", yscale="log")
    accuracy.set(xlabel="step", ylabel="accuracy (%)")
    figure.suptitle("episodes")
    figure.savefig(path, dpi=120)


def episode(
    path: Path, images: Episode, predicted: np.ndarray, names: Sequence[str]
) -> None:
    """Show an episode: support on the left, queries framed by predicted class.

    Args:
        path: path of the PNG.
        images: support and query as floats from 0 to 1.
        predicted: `[way, n_query]`, the predicted class of each query.
        names: names of the classes, one per row.
    """
    support, query = np.asarray(images.support), np.asarray(images.query)
    way, shot = support.shape[:2]
    shown = min(query.shape[1], 10)
    columns = shot + shown
    figure = Figure(figsize=(0.7 * columns + 2.4, 0.72 * way + 0.6))
    axes = figure.subplots(way, columns, squeeze=False)
    figure.subplots_adjust(0.2, 0.02, 0.99, 0.93, wspace=0.12, hspace=0.12)
    for row in range(way):
        for column in range(columns):
            ax = axes[row, column]
            is_support = column < shot
            image = support[row, column] if is_support else query[row, column - shot]
            given = row if is_support else int(predicted[row, column - shot])
            show_image(ax, image, COLOURS[given % 10])
            if not is_support and given != row:
                ax.plot([0, 1], [0, 1], transform=ax.transAxes, color="red", lw=1)
        axes[row, 0].set_ylabel(
            names[row], rotation=0, ha="right", va="center", fontsize=7
        )
    axes[0, 0].set_title("support", fontsize=8)
    right = int((predicted == np.arange(way)[:, None]).sum())
    axes[0, shot].set_title(
        f"queries, framed in the colour of the predicted class: {right} of "
        f"{predicted.size} right",
        fontsize=8,
        loc="left",
    )
    figure.savefig(path, dpi=120)


def embeddings(path: Path, embedded: Episode, names: Sequence[str]) -> None:
    """Plot the embeddings and prototypes of an episode on two principal axes.

    Args:
        path: path of the PNG.
        embedded: support and query embeddings.
        names: names of the classes.
    """
    support, query = (
        np.asarray(z, np.float32) for z in (embedded.support, embedded.query)
    )
    way, _, dim = query.shape
    points = query.reshape(-1, dim)
    centre = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - centre, full_matrices=False)
    share = float((spread[:2] ** 2).sum() / (spread**2).sum())
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    ax = figure.subplots()
    for row in range(way):
        colour = COLOURS[row % 10]
        flat = (query[row] - centre) @ axes[:2].T
        prototype = (support[row].mean(axis=0) - centre) @ axes[:2].T
        ax.scatter(*flat.T, s=16, color=colour, alpha=0.7)
        ax.scatter(
            *prototype, s=160, marker="*", color=colour, edgecolor="black", zorder=3
        )
        ax.scatter([], [], s=16, color=colour, label=names[row])
    ax.scatter([], [], s=120, marker="*", color="white", ec="black", label="prototype")
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(
        xlabel="first principal axis",
        ylabel="second principal axis",
        title=f"queries of one episode ({share:.0%} of the variance shown)",
    )
    figure.savefig(path, dpi=120)
