"""Killed at any moment, a run that is started again ends bit-identical.

A process of its own runs the experiment and sends itself a signal at a chosen moment:
so many calls into a kind of work, and then some milliseconds later, whatever goes on
then.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jaxfer
from jaxfer import steps
from jaxfer.checkpoint import Checkpoints
from jaxfer.nets import Conv4
from jaxfer.runlog import read_json, read_metrics

ROOT = Path(__file__).resolve().parents[2]
KILLER = """
import os, signal, sys, threading
from experiments.prototypes import __main__ as prototypes
from jaxfer import checkpoint, models, runlog

event, number, delay, sent, *argv = sys.argv[1:]
left, delay = int(number), float(delay)
owner, name = {
    "train": (runlog.RunLog, "train"),
    "retrain": (runlog.RunLog, "train"),
    "validate": (models, "measure_episodes"),
    "save": (checkpoint.Checkpoints, "save"),
}[event]
real = getattr(owner, name)


def kill():
    os.kill(os.getpid(), signal.Signals[sent])


def watched(*args, **kwargs):
    global left
    if event not in ("train", "retrain") or args[0]._phase == event:
        left -= 1
        if left == 0:
            threading.Timer(delay, kill).start() if delay else kill()
    return real(*args, **kwargs)


setattr(owner, name, watched)
sys.exit(prototypes.main(argv))
"""


def _run(workdir, data_dir, *killer):
    """One process: of the experiment itself, or with a killer in it."""
    start = ["-c", KILLER, *map(str, killer)] if killer else ["-m", EXPERIMENT]
    # One device, as users have it.
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.run(
        [
            *(sys.executable, *start, "--config", "configs/quickstart.py"),
            *("--workdir", str(workdir), "--data.dir", str(data_dir)),
            *("--net.width", "4", "--task.way", "5", "--no-figures"),
            *("--data.train", "train", "--data.val", "val"),
            *("--data.retrain", "trainval", "--val.every", "4", "--val.episodes", "5"),
            *("--val.patience", "2", "--episodes", "60", "--run.save-every", "3"),
            *("--test.episodes", "4", "--test.ways", "5", "--run.log-every", "1"),
            # With so high a rate the loss stops falling soon.
            *("--test.shots", "1", "--optim.learning-rate", "0.03"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


EXPERIMENT = "experiments.prototypes"


def _left(workdir):
    """What must be the same: accuracies, model, last state, phases, lines of the log.

    Only times differ.
    """
    with np.load(workdir / "episodes.npz") as archive:
        episodes = dict(archive)
    model = jaxfer.load_model(workdir)
    assert model.net == Conv4(width=4).build()
    adam = optax.adam(lambda step: 1e-3)
    like = steps.init_train_state({"net": model.params}, model.state, adam)
    with Checkpoints(workdir) as checkpoints:
        last, meta = checkpoints.restore(like)
    del meta["log"]["wall_s"], meta["log"]["rate"]
    lines = read_metrics(workdir)
    for line in lines:
        del line["wall_s"]
    phases = read_json(workdir / "result.json")["phases"]
    weights = jax.device_get((model.params, model.state, last))
    return episodes, weights, meta, lines, phases


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    done = _run(workdir, data_dir)
    assert done.returncode == 0, done.stderr
    left = _left(workdir)
    # Both phases are long enough to be killed in the middle of.
    assert left[-1]["train"]["steps"] > left[-1]["train"]["best_step"] >= 4
    assert left[-1]["retrain"]["steps"] >= 8
    return left


def _check(tmp_path, data_dir, whole, *kills):
    for *kill, sent in kills:
        killed = _run(tmp_path / "run", data_dir, *kill, sent)
        # SIGTERM ends a run in order: it saves, and says how to go on.
        expected = -signal.SIGKILL if sent == "SIGKILL" else 130
        assert killed.returncode == expected, killed.stderr
        assert ("saved; to go on:" in killed.stdout) == (sent == "SIGTERM")
    again = _run(tmp_path / "run", data_dir)
    assert again.returncode == 0, again.stderr
    found = _left(tmp_path / "run")
    # Phases, lines and meta first: a difference there is readable.
    assert found[2:] == whole[2:]
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, found, whole)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_bit_identical(tmp_path, data_dir, whole):
    kills = [
        ("train", 7, 0, "SIGKILL"),
        ("save", 4, 0.004, "SIGKILL"),
        ("validate", 3, 0, "SIGTERM"),
        ("retrain", 5, 0, "SIGKILL"),
    ]
    _check(tmp_path, data_dir, whole, *kills)


def _moments():
    """Random moments, the same each time: event, its number, seconds after it."""
    draw = random.Random(0)
    for i in range(24):
        event = ("train", "validate", "save", "retrain")[i % 4]
        number = draw.randint(1, {"validate": 4, "save": 9}.get(event, 8))
        yield event, number, round(draw.choice([0, 1]) * draw.random() * 0.04, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("event", "number", "delay"), [*_moments()])
def test_kills_at_random_moments(tmp_path, data_dir, whole, event, number, delay):
    _check(tmp_path, data_dir, whole, (event, number, delay, "SIGKILL"))
