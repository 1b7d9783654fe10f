"""Start real processes on this machine, as `tools/launch/local.py` does."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# XLA splits its work by the number of threads, which is at least the number of devices
# of a process. With a fixed one, results do not depend on how devices are divided.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def environment(programs=None):
    """Environment variables of processes that are compared.

    With a folder, XLA writes the text of every program that it compiles there.
    """
    own = {
        "XLA_FLAGS": FLAGS,
        "NPROC": "4",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    if programs is not None:
        own["XLA_FLAGS"] += f" --xla_dump_to={programs} --xla_dump_hlo_as_text"
        # A program from the cache is not compiled.
        own["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return {**os.environ, **own}


def collectives_of(programs):
    """The collectives of each step that was compiled, with their numbers."""
    steps = sorted(programs.glob("*.jit_call.*after_optimizations.txt"))
    words = r" ((?:all-|collective|reduce-scatter)[\w-]*)\("
    return [dict(Counter(re.findall(words, step.read_text()))) for step in steps]


def launcher(*command, processes=2, devices=1):
    """The command that runs Python with arguments in several processes."""
    start = (sys.executable, "tools/launch/local.py", "-n", str(processes))
    return [*start, "--cpu-devices", str(devices), "--", sys.executable, *command]


def launch(*command, processes=2, devices=1, timeout=240, programs=None):
    """Run Python with arguments in several processes, and return how they ended."""
    return subprocess.run(
        launcher(*command, processes=processes, devices=devices),
        cwd=ROOT,
        env=environment(programs),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def of_process(ended, index):
    """The lines that one process printed, without those of its collectives."""
    mark = f"[{index}] "
    lines = [x.removeprefix(mark) for x in ended.stdout.splitlines() if mark in x[:4]]
    return [line for line in lines if "[Gloo]" not in line]
