"""The experiment end to end, small: a run, its files, its refusals, its resumption."""

import dataclasses
import json
import os
import signal
import sys

import jax
import numpy as np
import pytest

import jaxfer
from experiments.options import Mesh
from experiments.prototypes import measure, report
from experiments.prototypes import run as prototypes
from experiments.prototypes.config import Data, Evaluation, Task, Validation
from experiments.prototypes.presets import omniglot_snell2017, published_accuracies
from jaxfer import methods as jaxfer_methods
from jaxfer import models
from jaxfer import workdir as workdirs
from jaxfer.checkpoint import Checkpoints
from jaxfer.data import load, write_cache
from jaxfer.data.feed import place_episodes
from jaxfer.models import episode_step, episodic
from jaxfer.optim import Optim
from jaxfer.runlog import RunLog, read_json, read_metrics, read_result
from tests.experiments.tiny import EPISODIC as TINY

pytestmark = pytest.mark.usefixtures("small_glyphs")
VALIDATED = dataclasses.replace(
    TINY,
    data=dataclasses.replace(TINY.data, val="val", retrain="trainval", test="test"),
    val=Validation(every=2, episodes=4, way=3, query=2, patience=2),
    test=Evaluation(ways=(5,), shots=(1,), query=3, episodes=6),
    # With so high a rate the loss stops falling before the end.
    optim=Optim("adam", 0.03),
    episodes=40,
    figures=False,
)


def _with(config=TINY, **changes):
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_glyphs):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    published = published_accuracies("Table 0", {(5, 1): (10.0, 0.5)})
    # Published rows are of a split named 'test'; this run tests on 'val'.
    published[0]["name"] = published[0]["name"].replace("test/", "val/")
    episode_step.make_episode_step.cache_clear()
    return workdir, prototypes.run(TINY, workdir, published)


@pytest.fixture(scope="module")
def validated(tmp_path_factory, small_glyphs):
    workdir = tmp_path_factory.mktemp("runs") / "validated"
    episode_step.make_episode_step.cache_clear()
    return workdir, prototypes.run(VALIDATED, workdir)


def _episodes(workdir):
    with np.load(workdir / "episodes.npz") as archive:
        return dict(archive)


def _trained(workdir):
    model = jaxfer.load_model(workdir)
    return jax.device_get((model.params, model.state))


def _assert_same_runs(one, other):
    """Every test episode, every weight, and every line of the log except its time."""
    lines = [
        [{**line, "wall_s": 0} for line in read_metrics(workdir)]
        for workdir in (one, other)
    ]
    assert lines[0] == lines[1]
    found = [(_episodes(workdir), _trained(workdir)) for workdir in (one, other)]
    assert jax.tree.structure(found[0]) == jax.tree.structure(found[1])
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_a_run_leaves_what_it_promises(finished):
    workdir, result = finished
    assert result == read_result(workdir)
    assert set(result) == {
        "classes",
        "compilations",
        "config",
        "data",
        "dataset_fingerprint",
        "devices",
        "episodes_sha256",
        "experiment",
        "metrics",
        "phases",
        "processes",
        "reference",
        "seed",
        "throughput",
        "versions",
        "wall_s",
    }
    assert result["experiment"] == "prototypes" and result["data"] == "simulated"
    assert (result["compilations"], result["processes"]) == (1, 1)
    assert result["phases"] == {"train": {"steps": 6, "best_step": 0}}
    assert result["throughput"]["episodes_per_s"] > 0 and result["wall_s"] > 0
    assert result["config"]["net.width"] == 8
    assert set(result["metrics"]) == {
        f"val/{way}way_1shot/{method}/accuracy"
        for way in (2, 5)
        for method in ("prototypes", "pixel_nearest_neighbour")
    }
    for metric in result["metrics"].values():
        assert set(metric) == {"mean", "ci95", "n", "over", "unit"}
        assert (metric["n"], metric["over"], metric["unit"]) == (6, "episodes", "%")
        assert 0 <= metric["mean"] <= 100 and metric["ci95"] >= 0
    (row,) = result["reference"]
    assert set(row) == {"name", "value", "ours", "tolerance", "within", "source"}
    assert row["within"] is True
    parts = load("glyphs", ["train", "val"])
    for split, part in parts.items():
        assert result["dataset_fingerprint"][split] == part.fingerprint
        assert result["classes"][split] == list(part.class_names)
    assert not set(result["classes"]["train"]) & set(result["classes"]["val"])
    episodes = _episodes(workdir)
    assert set(episodes) == set(result["metrics"])
    for name, metric in result["metrics"].items():
        assert episodes[name].shape == (6,)
        assert episodes[name].mean() == pytest.approx(metric["mean"])
    assert [line["step"] for line in read_metrics(workdir)] == [1, 2, 3, 4, 5, 6]
    assert read_json(workdir / "config.json") == result["config"]
    assert {p.name for p in (workdir / "checkpoints" / "last").iterdir()} == {"4", "6"}


