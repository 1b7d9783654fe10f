import json
import math
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxfer import runlog, versions
from jaxfer.runlog import (
    RunLog,
    read_metrics,
    read_result,
    write_json,
    write_result,
)


def _train(tmp_path, steps, *, start=0, **options):
    options = {"num_steps": 10, "every": 2, "show": False} | options
    with RunLog(tmp_path, start=start, **options) as log:
        for step in steps:
            log.train(step, {"loss": [float(step)], "accuracy": [step / 10]})


def test_lines_are_means_over_their_steps(tmp_path):
    _train(tmp_path, range(1, 6))
    lines = runlog.read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [2, 4]
    assert [line["train/loss"] for line in lines] == [1.5, 3.5]
    assert lines[1]["train/accuracy"] == pytest.approx(0.35)


@pytest.mark.parametrize("per_call", [1, 3, 7, 20])
def test_means_do_not_depend_on_how_steps_arrive(tmp_path, per_call):
    losses = np.random.default_rng(0).normal(size=20).tolist()
    with RunLog(tmp_path, num_steps=20, every=8, show=False) as log:
        for start in range(0, 20, per_call):
            part = losses[start : start + per_call]
            log.train(start + len(part), {"loss": part})
    ends = [0, 8, 16, 20]
    means = [sum(losses[a:b]) / (b - a) for a, b in zip(ends, ends[1:], strict=False)]
    assert [line["train/loss"] for line in read_metrics(tmp_path)] == means


def test_a_resumed_log_drops_the_lines_it_makes_again(tmp_path):
    _train(tmp_path, range(1, 7))
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 8, "train/lo')
    _train(tmp_path, range(5, 11), start=4)
    lines = runlog.read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]


def test_numbers_of_an_evaluation_are_written_as_they_are(tmp_path):
    with RunLog(tmp_path, num_steps=1, show=False) as log:
        log.write(5, {"val/loss": 0.25})
    (line,) = runlog.read_metrics(tmp_path)
    assert (line["step"], line["val/loss"]) == (5, 0.25)


@pytest.mark.parametrize("per_call", [1, 5])
def test_rate_counts_from_the_first_call_done(tmp_path, monkeypatch, per_call):
    now = [0.0]
    fake = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(runlog, "time", fake)
    with RunLog(tmp_path, num_steps=40, per_step=8, show=False) as log:
        assert log.rate() is None
        # Compilation takes 100 seconds, then every call a second.
        for call, at in enumerate((100.0, 101.0, 102.0)):
            now[0] = at
            log.train((call + 1) * per_call, {"loss": [0.0] * per_call})
            assert (log.rate() is None) == (call == 0)
        assert log.rate() == pytest.approx(8.0 * per_call)


def test_a_log_goes_on_within_a_line_and_in_its_seconds(tmp_path):
    options = {"num_steps": 8, "every": 5, "show": False}
    with RunLog(tmp_path, **options) as log:
        log.train(3, {"loss": [1.0, 2.0, 3.0]})
        position = json.loads(json.dumps(log.position()))
    with RunLog(tmp_path, start=3, position=position, **options) as log:
        assert log.elapsed() >= position["wall_s"]
        log.train(8, {"loss": [4.0, 5.0, 6.0, 7.0, 8.0]})
    lines = [(line["step"], line["train/loss"]) for line in read_metrics(tmp_path)]
    # The last steps have a line too, though it is of fewer.
    assert lines == [(5, 3.0), (8, 7.0)]


def test_the_bar_shows_loss_accuracy_rate_and_time_left(tmp_path, capsys):
    _train(tmp_path, range(1, 11), show=True)
    shown = capsys.readouterr().err
    assert "loss=" in shown and "accuracy=" in shown
    assert "episode/s" in shown and "10/10" in shown


def test_tensorboard_reads_the_events_back(tmp_path):
    pytest.importorskip("tensorboardX")
    _train(tmp_path, range(1, 5))
    (events,) = (tmp_path / "events").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"train/accuracy" in content


