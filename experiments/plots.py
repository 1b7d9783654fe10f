"""The style of all figures, and the parts they share. Needs matplotlib, as `plot`."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

TidyRows = Sequence[Mapping[str, Any]]
# The content of a result.json, or its config.
Result = Mapping[str, Any]
# Figures by the name of their file; None if there is nothing to draw.
Drawn = dict[str, Figure | None]

# Most means with a bar each; more have a band.
_BARS = 8
# Inches, the width of a page of text.
WIDTH = 6.5
# The palette of Okabe and Ito, which colour-blind readers can tell apart: all but its
# yellow, which is too pale for lines, and grey.
BLACK, GREY, BLUE, SKY = "#000000", "#888888", "#0072B2", "#56B4E9"
GREEN, RED, ORANGE, PURPLE = "#009E73", "#D55E00", "#E69F00", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)
_STYLE = Path(__file__).with_name("paper.mplstyle")
# Data sets as papers call them, and the side of their images in pixels.
_DATA = {
    "caltech_birds2011": ("CUB-200-2011", 256),
    "cifar100": ("CIFAR-100", 32),
    "cifar_fs": ("CIFAR-FS", 32),
    "fc100": ("FC100", 32),
    "glyphs": ("Simulated glyphs", 28),
    "i_naturalist2017": ("iNaturalist 2017", 256),
    "miniimagenet": ("miniImageNet", 84),
    "omniglot": ("Omniglot", 28),
}


class Mark(NamedTuple):
    """How one treatment or row looks in every figure of an experiment."""

    label: str
    colour: str
    marker: str = "o"
    filled: bool = True
    dashes: str = "-"

    def style(self) -> dict[str, Any]:
        """Return the style of a line whose markers are not cut at the axes."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": self.colour if self.filled else "white",
            "linestyle": self.dashes,
            "clip_on": False,
            "in_layout": False,
        }


def style() -> AbstractContextManager[None]:
    """Return a context in which figures are drawn and written in the shared style."""
    return matplotlib.rc_context(fname=_STYLE)


def subject(config: Result) -> str:
    """Return data set, image size and network of a result's config.

    Example:
        >>> subject({"data.name": "omniglot", "net.name": "Conv4"})
        'Omniglot, 28x28 pixels, Conv4'
    """
    name, side = _DATA.get(config["data.name"], (config["data.name"], None))
    if config.get("simulated.noise"):
        name = "Simulated features"
    if name == "folder" and config.get("data.dir"):
        name = Path(config["data.dir"]).resolve().name
    window = config.get("augment.side") or config.get("crop.side")
    side = window or config.get("data.side") or side
    pixels = [f"{side}x{side} pixels"] * bool(side)
    # Flatten is no network, and pretrained weights are not of the named one.
    net = config["net.name"].rpartition(":")[2]
    shown = [net] * (net != "Flatten" and not config.get("net.pretrained"))
    return ", ".join([name, *pixels, *shown])