def test_the_model_of_a_run_embeds_as_its_test_did(finished):
    """Accuracies measured with the loaded model are those of episodes.npz."""
    workdir, result = finished
    model = jaxfer.load_model(workdir)
    assert model.head is None and model.about["steps"] == 6
    assert model.about["data"] == result["dataset_fingerprint"]["train"]
    means = {name: metric["mean"] for name, metric in result["metrics"].items()}
    assert model.about["metrics"] == means
    measured = models.measure_episodes(
        model,
        load("glyphs", ["val"])["val"],
        models.EpisodeShape(5, 1, 3),
        seed=0,
        split="val",
        episodes=6,
    )
    np.testing.assert_array_equal(
        100 * measured["accuracy"],
        _episodes(workdir)["val/5way_1shot/prototypes/accuracy"],
    )


def test_figures_are_drawn(finished):
    pytest.importorskip("matplotlib")
    workdir, _ = finished
    drawn = {p.name: p.stat().st_size for p in (workdir / "figures").iterdir()}
    names = ("learning_curve", "episode", "embeddings")
    assert set(drawn) == {f"{name}.{end}" for name in names for end in ("svg", "png")}
    assert min(drawn.values()) > 5000


def test_figures_show_the_first_test_episode_as_it_was_measured(finished):
    workdir, _ = finished
    with np.load(workdir / "example.npz") as file:
        shown = dict(file)
    wanted = _episodes(workdir)["val/2way_1shot/prototypes/accuracy"][0]
    right = shown["predicted"] == np.arange(2)[:, None]
    assert 100 * right.mean() == pytest.approx(wanted)
    # The images are those of the classes, and their embeddings those of the model.
    images = load("glyphs", ["val"])["val"]
    model = models.load_model(workdir)
    for name in ("support", "query"):
        flat = shown[name].reshape(-1, *images.images.shape[1:])
        z = np.asarray(models.embed(model, flat))
        np.testing.assert_allclose(
            z, shown[f"{name}_z"].reshape(z.shape), rtol=1e-4, atol=1e-5
        )


def test_a_finished_run_says_so_and_does_nothing(finished, capsys):
    workdir, result = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    again = prototypes.run(TINY, workdir)
    assert f"{workdir} is finished" in capsys.readouterr().out
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_a_finished_run_of_another_config_is_refused(finished):
    workdir, _ = finished
    with pytest.raises(ValueError, match=r"seed = 0 \(got 1\)"):
        prototypes.run(_with(seed=1), workdir)


def test_the_table_shows_intervals_and_published_values(finished):
    workdir, result = finished
    ((title, table),) = report.tables(result).items()
    head, _, *rows = ([x.strip() for x in y.split("|")] for y in table.splitlines())
    (cells,) = (row for row in rows if row[1] == "5-way 1-shot")
    row = dict(zip(head, cells, strict=True))
    metric = result["metrics"]["val/5way_1shot/prototypes/accuracy"]
    assert row["prototypes"] == f"{metric['mean']:.2f} ± {metric['ci95']:.2f}"
    assert (row["chance"], row["published"]) == ("20.00", "10.0")
    assert (workdir / "tables.md").read_text() == f"{title}:\n\n{table}\n"


def test_runs_are_compared_row_by_row(finished):
    _, result = finished
    other = {**result, "config": {**result["config"], "seed": 7}}
    lines = report.compare_runs([result, other]).splitlines()
    rows = [[x.strip() for x in line.split("|")[1:-1]] for line in lines]
    assert [row[2] for row in rows[2:4]] == [str(TINY.seed), "7"]
    assert rows[2][3:] == rows[3][3:] and "±" in rows[2][3]
    assert rows[-1][0] == "nearest neighbour on pixels"


def test_a_run_of_an_earlier_version_lacks_later_options(tmp_path):
    with workdirs.open_workdir(tmp_path, TINY):
        pass
    path = tmp_path / "config.json"
    kept = read_json(path)
    for name in ("method", "base.epochs", "jitter.contrast", "crop.area"):
        del kept[name]
    path.write_text(json.dumps(kept))
    workdirs.check_workdir(tmp_path, TINY)
    with pytest.raises(ValueError, match="method = 'prototypes' .got 'matching'"):
        workdirs.check_workdir(tmp_path, _with(method="matching"))


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    with workdirs.open_workdir(tmp_path, TINY):
        pass
    with pytest.raises(ValueError, match=r"optim.learning_rate = 0.001 \(got"):
        prototypes.run(_with(optim=Optim(learning_rate=0.5)), tmp_path)