def test_it_works_without_tensorboardx(tmp_path):
    code = f"""
import sys
sys.modules["tensorboardX"] = None
from jaxfer.runlog import (
    RunLog,
    read_metrics,
    read_result,
    write_json,
    write_result,
)
with RunLog({str(tmp_path)!r}, num_steps=1, every=1, show=False) as log:
    log.train(1, {{"loss": [2.0]}})
assert read_metrics({str(tmp_path)!r})[0]["train/loss"] == 2.0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "events").exists()


def test_json_is_plain_and_whole(tmp_path):
    content = {
        "a": np.float32(1.5),
        "b": (1, np.arange(2)),
        3: math.nan,
        "d": -math.inf,
    }
    runlog.write_json(tmp_path / "x.json", content)
    expected = {"a": 1.5, "b": [1, [0, 1]], "3": None, "d": None}
    assert runlog.read_json(tmp_path / "x.json") == expected
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("ours", "within"), [(98.19, False), (98.21, True), (98.8, True), (99.9, True)]
)
def test_tolerance_is_one_sided(ours, within):
    row = {"name": "m", "value": 98.8, "tolerance": 0.6, "source": "Table 1"}
    (compared,) = runlog.compare({"m": {"mean": ours}}, [row])
    assert compared == {**row, "ours": ours, "within": within}


def test_a_published_value_of_nothing_measured_has_no_verdict():
    row = {"name": "m", "value": 1.0, "tolerance": 0.1, "source": "Table 1"}
    (compared,) = runlog.compare({"n": {"mean": 1.0}}, [row])
    assert compared == {**row, "ours": None, "within": None}


def test_environment_names_devices_and_versions():
    found = json.loads(json.dumps(versions.environment(jax.devices()[:2])))
    assert found["devices"] == ["cpu"] * 2
    assert {"jaxfer", "python", "jax", "flax", "optax"} <= set(found["versions"])
    assert found["versions"]["jax"]


def test_a_logger_gets_every_line(tmp_path):
    seen = []
    options = {"first": 7, "logger": lambda step, metrics: seen.append((step, metrics))}
    _train(tmp_path, range(1, 5), **options)
    lines = runlog.read_metrics(tmp_path)
    assert [step for step, _ in seen] == [line["step"] for line in lines] == [9, 11]
    for (_, metrics), line in zip(seen, lines, strict=True):
        assert metrics == {k: line[k] for k in ("train/loss", "train/accuracy")}


def test_events_have_the_metrics_and_figures_of_a_result(tmp_path, monkeypatch):
    image = pytest.importorskip("matplotlib.image")
    pixels = np.arange(24).reshape(2, 4, 3) / 24
    image.imsave(tmp_path / "rows.png", pixels)
    written = {}
    writer = SimpleNamespace(
        add_scalar=lambda name, value, step: written.update({name: (value, step)}),
        add_image=lambda name, array, step, dataformats: written.update(
            {name: (array.shape, step)}
        ),
        close=lambda: written.update(closed=True),
    )
    monkeypatch.setattr(runlog, "_event_writer", lambda workdir: writer)
    metrics = {"test/accuracy": {"mean": 98.5, "ci95": 0.2}}
    runlog.write_events(tmp_path, 30, metrics, [tmp_path / "rows.png"])
    assert written == {
        "test/accuracy": (98.5, 30),
        "rows": ((2, 4, 3), 30),
        "closed": True,
    }


def test_a_changed_result_is_not_believed(tmp_path):
    content = {"experiment": "x", "metrics": {"a": {"mean": 98.5}}}
    write_result(tmp_path, content)
    assert read_result(tmp_path) == content
    path = tmp_path / "result.json"
    path.write_text(path.read_text().replace("98.5", "99.5"))
    with pytest.raises(ValueError, match=r"written in .*result.json, got other"):
        read_result(tmp_path)
    write_json(path, content)
    assert read_result(tmp_path) == content, "of an earlier version"


@pytest.mark.parametrize("line", ["hello", "{", '{"loss": 1}', "[1]", '{"step": "a"}'])
def test_a_foreign_line_of_metrics_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + line + "\n")
    for read in (read_metrics, lambda w: RunLog(w, num_steps=9, start=1, show=False)):
        with pytest.raises(ValueError, match="a step in .*metrics.jsonl, line 2, "):
            read(tmp_path)