def panels(
    config: Result, shape: tuple[int, int], height: float, *lines: str, **share: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes, with the data and network in the title.

    Args:
        config: the config of the result.
        shape: rows and columns of axes; they share x.
        height: height of the figure in inches.
        lines: what the figure shows, and further lines of the title.
        share: which axes share y, such as sharey = "row"; default: none.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    heading(figure, config, *lines)
    return figure, figure.subplots(*shape, squeeze=False, sharex=True, **share)


def heading(figure: Figure, config: Result, *lines: str, **place: float) -> None:
    """Write the title at the top left; each line is wrapped to the width."""
    width, (first, *others) = int(15.5 * figure.get_figwidth()), lines
    text = [f"{subject(config)}: {first}", *filter(None, others)]
    wrapped = "\n".join(textwrap.fill(line, width) for line in text)
    figure.suptitle(wrapped, x=0.01, ha="left", linespacing=1.35, **place)


def band(axes: Any, at: Mapping[Any, Mapping[str, Any]], mark: Mark) -> None:
    """Plot means with their intervals against a number.

    Intervals are bars, or a band if there are many means. Means determine the limits of
    the axes, intervals do not: a bar that is longer is cut, and has no cap.

    Args:
        axes: the axes to draw on.
        at: entries with "mean" and "ci95", keyed by the number.
        mark: label, colour and markers.
    """
    x, every = np.array(sorted(at)), -(-len(at) // _BARS)
    mean, half = (
        np.array([at[n][name] for n in x.tolist()], float) for name in ("mean", "ci95")
    )
    axes.plot(x, mean, label=mark.label, markevery=every, **mark.style())
    # [low or high, number, x and y], of means that have an interval.
    ends = np.array([(x, mean - half), (x, mean + half)])[..., ~np.isnan(half)]
    ends, caps = ends.transpose(0, 2, 1), ends.transpose(1, 0, 2)
    if every > 1:
        area = np.concatenate([ends[0], ends[1, ::-1]])
        shape = PolyCollection([area], color=mark.colour, alpha=0.15, linewidth=0)
    else:
        shape = LineCollection([*ends.swapaxes(0, 1)], color=mark.colour, zorder=1.9)
        shape.set(linestyle=mark.dashes, linewidth=0.7, alpha=0.7)
        how = {"ls": "", "marker": "_", "ms": 4, "color": mark.colour}
        axes.add_artist(Line2D(*caps.reshape(2, -1), **how))
    axes.add_collection(shape, autolim=False)


def intervals(repeated: Iterable[str]) -> str:
    """Return what the intervals in a figure are.

    Args:
        repeated: what is averaged, such as "3 seeds"; "one seed" has no interval.

    Example:
        >>> intervals(["2 splits", "one seed", "3 seeds"])
        '95% intervals over 2 splits or 3 seeds, cut at the panel.'
        >>> intervals(["one seed"])
        'One seed, no intervals.'
    """
    many = [over for over in dict.fromkeys(repeated) if over != "one seed"]
    if not many:
        return "One seed, no intervals."
    return f"95% intervals over {' or '.join(many)}, cut at the panel."


def percent(every: Iterable[Any]) -> None:
    """Keep the limits of axes of accuracies from 0 to 100%, once all is drawn."""
    for axes in every:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 100))


def ticks(axes: Any, numbers: Iterable[int]) -> None:
    """Set ticks at the given numbers only."""
    numbers = sorted(numbers)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()


def legend(figure: Figure, columns: int) -> None:
    """Add one legend for all axes of a figure, below them."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend([*found.values()], [*found], loc="outside lower left", ncols=columns)


def show_image(
    figure: Figure, image: np.ndarray, x: float, y: float, side: float, **frame: Any
) -> Any:
    """Show an image on axes of its own, and return them.

    Args:
        figure: the figure to draw on.
        image: `[height, width, channels]`.
        x: inches from the left of the figure to the left of the image.
        y: inches from the top of the figure to the top of the image.
        side: inches, the side of the square that holds the image.
        frame: style of the frame; without a style there is none.
    """
    width, height = figure.get_size_inches()
    box = (x / width, 1 - (y + side) / height, side / width, side / height)
    axes = figure.add_axes(box, xticks=[], yticks=[])
    axes.imshow(image.squeeze(), cmap=None if image.shape[-1] == 3 else "gray_r")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=bool(frame), capstyle="butt", **frame)
    return axes


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return names for labels: the last part of each path, if these differ.

    Example:
        >>> short_names(["fish/ray", "large_carnivores/brown_bear"])
        {'fish/ray': 'ray', 'large_carnivores/brown_bear': 'brown bear'}
        >>> [*short_names(["latin/01", "greek/01"]).values()]
        ['latin 01', 'greek 01']
    """
    names = [*names]
    last = {name: name.rpartition("/")[2] for name in names}
    shown = last if len({*last.values()}) == len({*names}) else {n: n for n in names}
    # Lines break at spaces.
    return {n: x.replace("_", " ").replace("/", " ") for n, x in shown.items()}


def write(folder: Path, drawn: Drawn) -> list[Path]:
    """Write each figure as SVG and PNG, and return the paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths += [folder / f"{name}.svg", folder / f"{name}.png"]
            figure.savefig(paths[-2], metadata={"Date": None})
            figure.savefig(paths[-1])
    return paths
