"""The command line of the experiment: its refusals, Ctrl-C, other defaults of JAX."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import prototypes
from jaxfer.data import write_cache

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("small_glyphs")


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
        (
            ["--data.val", "val", "--episodes", "40", "--val.every", "50"],
            "episodes = 40 with data.val, needed at least val.every = 50",
        ),
        (["--data.workers", "0"], "found data.workers = 0, needed at least 1"),
        (["--data.limit", "-1"], "found data.limit = -1.0, needed at least 0"),
        (
            ["--optim.schedule", "cosine", "--data.val", "val", "--val.every", "10"],
            "optim.schedule = 'cosine' with data.val, needed one or the other",
        ),
        (
            ["--optim.schedule", "cosine", "--optim.warmup", "40"],
            "optim.warmup = 40, needed 0 to the number of steps less one, 39",
        ),
        (
            ["--data.train", "test", "--task.query", "90"],
            r"needed shot \+ query = ",
        ),
        (
            ["--data.val", "vla", "--val.every", "10"],
            "found split 'vla' of glyphs, needed one of",
        ),
        (
            ["--data.val", "val", "--val.every", "10", "--val.way", "999"],
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


@pytest.mark.slow
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
