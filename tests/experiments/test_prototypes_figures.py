"""What is on the figures of prototypical networks, for made-up episodes."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex

from experiments.prototypes import config as prototypes_config
from experiments.prototypes import figures as prototypes
from experiments.prototypes.config import Evaluation, Task
from jaxfer.config import to_json
from tests.experiments.drawn import PALETTE, assert_readable, labels_of, title_of

pytestmark = pytest.mark.usefixtures("in_style")


def _example(way=5, shot=2, n_query=15, channels=1):
    """An episode of made-up images, in which the first queries are wrong."""
    rng = np.random.default_rng(0)
    size = (28, 28, channels)
    predicted = np.tile(np.arange(way)[:, None], (1, n_query))
    predicted[0, 0], predicted[3, 2] = 3, 1
    z = 5 * rng.normal(size=(way, 1, 8))
    return {
        "classes": np.arange(way),
        "support": rng.integers(0, 256, (way, shot, *size), dtype=np.uint8),
        "query": rng.integers(0, 256, (way, n_query, *size), dtype=np.uint8),
        "support_z": z + rng.normal(size=(way, shot, 8)),
        "query_z": z + rng.normal(size=(way, n_query, 8)),
        "predicted": predicted,
    }


PROTOTYPES = to_json(
    prototypes_config.Config(
        data=prototypes_config.Data("glyphs"),
        task=Task(way=20),
        test=Evaluation(ways=(5,), shots=(2,)),
        episodes_per_step=2,
    )
)
NAMES = [f"curved09 character{i:02d}" for i in range(5)]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_episode_shows_every_query_that_it_counts(channels, monkeypatch):
    figure = prototypes.episode(_example(channels=channels), NAMES, PROTOTYPES)
    assert_readable(figure, monkeypatch)
    assert len(figure.axes) == 5 * (2 + 15)
    assert "a 5-way 2-shot episode, 73 of 75 correct" in title_of(figure)
    wrong = [axes for axes in figure.axes if axes.texts]
    assert [axes.texts[0].get_text() for axes in wrong] == ["4", "2"]
    dashed = [a for a in figure.axes if a.spines["left"].get_linestyle() != "solid"]
    assert dashed == wrong
    # The colour is that of the predicted class, as on its support images.
    colours = [to_hex(a.spines["left"].get_edgecolor()) for a in figure.axes]
    assert colours[2] == colours[3 * 17] and len({*colours}) == 5
    assert {*colours} <= PALETTE
    assert "1 curved09\ncharacter00" in [text.get_text() for text in figure.texts]


def test_embeddings_have_equal_axes_and_marked_errors(monkeypatch):
    figure = prototypes.embeddings(_example(), NAMES, PROTOTYPES)
    assert_readable(figure, monkeypatch)
    (axes,) = figure.axes
    assert axes.get_aspect() == 1
    looks = {
        (x.get_color(), x.get_marker())
        for x in axes.lines
        if x.get_label() in {f"{i + 1} {name}" for i, name in enumerate(NAMES)}
    }
    assert len({c for c, _ in looks}) == len({m for _, m in looks}) == 5
    assert labels_of(figure)[-2:] == ["prototype", "classified wrongly (2 of 75)"]
    rings = [x for x in axes.lines if x.get_markersize() == 9]
    assert sum(len(x.get_xdata()) for x in rings) == 2


def test_a_learning_curve_says_what_a_point_averages(monkeypatch):
    log = []
    for step in range(50, 50 * 90 + 1, 50):
        log.append({"step": step, "train/loss": 5.0 / step, "train/accuracy": 0.5})
        log[-1]["train/accuracy"] += step / 10**4
    log.append({"step": 100, "val/loss": 0.4, "val/accuracy": 0.75})
    figure = prototypes.learning_curve(log, PROTOTYPES)
    assert_readable(figure, monkeypatch)
    loss, accuracy = figure.axes
    assert loss.get_xlabel() == accuracy.get_xlabel() == "training episodes"
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nats)", "accuracy (%)")
    assert loss.get_yscale() == "log" and accuracy.get_ylim()[1] <= 100
    # 90 lines of 50 steps of 2 episodes each: 30 points of 3 lines each.
    assert labels_of(figure) == [
        "training, 20-way 1-shot: mean of 300 episodes per point",
        "validation, 5-way 1-shot: mean of 100 episodes per point",
    ]
    (smooth,) = [x for x in accuracy.lines if x.get_label() == labels_of(figure)[0]]
    assert [*smooth.get_xdata()[:2]] == [300, 600]
    np.testing.assert_allclose(smooth.get_ydata()[:2], [51.0, 52.5])
    assert "Pale lines" in title_of(figure)
    (short,) = prototypes.learning_curve(log[:3], PROTOTYPES).axes[0].lines
    assert len(short.get_xdata()) == 3


def test_figures_of_a_run_without_an_example_are_its_learning_curve(tmp_path):
    line = {"step": 1, "train/loss": 1.0, "train/accuracy": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    result = {"config": PROTOTYPES, "classes": {"test": [*"abcdefgh"]}}
    assert {*prototypes.draw(tmp_path, result)} == {"learning_curve"}
    np.savez(tmp_path / "example.npz", **_example())
    assert {*prototypes.draw(tmp_path, result)} == {
        *("learning_curve", "episode", "embeddings")
    }
