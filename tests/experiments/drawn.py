"""What tests check on every figure: nothing cut off, covered or unreadable."""

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text

PALETTE = {
    *("#000000", "#888888", "#0072b2", "#56b4e9"),
    *("#009e73", "#d55e00", "#e69f00", "#cc79a7"),
}


def render(figure, monkeypatch):
    """Draw a figure, and return the boxes of its texts in pixels."""
    texts, real = [], Text.draw

    def draw(self, renderer):
        if self.get_visible() and self.get_text():
            texts.append(self)
        real(self, renderer)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        canvas.draw()
    return {text: text.get_window_extent() for text in texts}


def overlap(one, other):
    """Whether boxes overlap by more than a pixel each way."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > 1 and high > 1


def legends(figure):
    own = [axes.get_legend() for axes in figure.axes]
    return [*figure.legends, *(legend for legend in own if legend)]


def assert_readable(figure, monkeypatch):
    """Nothing is cut off, nothing overlaps, no legend covers data."""
    boxes = render(figure, monkeypatch)
    page = figure.bbox
    for text, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1
        inside = inside and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{text.get_text()!r} is cut off"
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not overlap(a, b), f"{one.get_text()!r} covers {other.get_text()!r}"
    for legend in legends(figure):
        box = legend.get_window_extent()
        for axes in figure.axes:
            assert not overlap(box, axes.bbox), "a legend covers data"
    for axes in figure.axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for line in axes.lines:
            is_cap = line.get_marker() == "_"
            if line.get_transform() == axes.transData and not is_cap:
                x, y = np.asarray(line.get_xydata(), float).T
                assert np.all((left <= x) & (x <= right)), axes.get_title()
                assert np.all((low <= y) & (y <= high)), axes.get_title()


def title_of(figure):
    return figure.get_suptitle()


def labels_of(figure):
    return [text.get_text() for legend in legends(figure) for text in legend.texts]


def marked(axes):
    """The lines of axes that stand for treatments, not for zero."""
    return [line for line in axes.lines if line.get_marker() not in ("None", "_")]


def bars_of(axes):
    return [c for c in axes.collections if isinstance(c, LineCollection)]