def test_a_run_does_not_go_on_with_other_data(tmp_path, blobs, monkeypatch):
    """The data directory may change on resume, its content may not."""
    sources = sys.modules["jaxfer.data.sources"]
    row = sources.SOURCES["omniglot"]
    row = dataclasses.replace(row, by_class=lambda data, split: data)
    monkeypatch.setitem(sources.SOURCES, "omniglot", row)
    config = _with(data=Data("omniglot", dir=str(tmp_path)), figures=False)
    cache = tmp_path / "omniglot.cache"
    write_cache(blobs, cache)
    monkeypatch.setattr(measure, "evaluate", None)
    with pytest.raises(TypeError):
        prototypes.run(config, tmp_path / "run")
    images = blobs.images.copy()
    images[0, 0, 0] ^= 1
    write_cache(dataclasses.replace(blobs, images=images), cache)
    with pytest.raises(ValueError, match=r"started on \(fingerprint .*\), got"):
        prototypes.run(config, tmp_path / "run")


def test_the_transductive_method_is_labelled_and_a_row_of_its_own(
    tmp_path, finished, monkeypatch
):
    """It changes no other row, and no parameter or statistic of the tested model."""
    test = dataclasses.replace(TINY.test, transductive=True)
    kept, real = [], measure.evaluate

    def watched(config, model, *data):
        before = jax.device_get((model.params, model.state))
        values = real(config, model, *data)
        kept.append((before, jax.device_get((model.params, model.state))))
        return values

    monkeypatch.setattr(measure, "evaluate", watched)
    result = prototypes.run(_with(test=test, figures=False), tmp_path)
    assert result["transductive"] == ["prototypes_transductive"]
    transductive = {
        name for name in result["metrics"] if "prototypes_transductive" in name
    }
    assert len(transductive) == 2
    inductive = {k: v for k, v in result["metrics"].items() if k not in transductive}
    assert inductive == finished[1]["metrics"]
    assert "transductive" not in finished[1]
    jax.tree.map(np.testing.assert_array_equal, *kept[0])


