"""Killed at any moment, a run that is begun again ends at the same bits.

A process of its own runs the experiment and sends itself SIGKILL at a chosen moment: so
many calls into a kind of work, and then some milliseconds later, whatever goes on then.
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

from experiments import prototypes
from experiments.prototypes_config import Config, Embedding
from jaxfer import steps
from jaxfer.checkpoint import Checkpoints
from jaxfer.runlog import read_json, read_metrics

ROOT = Path(__file__).resolve().parents[2]
KILLER = """
import os, signal, sys, threading
from experiments import prototypes
from jaxfer import checkpoint, runlog, steps

event, number, delay, *argv = sys.argv[1:]
left, delay = int(number), float(delay)
owner, name = {
    "train": (runlog.RunLog, "train"),
    "retrain": (runlog.RunLog, "train"),
    "validate": (steps, "evaluate_episodes"),
    "save": (checkpoint.Checkpoints, "save"),
}[event]
real = getattr(owner, name)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


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
            *("--val.patience", "2", "--episodes", "60", "--save-every", "3"),
            *("--test.episodes", "4", "--test.ways", "5", "--log-every", "1"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


EXPERIMENT = "experiments.prototypes"


def _left(workdir):
    """What must be the same: accuracies, final state, phases and the lines of the log.

    Only the time of day differs.
    """
    with np.load(workdir / "episodes.npz") as archive:
        episodes = dict(archive)
    config = Config(net=Embedding(width=4))
    params, state = prototypes.make_net(config).init(jax.random.key(0), (28, 28, 1))
    like = steps.init_train_state(params, state, optax.adam(lambda step: 1e-3))
    with Checkpoints(workdir) as checkpoints:
        last, meta = checkpoints.restore(like)
    del meta["log"]["wall_s"], meta["log"]["rate"]
    lines = read_metrics(workdir)
    for line in lines:
        del line["wall_s"]
    phases = read_json(workdir / "result.json")["phases"]
    return episodes, jax.device_get(last), meta, lines, phases


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
    for kill in kills:
        killed = _run(tmp_path / "run", data_dir, *kill)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = _run(tmp_path / "run", data_dir)
    assert again.returncode == 0, again.stderr
    found = _left(tmp_path / "run")
    # Phases, lines and meta first: what differs there is readable.
    assert found[2:] == whole[2:]
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_a_run_killed_again_and_again_ends_at_the_same_bits(tmp_path, data_dir, whole):
    kills = [("train", 7, 0), ("save", 4, 0.004), ("validate", 3, 0), ("retrain", 5, 0)]
    _check(tmp_path, data_dir, whole, *kills)


def _moments():
    """Random ones, the same each time: event, its number, seconds after it."""
    draw = random.Random(0)
    for i in range(24):
        event = ("train", "validate", "save", "retrain")[i % 4]
        number = draw.randint(1, {"validate": 4, "save": 9}.get(event, 8))
        yield event, number, round(draw.choice([0, 1]) * draw.random() * 0.04, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("event", "number", "delay"), [*_moments()])
def test_kills_at_random_moments(tmp_path, data_dir, whole, event, number, delay):
    _check(tmp_path, data_dir, whole, (event, number, delay))
