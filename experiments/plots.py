"""Helpers for figures. Needs matplotlib, the `plot` extra."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

TidyRows = Sequence[Mapping[str, Any]]
COLOURS: Any = matplotlib.colormaps["tab10"](range(10)).tolist()


def band(
    axes: Any,
    at: Mapping[Any, Mapping[str, Any]],
    label: str,
    **how: Any,
) -> None:
    """Plot means with their intervals against a number.

    Args:
        axes: the axes to draw on.
        at: entries with "mean" and "ci95", keyed by the number.
        label: label in the legend.
        how: style of the line.
    """
    numbers = sorted(at)
    means = [at[n]["mean"] for n in numbers]
    half = [at[n]["ci95"] or 0 for n in numbers]
    axes.errorbar(numbers, means, half, label=label, capsize=2, ms=4, lw=1.2, **how)


def ticks(axes: Any, numbers: Sequence[int]) -> None:
    """Set ticks at the given numbers only."""
    numbers = sorted(numbers)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()


def show_image(axes: Any, image: np.ndarray, colour: Any = None) -> None:
    """Show an image, with a frame if a colour is given."""
    axes.imshow(image.squeeze(), cmap=None if image.shape[-1] == 3 else "gray_r")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(visible=colour is not None, color=colour, linewidth=2.5)


def save(figure: Any, folder: Path, name: str) -> Path:
    """Write a figure as PNG, and return its path."""
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / name, dpi=120)
    return folder / name
