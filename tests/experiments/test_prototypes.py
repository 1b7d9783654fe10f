"""The experiment end to end, small: a run, its files, its refusals, its resumption."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
from jaxfer import sharding, steps
from jaxfer.data import resident, write_cache
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
    assert len(result["dataset_fingerprint"]["train"]) == 16
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


def test_an_interrupted_run_goes_on_to_the_same_bits(
    finished, tmp_path, monkeypatch, capsys
):
    whole, _ = finished
    real, calls = steps.compile_step, []

    def stopping(step):
        compiled = real(step)

        def call(*args, **kwargs):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return compiled(*args, **kwargs)

        return call

    config = _with(figures=False)
    monkeypatch.setattr(steps, "compile_step", stopping)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 2, saved"):
        prototypes.run(config, tmp_path)
    assert not (tmp_path / "result.json").exists()
    prototypes.run(config, tmp_path)
    assert "train: going on from step 2 of 6" in capsys.readouterr().out
    for name, values in _episodes(whole).items():
        np.testing.assert_array_equal(_episodes(tmp_path)[name], values)
    one, other = (
        [line["train/loss"] for line in read_metrics(run)] for run in (whole, tmp_path)
    )
    assert one == other


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, _few_glyphs):
    """Where a process of its own finds few glyphs too: a cache goes before drawing."""
    directory = tmp_path_factory.mktemp("data")
    write_cache(_few_glyphs, directory / "glyphs.cache")
    return directory


def _command(workdir, *options):
    return [
        *(sys.executable, "-m", "experiments.prototypes"),
        *("--config", "configs/quickstart.py", "--workdir", str(workdir)),
        *("--net.width", "4", "--task.way", "5", "--test.episodes", "4"),
        *("--episodes", "40", "--save-every", "10", "--no-figures", "--devices", "1"),
        *options,
    ]


def test_ctrl_c_on_the_command_line_saves_and_says_how_to_go_on(tmp_path, data_dir):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    many = ("--episodes", "100000", "--save-every", "100000")
    command = _command(tmp_path, *many, "--data.dir", str(data_dir))
    running = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    log = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_text()):
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    shown, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "saved; to go on:\n  python -m experiments.prototypes --config" in shown
    (saved,) = (tmp_path / "checkpoints" / "last").iterdir()
    assert int(saved.name) > 0 and f"stopped at step {saved.name}" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.name", "glyhps"], "found data set 'glyhps'.* mean 'glyphs'"),
        (
            ["--data.name", "omniglot", "--data.dir", "nowhere"],
            "found neither omniglot.cache nor omniglot .* nowhere.*prepare_data.py",
        ),
        (["--task.way", "5000"], "classes in glyphs trainval, needed way = 5000"),
        (["--task.shot", "0"], "found shot = 0, needed at least 1"),
        (["--test.query", "0"], "found query = 0, needed at least 1"),
        (
            ["--test.shots", "1", "6"],
            r"class 'angular08/character00' of glyphs test has 20 images, needed .* 21",
        ),
        (["--data.test", "tset"], "found split 'tset' of glyphs, needed one of"),
        (["--episodes-per-step", "0"], "episodes_per_step = 0, needed at least 1"),
        (["--steps-per-call", "0"], "steps_per_call = 0, needed at least 1"),
        (["--log-every", "0"], "log_every = 0, needed at least 1"),
        (["--episodes", "-4"], "found episodes = -4, needed at least 1"),
        (["--test.episodes", "0"], "test.episodes = 0, needed at least 1"),
        (["--seed", "-1"], r"found seed = -1, needed 0 to 2\^32 - 1"),
        (["--episodes-per-step", "3"], "episodes = 40, needed a multiple of .* = 3"),
        (["--val.every", "0"], "found val.every = 0, needed at least 1"),
        (["--data.retrain", "val"], "found data.retrain = 'val' without data.val"),
        (["--data.val", "vla"], "found split 'vla' of glyphs, needed one of"),
        (
            ["--data.val", "val", "--val.way", "999"],
            "classes in glyphs val, needed way = 999",
        ),
        (
            ["--data.val", "val", "--val.every", "3", "--episodes-per-step", "2"],
            "found val.every = 3, needed a multiple of episodes_per_step = 2",
        ),
        (["--devices", "2"], "episodes_per_step = 1, needed a multiple of the 2 dev"),
    ],
)
def test_bad_options_are_refused_in_one_line(tmp_path, capsys, options, message):
    argv = _command(tmp_path / "run", *options)[3:]
    with pytest.raises(SystemExit) as e:
        prototypes.main(argv)
    assert e.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1
    assert pytest.importorskip("re").search(message, shown), shown
    assert not (tmp_path / "run").exists()


def test_a_damaged_cache_is_refused_in_one_line(tmp_path, capsys, blobs):
    cache = write_cache(blobs, tmp_path / "omniglot.cache")
    (cache / "labels.npy").write_bytes(b"")
    argv = _command(
        tmp_path / "run", "--data.name", "omniglot", "--data.dir", str(tmp_path)
    )[3:]
    with pytest.raises(SystemExit) as e:
        prototypes.main(argv)
    assert e.value.code == 2
    assert "omniglot.cache is damaged" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_data(tmp_path, blobs, monkeypatch):
    """Where data lie may change on resume, what they are may not."""
    sources = sys.modules["jaxfer.data.sources"]
    monkeypatch.setitem(sources._SPLIT, "omniglot", lambda data, split: data)
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


def test_inductive_predictions_hang_on_no_other_query_transductive_ones_do(blobs):
    net = prototypes.make_net(TINY)
    params, state = net.init(jax.random.key(0), (16, 16, 1))
    data = jax.device_put(resident(blobs))
    episode = draw(data, 0, "test", 0, way=3, shot=1, n_query=4)
    other = episode._replace(query=episode.query.at[:, 1:].set(0.5))

    def first_query(episode, embed):
        return prototypes.prototype_logits(embed(episode), "sqeuclidean")[:, 0]

    def inductive(episode):
        flat = [x.reshape(-1, 16, 16, 1) for x in episode[:2]]
        z = [net.apply(params, state, x)[0] for x in flat]
        return prototypes.Episode(
            z[0].reshape(3, 1, -1), z[1].reshape(3, 4, -1), episode.classes
        )

    def transductive(episode):
        return prototypes.embed_together(net, params, state, episode)[0]

    np.testing.assert_array_equal(
        first_query(episode, inductive), first_query(other, inductive)
    )
    moved = first_query(episode, transductive) - first_query(other, transductive)
    assert float(jnp.abs(moved).min()) > 1e-3


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


def test_it_spreads_over_the_devices_that_divide_a_step(tmp_path):
    config = _with(devices=None, episodes_per_step=2, figures=False)
    result = prototypes.run(config, tmp_path)
    assert jax.device_count() == 8
    assert result["devices"] == ["cpu"] * 2


def test_it_runs_in_64_bits(tmp_path, data_dir):
    few = ("--episodes", "2", "--test.ways", "5", "--test.shots", "1")
    few = (*few, "--net.precision", "bfloat16")
    command = _command(tmp_path, *few, "--data.dir", str(data_dir))
    command[command.index("--no-figures")] = "--figures"
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    environment |= {"JAX_NUMPY_RANK_PROMOTION": "raise"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "result and figures" in done.stdout


@pytest.mark.parametrize("halve", [8, 500, 2000])
@pytest.mark.parametrize("per_step", [1, 2, 6, 7, 12])
def test_the_rate_halves_with_the_step_that_reaches_the_episode(halve, per_step):
    config = _with(optim=Optim(1e-3, halve_every=halve), episodes_per_step=per_step)
    steps_taken = np.arange(0, 12 * halve // per_step + 2)
    rates = prototypes.learning_rate(config, jnp.asarray(steps_taken, jnp.int32))
    expected = [1e-3 / 2 ** (int(n) * per_step // halve) for n in steps_taken]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_rate_may_be_constant():
    config = _with(optim=Optim(1e-3, halve_every=0))
    assert prototypes.learning_rate(config, jnp.asarray(10**6)) == pytest.approx(1e-3)


@pytest.fixture
def pieces(blobs):
    def make(devices=1, **changes):
        config = _with(devices=devices, **changes)
        net = prototypes.make_net(config)
        mesh = sharding.make_mesh(devices)
        optimizer = optax.sgd(0.1)
        params, state = net.init(jax.random.key(0), (16, 16, 1))
        started = steps.init_train_state(params, state, optimizer)
        loss = prototypes.make_loss(config, net, mesh)
        data = sharding.place(resident(blobs), mesh)
        step = steps.make_train_step(loss, optimizer)
        return jax.jit(loss), step, started, data, mesh

    return make


def test_the_loss_is_that_of_the_definition(pieces, blobs):
    loss, _, started, data, _ = pieces()
    value, (state, metrics) = loss(started.trainable, started.state, 3, data)
    config = TINY
    net = prototypes.make_net(config)
    episode = draw(data, 0, "train", 3, way=5, shot=2, n_query=3)
    # Joint statistics: one pass over support and query together.
    images = jnp.concatenate(
        [episode.support.reshape(10, 16, 16, 1), episode.query.reshape(15, 16, 16, 1)]
    )
    forward = jax.jit(lambda *args: net.apply(*args, mode=prototypes.TRAIN))
    z, expected_state = forward(started.trainable, started.state, images)
    z = np.asarray(z, np.float64)
    prototype = z[:10].reshape(5, 2, -1).mean(axis=1)
    total, right = 0.0, 0
    for k in range(5):
        for q in range(3):
            d = ((z[10 + 3 * k + q] - prototype) ** 2).sum(axis=1)
            total += d[k] + np.log(np.exp(-d).sum())
            right += int(d.argmin() == k)
    assert float(value) == pytest.approx(total / 15, rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx(right / 15)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state,
        expected_state,
    )


def test_episodes_of_a_step_are_averaged_in_loss_and_statistics(pieces):
    one, _, started, data, _ = pieces()
    many, _, _, _, _ = pieces(episodes_per_step=3)
    value, (state, _) = many(started.trainable, started.state, 2, data)
    each = [one(started.trainable, started.state, k, data) for k in (6, 7, 8)]
    np.testing.assert_allclose(value, np.mean([e[0] for e in each]), rtol=1e-5)
    states = [e[1][0] for e in each]
    jax.tree.map(
        lambda a, *b: np.testing.assert_allclose(a, sum(b) / 3, rtol=1e-5, atol=1e-6),
        state,
        *states,
    )


def test_sharded_equals_one_device(pieces):
    """First-step loss, statistics and, under plain SGD, the whole tree."""
    results = []
    for devices in (1, 8):
        _, step, started, data, mesh = pieces(devices, episodes_per_step=8)
        after, metrics = steps.compile_step(step)(sharding.place(started, mesh), data)
        results.append(jax.device_get((after, metrics)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results
    )


def test_sharded_step_moves_gradients_and_statistics_only(pieces):
    """No image and no activation crosses devices: all-reduces, and nothing gathered."""
    _, step, started, data, mesh = pieces(8, episodes_per_step=8)
    compiled = steps.compile_step(step).lower(sharding.place(started, mesh), data)
    text = compiled.compile().as_text()
    assert " all-reduce(" in text or " all-reduce-start(" in text
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert f" {collective}(" not in text, collective


def test_the_step_compiles_once_donates_and_moves_nothing_to_the_host(pieces):
    _, step, started, data, mesh = pieces()
    traces = []

    def counted(*args):
        traces.append(1)
        return step(*args)

    call = steps.compile_step(counted)
    state = sharding.place(jax.tree.map(jnp.copy, started), mesh)
    first = state
    with jax.transfer_guard("disallow"):
        for _ in range(4):
            state, metrics = call(state, data)
    jax.block_until_ready(metrics)
    assert len(traces) == 1
    assert all(x.is_deleted() for x in jax.tree.leaves(first))
    assert int(state.step) == 4
