"""Runs on a GPU beside the same runs on its CPU: `pytest -m gpu tests/test_gpu.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxfer
from jaxfer.runlog import read_metrics, read_result

_GPU = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not _GPU, reason="needs an NVIDIA GPU"),
]
ROOT = Path(__file__).resolve().parents[1]
# Without a fixed choice of kernels, each process chooses the fastest that it measures.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains the quickstart for a few episodes in a process of its own, by options.

    It returns the folder. A run with the same options is made once.
    """
    done = {}

    def once(platform, *more, flags=""):
        key = platform, *more, flags
        if key not in done:
            done[key] = workdir = tmp_path_factory.mktemp(platform)
            _train(workdir, platform, *more, flags=flags)
        return done[key]

    return once


def _train(workdir, platform, *more, flags=""):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": platform,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": flags,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    line = [
        *(sys.executable, "-m", "experiments.prototypes", "--workdir", str(workdir)),
        *("--config", "configs/quickstart.py", "--no-figures"),
        *("--run.log-every", "1", "--run.save-every", "12"),
        *(more if "--episodes" in more else ("--episodes", "24", *more)),
    ]
    ended = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _logged(workdir, name):
    return np.array([line[name] for line in read_metrics(workdir) if name in line])


def _assert_same_bits(one, other):
    models = [jaxfer.load_model(workdir) for workdir in (one, other)]
    for name in ("params", "state"):
        trees = [getattr(model, name) for model in models]
        jax.tree.map(np.testing.assert_array_equal, *trees)


def test_a_gpu_trains_as_a_cpu_does(run):
    one, other = run("cpu"), run("cuda")
    cpu, gpu = (_logged(workdir, "train/loss") for workdir in (one, other))
    assert len(cpu) == 24
    # The first steps agree; later ones only nearly, since training is chaotic.
    np.testing.assert_allclose(gpu[:2], cpu[:2], rtol=1e-4)
    np.testing.assert_allclose(gpu[:4], cpu[:4], rtol=2e-3)
    np.testing.assert_allclose(gpu, cpu, rtol=0.1)
    results = [
        read_result(workdir, ("metrics",))["metrics"] for workdir in (one, other)
    ]
    for name, metric in results[0].items():
        assert abs(metric["mean"] - results[1][name]["mean"]) < 2, name


def test_steps_per_call_change_nothing_but_rounding(run):
    one, other = run("cuda"), run("cuda", "--run.steps-per-call", "12")
    np.testing.assert_allclose(
        *(_logged(workdir, "train/loss")[:4] for workdir in (one, other)), rtol=1e-4
    )
    assert read_result(other, ("compilations",))["compilations"] == 1


def test_deterministic_operations_give_the_same_bits_also_after_a_resume(run, tmp_path):
    once = run("cuda", flags=DETERMINISTIC)
    resumed = tmp_path / "resumed"
    _train(resumed, "cuda", "--episodes", "12", flags=DETERMINISTIC)
    _train(resumed, "cuda", "--extend", flags=DETERMINISTIC)
    _assert_same_bits(once, resumed)