def test_validation_and_retraining_follow_the_released_code(validated, tmp_path):
    """The retrained network is that of a plain run of the same length, bit for bit."""
    workdir, result = validated
    lines = read_metrics(workdir)
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    best = int(np.argmin(losses))
    assert result["phases"] == {
        "train": {"steps": 2 * len(losses), "best_step": 2 * (best + 1)},
        "retrain": {"steps": 2 * (best + 2)},
    }
    # Training stops with the third validation in a row without a lower loss.
    assert len(losses) == best + 4 < 20
    # One program for each phase, whose data have other shapes.
    assert result["compilations"] == 2
    data = dataclasses.replace(TINY.data, train="trainval", test="test")
    plain = _with(VALIDATED, data=data, episodes=2 * (best + 2))
    prototypes.run(plain, tmp_path)
    found = [(_episodes(path), _trained(path)) for path in (workdir, tmp_path)]
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.slow
def test_without_retraining_the_best_state_is_tested(validated, tmp_path):
    config = _with(VALIDATED, data=dataclasses.replace(VALIDATED.data, retrain=None))
    result = prototypes.run(config, tmp_path / "searched")
    phase = validated[1]["phases"]["train"]
    assert result["phases"] == {"train": phase}
    best = phase["best_step"]
    assert best < phase["steps"]
    plain = _with(
        VALIDATED, data=dataclasses.replace(TINY.data, test="test"), episodes=best
    )
    prototypes.run(plain, tmp_path / "plain")
    found = [
        (_episodes(tmp_path / name), _trained(tmp_path / name))
        for name in ("searched", "plain")
    ]
    jax.tree.map(np.testing.assert_array_equal, *found)
    # Its validation had episodes of its own: 4 after those of each one before.
    measured = models.measure_episodes(
        jaxfer.load_model(tmp_path / "searched"),
        load("glyphs", ["val"])["val"],
        models.EpisodeShape(3, 2, 2),
        seed=0,
        split="val",
        episodes=4,
        first=4 * (best // 2 - 1),
    )
    (logged,) = (
        line["val/loss"]
        for line in read_metrics(tmp_path / "searched")
        if line["step"] == best and "val/loss" in line
    )
    assert logged == pytest.approx(measured["loss"].mean(), rel=1e-6)


def _killed(config, workdir, monkeypatch, event, number):
    """A run that dies in the given call of a kind of work, without a clean-up."""
    owner, name = {
        "train": (RunLog, "train"),
        "retrain": (RunLog, "train"),
        "validate": (models, "measure_episodes"),
        "save": (Checkpoints, "save"),
        "test": (measure, "evaluate"),
        "write": (models, "save_model"),
    }[event]
    real, left = getattr(owner, name), [number]

    def dying(*args, **kwargs):
        if event not in ("train", "retrain") or args[0]._phase == event:
            left[0] -= 1
            if not left[0]:
                raise MemoryError("killed")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(MemoryError, match="killed"):
            prototypes.run(config, workdir)
    assert not (workdir / "result.json").exists()


@pytest.mark.parametrize(
    "kills",
    [
        # In the default run, test_kills ends processes in these phases.
        pytest.param(
            [("train", 1), ("train", 4), ("train", 3), ("test", 1)],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [("validate", 2), ("validate", 2), ("save", 3), ("save", 2)],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [("retrain", 1), ("retrain", 3), ("write", 1)], marks=pytest.mark.slow
        ),
    ],
    ids=("train", "validate_and_save", "retrain"),
)
def test_a_run_that_died_in_any_phase_ends_bit_identical(
    validated, tmp_path, monkeypatch, kills
):
    for kill in kills:
        _killed(VALIDATED, tmp_path, monkeypatch, *kill)
    result = prototypes.run(VALIDATED, tmp_path)
    assert result["phases"] == validated[1]["phases"]
    _assert_same_runs(validated[0], tmp_path)


def _stopped_after(calls, config, workdir, monkeypatch):
    """A run that Ctrl-C reaches in that call of its step."""
    real, made = episodic.make_episode_step, []

    def stopping(program):
        compiled = real(program)

        def call(*args, **kwargs):
            made.append(1)
            if len(made) == calls:
                os.kill(os.getpid(), signal.SIGINT)
            return compiled(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(episodic, "make_episode_step", stopping)
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {calls}, saved"):
            prototypes.run(config, workdir)
    assert not (workdir / "result.json").exists()


def test_an_interrupted_run_goes_on_bit_identical(
    finished, tmp_path, capsys, monkeypatch
):
    config = _with(figures=False)
    _stopped_after(3, config, tmp_path, monkeypatch)
    prototypes.run(config, tmp_path)
    assert "train: going on from step 3 of 6" in capsys.readouterr().out
    _assert_same_runs(finished[0], tmp_path)


@pytest.mark.slow
def test_calls_of_several_steps_give_the_same_run(finished, tmp_path):
    options = dataclasses.replace(TINY.run, steps_per_call=2, save_every=5)
    result = prototypes.run(_with(run=options, figures=False), tmp_path)
    # Steps 1 to 4 in two calls, then 5 alone before the save, and 6.
    assert result["compilations"] <= 2
    losses = [
        [line["train/loss"] for line in read_metrics(folder)]
        for folder in (finished[0], tmp_path)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_streamed_data_give_the_same_run_bit_for_bit(finished, tmp_path, capsys):
    pytest.importorskip("grain")
    options = dataclasses.replace(TINY.run, limit=0.0, workers=3)
    result = prototypes.run(_with(run=options), tmp_path)
    printed = capsys.readouterr().out
    assert "glyphs train is streamed: 0.0" in printed
    assert "GB of pixels, above the limit of 0 GB\n" in printed
    assert result["dataset_fingerprint"] == finished[1]["dataset_fingerprint"]
    _assert_same_runs(finished[0], tmp_path)
    if "matplotlib" in sys.modules:
        assert (tmp_path / "figures" / "episode.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_streamed_run_that_is_interrupted_goes_on_bit_identical(
    validated, tmp_path, monkeypatch
):
    pytest.importorskip("grain")
    options = dataclasses.replace(VALIDATED.run, limit=0.0, workers=5)
    _stopped_after(3, _with(VALIDATED, run=options), tmp_path, monkeypatch)
    # Whether data are streamed is an option that may change on resume.
    prototypes.run(VALIDATED, tmp_path)
    _assert_same_runs(validated[0], tmp_path)


@pytest.mark.parametrize(("per_step", "devices"), [(1, 1), (6, 2), (12, 4), (40, 8)])
def test_it_spreads_over_as_many_devices_as_divide_a_step(
    tmp_path, monkeypatch, per_step, devices
):
    monkeypatch.setattr(prototypes, "_run", lambda *args: {"devices": args[3].size})
    config = _with(mesh=Mesh(), episodes=120, episodes_per_step=per_step)
    assert jax.device_count() == 8
    assert prototypes.run(config, tmp_path) == {"devices": devices}


# In the default run, tests/models compares steps on several devices and on one.
@pytest.mark.slow
def test_eight_devices_give_the_run_of_one(tmp_path):
    """Losses, weights and the accuracy of every test episode."""
    config = _with(
        task=Task(way=5, shot=1, query=3),
        test=Evaluation(ways=(5,), shots=(1,), query=5, episodes=200),
        episodes=160,
        episodes_per_step=8,
        seed=2,
        figures=False,
    )
    for devices in (1, 8):
        result = prototypes.run(
            _with(config, mesh=Mesh(devices)), tmp_path / str(devices)
        )
        assert result["devices"] == ["cpu"] * devices
        assert result["compilations"] == 1
    one, eight = (
        [line["train/loss"] for line in read_metrics(tmp_path / folder)]
        for folder in ("1", "8")
    )
    assert len(one) == 20
    np.testing.assert_allclose(one, eight, rtol=1e-5)
    (params, state), (params8, state8) = (_trained(tmp_path / x) for x in ("1", "8"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        state,
        state8,
    )

    # Distances do not change when every embedding is shifted by the same vector. So
    # this bias has a true gradient of 0 wherever the ReLU after it clips nothing, and
    # Adam moves it by up to the learning rate, 1e-3, per step.
    def agree(path, a, b):
        last_bias = [p.key for p in path] == ["conv4", "BatchNorm_0", "bias"]
        atol = 0.02 if last_bias else 1e-4
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol, err_msg=str(path))

    jax.tree_util.tree_map_with_path(agree, params, params8)
    accuracies = [_episodes(tmp_path / folder) for folder in ("1", "8")]
    name = "val/5way_1shot/pixel_nearest_neighbour/accuracy"
    np.testing.assert_array_equal(*[found[name] for found in accuracies])
    # Queries at equal distances may go either way: 0 to 2 of 200 episodes differed in
    # measurements, by one query of 25.
    name = "val/5way_1shot/prototypes/accuracy"
    one, eight = (found[name] for found in accuracies)
    assert (one != eight).sum() <= 6
    np.testing.assert_allclose(one, eight, atol=100 / 25 + 1e-4)


@pytest.mark.parametrize("per_step", [1, 8])
def test_the_rate_of_snell_halves_after_exactly_2000_episodes(per_step):
    """Measured on the optimizer of a training: Adam moves by the rate at gradient 1."""
    config = omniglot_snell2017(way=60, shot=1, query=5)
    program = episode_step.EpisodeProgram(
        config.net.build().build(),
        models.Recipe(config.optim, episodes=config.episodes, batch=per_step),
        models.EpisodeShape(60, 1, 5),
        jaxfer_methods.prototypes(),
        seed=0,
        split="train",
    )
    optimizer = episode_step.make_episode_optimizer(program)
    ones = {"w": np.ones((), np.float32)}

    def update(opt_state, _):
        moved, opt_state = optimizer.update(ones, opt_state, ones)
        return opt_state, -moved["w"]

    count = 4000 // per_step + 1
    _, rates = jax.jit(
        lambda: jax.lax.scan(update, optimizer.init(ones), length=count)
    )()
    first = 2000 // per_step
    expected = [1e-3] * first + [5e-4] * first + [2.5e-4]
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_pixels_are_compared_as_they_are_stored(finished):
    """The baseline of the result, computed again image by image."""
    workdir, _ = finished
    part = load("glyphs", ["val"])["val"]
    data = place_episodes(part, jaxfer.sharding.make_mesh(1), limit=4.0)
    found = []
    for number in range(6):
        rows = jaxfer.numbered_episode(
            data.table, 0, "val", number, way=5, shot=1, n_query=3
        )
        support, query = (
            part.images[np.asarray(x)].astype(np.float64) for x in rows[:2]
        )
        right = 0
        for k in range(5):
            for q in range(3):
                distances = ((support[:, 0] - query[k, q]) ** 2).sum(axis=(1, 2, 3))
                right += int(distances.argmin() == k)
        found.append(100 * right / 15)
    name = "val/5way_1shot/pixel_nearest_neighbour/accuracy"
    np.testing.assert_allclose(_episodes(workdir)[name], found, rtol=1e-6)
