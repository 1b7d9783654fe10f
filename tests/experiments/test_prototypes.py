"""The experiment end to end, small: a run, its files, its refusals, its resumption."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import prototypes
from experiments.prototypes_config import (
    Config,
    Data,
    Embedding,
    Evaluation,
    Optim,
    Task,
    Validation,
    published_accuracies,
)
from jaxfer import steps
from jaxfer.data import load, write_cache
from jaxfer.runlog import read_json, read_metrics, report

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("small_glyphs")
TINY = Config(
    data=Data(name="glyphs", train="train", test="val"),
    net=Embedding(width=8),
    task=Task(way=5, shot=2, query=3),
    test=Evaluation(ways=(2, 5), shots=(1,), query=3, episodes=6),
    episodes=6,
    devices=1,
    save_every=2,
    log_every=1,
)


def _with(config=TINY, **changes):
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_glyphs):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    published = published_accuracies("Table 0", {(5, 1): (10.0, 0.5)})
    # What the data set's name says, and the metric's, is 'test' for a published row.
    published[0]["name"] = published[0]["name"].replace("test/", "val/")
    return workdir, prototypes.run(TINY, workdir, published)


def test_a_run_leaves_what_it_promises(finished):
    workdir, result = finished
    assert result == read_json(workdir / "result.json")
    for key in (
        "experiment",
        "config",
        "metrics",
        "reference",
        "throughput",
        "devices",
        "versions",
        "dataset_fingerprint",
        "seed",
        "wall_s",
    ):
        assert key in result
    assert result["data"] == "simulated"
    assert set(result["metrics"]) == {
        f"val/{way}way_1shot/{method}/accuracy"
        for way in (2, 5)
        for method in ("prototypes", "pixel_nearest_neighbour")
    }
    for metric in result["metrics"].values():
        assert set(metric) == {"mean", "ci95", "n", "over", "unit"}
        assert (metric["n"], metric["over"], metric["unit"]) == (6, "episodes", "%")
        assert 0 <= metric["mean"] <= 100 and metric["ci95"] >= 0
    assert result["reference"][0]["within"] is True
    parts = load("glyphs", ["train", "val"])
    assert result["dataset_fingerprint"] == {
        split: part.fingerprint for split, part in parts.items()
    }
    with np.load(workdir / "episodes.npz") as episodes:
        for name, metric in result["metrics"].items():
            assert episodes[name].mean() == pytest.approx(metric["mean"])
    assert [line["step"] for line in read_metrics(workdir)] == [1, 2, 3, 4, 5, 6]
    assert (workdir / "config.json").exists()
    assert {p.name for p in (workdir / "checkpoints" / "last").iterdir()} == {"4", "6"}


def test_figures_are_drawn(finished):
    pytest.importorskip("matplotlib")
    workdir, _ = finished
    drawn = {p.name: p.stat().st_size for p in (workdir / "figures").iterdir()}
    assert set(drawn) == {"learning_curve.png", "episode.png", "embeddings.png"}
    assert min(drawn.values()) > 5000


def test_a_finished_run_says_so_and_does_nothing(finished, capsys):
    workdir, result = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    again = prototypes.run(TINY, workdir)
    assert f"{workdir} is finished" in capsys.readouterr().out
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_a_finished_run_of_another_config_is_refused(finished):
    workdir, _ = finished
    with pytest.raises(ValueError, match=r"seed \(there 0, here 1\)"):
        prototypes.run(_with(seed=1), workdir)


def test_the_table_shows_intervals_and_published_values(finished):
    _, result = finished
    table = report(result)
    row = next(line for line in table.splitlines() if "5way_1shot/proto" in line)
    assert "±" in row and row.endswith("10.0")


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    with prototypes.configs.open_workdir(tmp_path, TINY):
        pass
    with pytest.raises(ValueError, match=r"optim.learning_rate \(there 0.001, here"):
        prototypes.run(_with(optim=Optim(learning_rate=0.5)), tmp_path)


def _episodes(workdir):
    with np.load(workdir / "episodes.npz") as archive:
        return dict(archive)


def _stopped_after(calls, config, workdir):
    """A run that Ctrl-C reaches in that call of its step."""
    real, made = steps.compile_step, []

    def stopping(step):
        compiled = real(step)

        def call(*args, **kwargs):
            made.append(1)
            if len(made) == calls:
                os.kill(os.getpid(), signal.SIGINT)
            return compiled(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "compile_step", stopping)
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {calls}, saved"):
            prototypes.run(config, workdir)
    assert not (workdir / "result.json").exists()


def _assert_same_runs(one, other):
    """The accuracy of every test episode, and every line of the log but its time."""
    for name, values in _episodes(one).items():
        np.testing.assert_array_equal(_episodes(other)[name], values)
    lines = [
        [{**line, "wall_s": 0} for line in read_metrics(workdir)]
        for workdir in (one, other)
    ]
    assert lines[0] == lines[1]


def test_an_interrupted_run_goes_on_to_the_same_bits(finished, tmp_path, capsys):
    config = _with(figures=False)
    _stopped_after(2, config, tmp_path)
    prototypes.run(config, tmp_path)
    assert "train: going on from step 2 of 6" in capsys.readouterr().out
    _assert_same_runs(finished[0], tmp_path)


def test_a_run_does_not_go_on_with_other_data(tmp_path, blobs, monkeypatch):
    """Where data lie may change on resume, what they are may not."""
    sources = sys.modules["jaxfer.data.sources"]
    monkeypatch.setitem(sources.BY_CLASS, "omniglot", lambda data, split: data)
    config = _with(data=Data("omniglot", dir=str(tmp_path)), figures=False)
    cache = tmp_path / "omniglot.cache"
    write_cache(blobs, cache)
    monkeypatch.setattr(prototypes, "evaluate", None)
    with pytest.raises(TypeError):
        prototypes.run(config, tmp_path / "run")
    images = blobs.images.copy()
    images[0, 0, 0] ^= 1
    write_cache(dataclasses.replace(blobs, images=images), cache)
    with pytest.raises(ValueError, match="begun on data of fingerprint .*, found"):
        prototypes.run(config, tmp_path / "run")


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="found 2 processes, needed one"):
        prototypes.run(TINY, tmp_path)


def test_the_transductive_mode_is_labelled_and_another_result(tmp_path, finished):
    config = _with(test=dataclasses.replace(TINY.test, transductive=True))
    result = prototypes.run(_with(config, figures=False), tmp_path)
    assert result["transductive"] == ["prototypes_transductive"]
    inductive = {
        name: metric
        for name, metric in result["metrics"].items()
        if "transductive" not in name
    }
    assert inductive == finished[1]["metrics"]
    assert "transductive" not in finished[1]
    assert len(result["metrics"]) == len(inductive) + 2


def test_testing_leaves_parameters_and_statistics_as_they_are(
    tmp_path, finished, monkeypatch
):
    """The last checkpoint is what is tested, and what is there after the test."""
    kept = []
    real = prototypes.evaluate

    def watched(config, net, trained, *data):
        before = jax.device_get((trained.params, trained.state))
        values = real(config, net, trained, *data)
        kept.append((before, jax.device_get((trained.params, trained.state))))
        return values

    monkeypatch.setattr(prototypes, "evaluate", watched)
    config = _with(test=dataclasses.replace(TINY.test, transductive=True))
    prototypes.run(_with(config, figures=False), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, *kept[0])


def test_validation_and_a_fresh_run_follow_the_released_code(tmp_path):
    """The retrained network is that of a plain run of the same length, bit for bit."""
    config = _with(
        data=dataclasses.replace(TINY.data, val="val", retrain="trainval"),
        val=Validation(every=2, episodes=4, way=3, query=2, patience=2),
        episodes=30,
        figures=False,
    )
    result = prototypes.run(config, tmp_path / "searched")
    lines = read_metrics(tmp_path / "searched")
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    best = int(np.argmin(losses))
    assert result["phases"] == {
        "train": {"steps": 2 * len(losses), "best_step": 2 * (best + 1)},
        "retrain": {"steps": 2 * (best + 2)},
    }
    assert len(losses) == min(best + 4, 15)
    data = dataclasses.replace(TINY.data, train="trainval")
    plain = _with(data=data, episodes=2 * (best + 2), figures=False)
    expected = prototypes.run(plain, tmp_path / "plain")
    assert result["metrics"] == expected["metrics"]
    for name, values in _episodes(tmp_path / "plain").items():
        np.testing.assert_array_equal(_episodes(tmp_path / "searched")[name], values)


def test_without_a_fresh_run_the_best_state_is_tested(tmp_path):
    config = _with(
        data=dataclasses.replace(TINY.data, val="val"),
        val=Validation(every=2, episodes=4, way=3, query=2, patience=1),
        episodes=30,
        figures=False,
    )
    result = prototypes.run(config, tmp_path / "searched")
    best = result["phases"]["train"]["best_step"]
    expected = prototypes.run(_with(episodes=best, figures=False), tmp_path / "plain")
    assert result["metrics"] == expected["metrics"]


def test_a_part_above_the_limit_is_streamed_to_the_same_result(
    tmp_path, finished, capsys
):
    """Same episodes, same network: same accuracies, but for the order of sums."""
    pytest.importorskip("grain")
    data = dataclasses.replace(TINY.data, limit=0.0, workers=3)
    config = _with(data=data, test=dataclasses.replace(TINY.test, transductive=True))
    result = prototypes.run(config, tmp_path)
    printed = capsys.readouterr().out
    assert "glyphs train is streamed: 0.0" in printed
    assert "GB of pixels, above data.limit = 0\n" in printed
    whole = finished[1]
    assert result["dataset_fingerprint"] == whole["dataset_fingerprint"]
    name = "val/5way_1shot/pixel_nearest_neighbour/accuracy"
    assert result["metrics"][name] == whole["metrics"][name]
    losses = [
        [line["train/loss"] for line in read_metrics(folder)]
        for folder in (tmp_path, finished[0])
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert (tmp_path / "figures" / "episode.png").stat().st_size > 1000


def test_a_streamed_run_that_is_interrupted_goes_on_to_the_same_bits(tmp_path):
    pytest.importorskip("grain")
    data = dataclasses.replace(TINY.data, val="val", limit=0.0)
    val = Validation(every=2, episodes=4, way=3, query=2, patience=9)
    whole = _with(data=data, val=val, figures=False)
    prototypes.run(whole, tmp_path / "whole")
    # What is how may change: the workers, and how long one process goes on.
    other = dataclasses.replace(data, workers=5)
    _stopped_after(3, _with(whole, data=other), tmp_path / "parts")
    prototypes.run(whole, tmp_path / "parts")
    _assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_it_spreads_over_the_devices_that_divide_a_step(tmp_path):
    config = _with(devices=None, episodes_per_step=2, figures=False)
    result = prototypes.run(config, tmp_path)
    assert jax.device_count() == 8
    assert result["devices"] == ["cpu"] * 2
