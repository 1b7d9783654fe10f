"""Runs in several processes: the same bits however devices are divided among them."""

import os
import re
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

import jaxfer
from jaxfer.runlog import read_json, read_metrics
from tests.launched import (
    ROOT,
    collectives_of,
    environment,
    launch,
    launcher,
    of_process,
)

LAYOUTS = [(1, 4), (2, 2), (4, 1)]


def _arguments(workdir, data_dir, *more):
    return [
        *("-m", "experiments.prototypes", "--config", "configs/quickstart.py"),
        *("--workdir", str(workdir), "--data.dir", str(data_dir)),
        *("--net.width", "4", "--task.way", "5", "--episodes-per-step", "4"),
        *("--test.ways", "5", "--test.shots", "1", "--test.episodes", "10"),
        *("--run.log-every", "1", "--no-figures", *more),
    ]


def _assert_same(one, other):
    """Parameters, statistics, accuracies and logs are the same; only times differ."""
    models = [jaxfer.load_model(workdir) for workdir in (one, other)]
    for name in ("params", "state"):
        trees = [getattr(model, name) for model in models]
        jax.tree.map(np.testing.assert_array_equal, *trees)
    accuracies = [dict(np.load(workdir / "episodes.npz")) for workdir in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *accuracies)
    logs = [read_metrics(workdir) for workdir in (one, other)]
    for line in (*logs[0], *logs[1]):
        del line["wall_s"]
    assert logs[0] == logs[1] and logs[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """Folder and output of one run on each layout of four devices, by processes."""
    found = {}
    for processes, devices in LAYOUTS:
        workdir = tmp_path_factory.mktemp(f"{processes}x{devices}")
        ended = launch(
            *_arguments(workdir, data_dir, "--episodes", "12"),
            processes=processes,
            devices=devices,
            programs=workdir / "programs" if processes == 2 else None,
        )
        assert ended.returncode == 0, ended.stdout
        found[processes] = workdir, ended
    return found


def test_processes_and_devices_divide_a_run(whole):
    folders = [whole[processes][0] for processes, _ in LAYOUTS]
    for other in folders[1:]:
        _assert_same(folders[0], other)
    found = [read_json(folder / "result.json") for folder in folders]
    assert [result["processes"] for result in found] == [1, 2, 4]
    assert [len(result["devices"]) for result in found] == [4] * 3


def test_processes_say_one_thing_per_step(whole):
    """Gradients and statistics together; no image crosses, and no activation."""
    said = collectives_of(whole[2][0] / "programs")
    assert said and all(step == {"all-reduce": 1} for step in said)


def test_process_0_speaks_for_all(whole):
    _, ended = whole[2]
    assert any("Accuracy on test classes" in line for line in of_process(ended, 0))
    others = [line for line in of_process(ended, 1) if line.strip()]
    assert len(others) == 1 and "2 processes, 4 devices" in others[0]


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes(whole, tmp_path, data_dir):
    for (processes, devices), episodes in zip(LAYOUTS, (4, 8, 12), strict=True):
        more = ("--episodes", str(episodes), "--extend")
        ended = launch(
            *_arguments(tmp_path, data_dir, *more),
            processes=processes,
            devices=devices,
        )
        assert ended.returncode == 0, ended.stdout
    _assert_same(whole[1][0], tmp_path)


@pytest.mark.slow
def test_a_run_goes_on_with_other_numbers_of_devices(tmp_path, data_dir):
    """8 devices, one, two processes, and back: the losses of one but for rounding."""
    for name, parts in (
        ("parts", ((1, 8, "8"), (1, 1, "16"), (2, 1, "24"), (1, 8, "32"))),
        ("whole", ((1, 1, "32"),)),
    ):
        for processes, devices, episodes in parts:
            more = ("--episodes", episodes, "--extend", "--episodes-per-step", "8")
            ended = launch(
                *_arguments(tmp_path / name, data_dir, *more),
                processes=processes,
                devices=devices,
            )
            assert ended.returncode == 0, ended.stdout
    losses = [
        [line["train/loss"] for line in read_metrics(tmp_path / name)]
        for name in ("parts", "whole")
    ]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_one_process_of_two_is_asked_to_stop(tmp_path, data_dir):
    """Both save the same step; the same command then ends as if nothing had been."""
    arguments = _arguments(tmp_path / "run", data_dir, "--episodes", "200")
    started = subprocess.Popen(
        launcher(*arguments, "--run.save-every", "0"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    pids = [
        int(re.fullmatch(r"process \d has number (\d+)", line.strip())[1])
        for line in (started.stdout.readline() for _ in range(2))
    ]
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and len(log.read_bytes().splitlines()) > 3):
        assert started.poll() is None
        time.sleep(0.05)
    os.kill(pids[1], signal.SIGTERM)
    shown, _ = started.communicate(timeout=60)
    assert started.returncode == 130
    (step,) = re.findall(r"stopped at step (\d+), saved; to go on:", shown)
    assert 3 < int(step) < 50
    saved = sorted(p.name for p in (tmp_path / "run/checkpoints/last").iterdir())
    assert saved == [step]
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    for name, processes, devices in (("run", 2, 1), ("alone", 1, 2)):
        arguments = _arguments(tmp_path / name, data_dir, "--episodes", "200")
        ended = launch(*arguments, processes=processes, devices=devices)
        assert ended.returncode == 0, ended.stdout
        assert f"going on from step {step}" in ended.stdout
    _assert_same(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("when", ["testing on", "Conv4 with"])
def test_one_process_of_two_is_asked_to_stop_outside_of_training(
    tmp_path, data_dir, when, process
):
    """It tells the other, and both end; the same command goes on."""
    more = ("--episodes", "20", "--test.episodes", "20000")
    arguments = _arguments(tmp_path / "run", data_dir, *more)
    started = subprocess.Popen(
        launcher(*arguments),
        cwd=ROOT,
        # An import that is interrupted leaves files open.
        env=environment() | {"PYTHONWARNINGS": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    shown = []
    for line in started.stdout:
        shown.append(line)
        if when in line:
            break
    pid = re.fullmatch(r"process \d has number (\d+)", shown[process].strip())[1]
    os.kill(int(pid), signal.SIGTERM)
    rest, _ = started.communicate(timeout=60)
    shown = "".join(shown) + rest
    assert started.returncode == 130, shown
    assert "stopped by SIGTERM; to go on:" in shown
    for unwanted in ("Traceback", "Check failure", "Error"):
        assert unwanted not in shown, shown
    ended = launch(*arguments)
    assert ended.returncode == 0, ended.stdout
    trained = "going on from step 5 of 5" in ended.stdout
    assert trained == (when == "testing on")


def test_what_does_not_fit_is_refused_once(tmp_path, data_dir):
    arguments = _arguments(tmp_path, data_dir, "--episodes-per-step", "3")
    ended = launch(*arguments, "--episodes", "6")
    assert ended.returncode == 2
    (found,) = re.findall("error: .*", ended.stdout)
    assert "expected all 2 devices of 2 processes, got 1" in found


FAILING = """
import sys, time
from experiments.prototypes import train
from experiments.prototypes.__main__ import main
from jaxfer import distributed

def fail(*args):
    if distributed.index():
        if "--start-timeout" in sys.argv:
            time.sleep(60)
        raise ValueError("expected a disk")
    return load(*args)

load, train.load_splits = train.load_splits, fail
sys.exit(main())
"""


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_run(tmp_path, data_dir):
    """It does not wait for the others, which wait for it before the first step."""
    _, _, *arguments = _arguments(tmp_path, data_dir, "--episodes", "4")
    ended = launch("-c", FAILING, *arguments, timeout=90)
    assert ended.returncode == 2
    assert of_process(ended, 1)[-1] == "error: expected a disk"
    assert "process 1 ended with exit code 2: the others are stopped" in ended.stdout


@pytest.mark.slow
def test_a_process_that_reads_its_data_too_slowly_is_named(tmp_path, data_dir):
    more = ("--episodes", "4", "--start-timeout", "20")
    _, _, *arguments = _arguments(tmp_path, data_dir, *more)
    ended = launch("-c", FAILING, *arguments, timeout=90)
    assert ended.returncode == 2
    assert of_process(ended, 0)[-1] == (
        "error: expected all 2 processes at the start of the training within 20 s, got "
        "nothing from [1]"
    )
    assert "process 0 ended with exit code 2: the others are stopped" in ended.stdout


BATCHES = """
import hashlib, sys
import jax, numpy as np
from jaxfer import Optim, Options, Recipe, distributed, linear_head, train_batches
from jaxfer import sharding
from jaxfer.clusters import find_start
from jaxfer.data import Crop, from_arrays
from tests.tiny import Tiny

distributed.initialize(find_start())
pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
images = from_arrays(pixels, np.arange(40) % 4)
recipe = Recipe(Optim("sgd", 0.05), steps=4, batch=8, augment=Crop(1, mirror=True))
key, start = jax.random.key(0), None
for limit in (4.0, 0.0):
    for phase in ("base", "fine-tuned"):
        model = train_batches(
            Tiny(), images, recipe, key=key, head=linear_head(key, 8, 4),
            start=None if phase == "base" else model,
            mesh=sharding.make_mesh(jax.device_count()),
            workdir=f"{sys.argv[1]}/{limit}/{phase}",
            options=Options(progress=False, limit=limit),
        ).model
        arrays = jax.tree.leaves((model.params, model.state, model.head.weight))
        digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in arrays))
        if not distributed.index():
            print("made", phase, digest.hexdigest())
"""


def test_images_are_shared_by_two_processes(tmp_path):
    """Base training and fine-tuning, resident and streamed."""
    pytest.importorskip("grain")
    made = []
    for processes, devices in ((1, 2), (2, 1)):
        folder = tmp_path / str(processes)
        ended = launch(
            *("-c", BATCHES, str(folder)),
            processes=processes,
            devices=devices,
            programs=folder / "programs" if processes > 1 else None,
        )
        assert ended.returncode == 0, ended.stdout
        made.append([x for x in of_process(ended, 0) if x.startswith("made")])
    # BatchNorm has the statistics of the whole batch: it says more than gradients.
    said = collectives_of(tmp_path / "2" / "programs")
    assert said and all({*step} == {"all-reduce"} for step in said)
    assert made[0] == made[1] and len(made[0]) == 4
    assert made[0][:2] == made[0][2:]
