"""The command line of the experiment: its refusals, Ctrl-C, other defaults of JAX."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.prototypes import __main__ as prototypes
from jaxfer.data import write_cache
from jaxfer.data.sources import SOURCES
from jaxfer.nets import NAMES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("small_glyphs")


def _command(workdir, *options):
    return [
        *(sys.executable, "-m", "experiments.prototypes"),
        *("--config", "configs/quickstart.py", "--workdir", str(workdir)),
        *("--net.width", "4", "--task.way", "5", "--test.episodes", "4"),
        *(
            "--episodes",
            "40",
            "--run.save-every",
            "10",
            "--no-figures",
            "--mesh.data",
            "1",
        ),
        *options,
    ]


def test_ctrl_c_on_the_command_line_saves_and_says_how_to_go_on(tmp_path, data_dir):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    many = (
        "--episodes",
        "100000",
        "--run.save-every",
        "100000",
        "--run.log-every",
        "1",
    )
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


COSINE = ("--optim.schedule", "cosine", "--val.every", "10")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.name", "glyhps"], "'glyhps'.* mean 'glyphs'"),
        (
            ["--data.name", "omniglot", "--data.dir", "nowhere"],
            "expected omniglot.cache or omniglot .* nowhere.*jaxfer prepare",
        ),
        (["--data.test", "tset"], "'tset' of glyphs"),
        (["--data.val", "vla", "--val.every", "10"], "'vla' of glyphs"),
        (["--data.retrain", "val"], "expected data.val with data.retrain = 'val', got"),
        (["--task.way", "1"], "expected task.way of at least 2, got 1"),
        (["--task.way", "5000"], "least way = 5000 classes, got .* in glyphs trainval"),
        (["--task.shot", "0"], "expected task.shot of at least 1, got 0"),
        (
            ["--task.query", "90"],
            r"expected shot \+ n_query = 91 images, got 20 in class .* of glyphs train",
        ),
        (
            ["--data.train", "test"],
            "data.train and data.test with nothing in common, got 'test' and 'test'",
        ),
        (
            ["--data.val", "val"],
            "data.train and data.val with nothing in common, got 'trainval' and 'val'",
        ),
        (["--start-timeout", "0"], "expected --start-timeout of at least 1, got 0"),
        (
            ["--coordinator-address", "localhost", "--process-id", "0"],
            r"as options or variables, got none of \['JAX_NUM_PROCESSES'\]",
        ),
        (["--test.query", "0"], "expected test.query of at least 1, got 0"),
        (["--test.episodes", "0"], "expected test.episodes of at least 1, got 0"),
        (["--test.ways"], r"one or more different values for test.ways, got \[\]"),
        (["--test.ways", "1"], r"expected test.ways of at least 2, got \[1\]"),
        (["--test.ways", "5", "5"], r"different values for test.ways, got \[5, 5\]"),
        (
            ["--test.shots", "1", "6"],
            r"= 21 images, got 20 in class 'angular08/character00' of glyphs test",
        ),
        (["--episodes", "-4"], "expected episodes of at least 0, got -4"),
        (["--episodes"], "--episodes"),
        (["--episodes", "many"], "--episodes: .*'many'"),
        (
            ["--episodes-per-step", "0"],
            "expected episodes_per_step of at least 1, got 0",
        ),
        (
            ["--episodes-per-step", "3"],
            "episodes to be a multiple of episodes_per_step = 3, got 40",
        ),
        (["--seed", "-1"], r"expected seed in \[0, 2\^32\), got -1"),
        (["--optim.learning-rate", "-1"], "optim.learning_rate .* above 0, got -1"),
        (["--optim.learning-rate", "0"], "optim.learning_rate .* above 0, got 0"),
        (["--optim.learning-rate", "nan"], "optim.learning_rate .* above 0, got nan"),
        (["--optim.decay-every", "-7"], "optim.decay_every of at least 1, got -7"),
        (
            ["--optim.schedule", "cosine", "--optim.warmup", "40"],
            r"expected optim.warmup in \[0, 1\), got 40",
        ),
        (
            [*COSINE, "--data.train", "train", "--data.val", "val"],
            "expected no data.val with optim.schedule = 'cosine'.*got 'val'",
        ),
        (["--val.every", "0"], "expected val.every of at least 1, got 0"),
        (
            ["--data.train", "train", "--data.val", "val", "--val.every", "50"],
            "expected episodes of at least val.every = 50 with data.val, got 40",
        ),
        (
            [
                "--data.train",
                "train",
                "--data.val",
                "val",
                "--val.every",
                "10",
                "--val.way",
                "999",
            ],
            "least way = 999 classes, got .* in glyphs val",
        ),
        (
            [
                "--data.train",
                "train",
                "--data.val",
                "val",
                "--val.every",
                "3",
                "--episodes-per-step",
                "2",
            ],
            "expected val.every to be a multiple of episodes_per_step = 2, got 3",
        ),
        (["--net.name", "Conv5"], "a network of .*'Conv4'.* import path .*got 'Conv5'"),
        (["--net.name", "eight"], "'eight' is now called AlexNetSmall"),
        (["--net.name", "Flatten"], r"Flatten has no option \['width'\]"),
        (
            ["--net.name", "ResNet", "--net.width", "None", "--net.depth", "19"],
            "expected depth of 18, 34 or 50, got 19",
        ),
        (["--net.width", "0"], "expected net.width of at least 1, got 0"),
        (["--augment.rotate", "-3"], "expected augment.rotate of at least 0, got -3"),
        (["--crop.shift", "-1"], "expected crop.shift of at least 0, got -1"),
        (["--crop.side", "0"], "expected crop.side of at least 1, got 0"),
        (["--crop.side", "29"], "crop side from 1 to 28 for images of 28x28, got 29"),
        (
            ["--data.side", "14", "--crop.side", "15"],
            "crop side from 1 to 14 for images of 14x14, got 15",
        ),
        (["--distance", "l1"], "'l1'.*sqeuclidean.*cosine"),
        (["--temperature", "0"], "temperature to be a finite number above 0, got 0"),
        (["--temperature", "hot"], "sqrt_dim.*'hot'"),
        (["--mesh.data", "0"], "expected mesh.data of at least 1, or -1, got 0"),
        (["--mesh.data", "2"], "to be a multiple of the 2 devices of mesh.data, got 1"),
        (
            ["--task.way", "2000"],
            r"way = 2000 classes, got \d+ .*, test has \d+\): change --task.way",
        ),
        (["--mesh.data", "9", "--episodes", "9", "--episodes-per-step", "9"], "got 9"),
        (["--run.steps-per-call", "0"], "steps_per_call of at least 1, got 0"),
        (["--run.log-every", "0"], "log_every of at least 1, got 0"),
        (["--run.workers", "0"], "workers of at least 1, got 0"),
        (
            ["--run.limit", "-1"],
            "run.limit to be a finite number of at least 0, got -1",
        ),
        # Names of earlier versions.
        (["--data.limit", "0"], "unknown option --data.limit: .* --run.limit?"),
        (["--data.workers", "3"], "unknown option --data.workers: .* --run.workers?"),
        (["--save-every", "3"], "unknown option --save-every: .* --run.save-every?"),
        (["--net.kind", "x"], "unknown option --net.kind"),
        (["--optim.halve-every", "3"], "--optim.halve-every: .* --optim.decay-every?"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused_in_one_line(tmp_path, capsys, options, message):
    argv = _command(tmp_path / "run", *options)[3:]
    with pytest.raises(SystemExit) as e:
        prototypes.main(argv)
    assert e.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1
    assert re.search(message, shown), shown
    assert not (tmp_path / "run").exists()


def test_the_help_lists_networks_and_data_sets(capsys):
    with pytest.raises(SystemExit) as e:
        prototypes.main(["--help"])
    assert e.value.code == 0
    shown = capsys.readouterr().out
    for name in (*NAMES, *SOURCES, "import path"):
        assert name in shown


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
