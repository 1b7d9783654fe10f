"""Run commands with faults, and judge how they ended."""

import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxfer.runlog import read_result
from jaxfer.tensors import json_digest

ROOT = Path(__file__).resolve().parents[2]
# How a trial may end; the last three are bad.
SAME, SAID, NAMED, LOST, SILENT, TRACE = (
    "same result",
    "refused in one line",
    "damage named, same result",
    "other result",
    "no message",
    "traceback",
)
BAD = (LOST, SILENT, TRACE)
# Runs a command whose files may not grow beyond a size.
_LIMITED = """
import os, resource, signal, sys
size = int(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Subject(NamedTuple):
    """What is run.

    Attributes:
        experiment: its name.
        config: its config, a file in configs/.
        options: options of all its runs.
        processes: how many processes share a run, started by tools/launch/local.py.
    """

    experiment: str
    config: str
    options: tuple[str, ...]
    processes: int = 1


_SMALL = (
    *("--net.width", "4", "--task.way", "5", "--episodes", "60", "--no-figures"),
    *("--test.ways", "5", "--test.shots", "1", "--test.episodes", "10"),
    *("--run.save-every", "20", "--run.log-every", "5"),
)
RUN = Subject("prototypes", "quickstart.py", _SMALL)
PAIR = RUN._replace(options=(*_SMALL, "--episodes-per-step", "2"), processes=2)
STUDY = Subject(
    "layer_transfer",
    "glyphs_layer_transfer.py",
    (
        *("--net.width", "4", "--net.dense", "16", "--data.classes", "20"),
        *("--layers", "1", "--epochs", "4", "--batch", "25", "--no-figures"),
        *("--similar.splits", "0", "--similar.treatments", "base", "AnB"),
        *("--dissimilar.splits", "--untrained.splits", "--run.save-every", "5"),
    ),
)


class Ended(NamedTuple):
    """How a process ended: its exit code, and what it printed."""

    code: int
    shown: str


class Lab:
    """A folder for trials, with a finished run to compare with.

    Attributes:
        folder: the folder.
        subject: what is run.
        whole: the folder of the finished run.
        bits: the hash of its result.
        seconds: how long a run takes whose programs are compiled.
    """

    def __init__(
        self, folder: Path, subject: Subject = RUN, outputs: list[str] | None = None
    ) -> None:
        """Run once without a fault, and once more to know how long that takes."""
        self.folder, self.subject = folder, subject
        # Laboratories of several subjects share what was printed.
        self._outputs = [""] if outputs is None else outputs
        folder.mkdir(parents=True, exist_ok=True)
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.whole = folder / "whole"
        for again in range(2):
            began = time.monotonic()
            ended = self.run(folder / f"whole{again or ''}")
            self.seconds = time.monotonic() - began
            if ended.code:
                raise SystemExit(f"the run without a fault ended so:\n{ended.shown}")
        self.bits = self.bits_of(self.whole)
        self.of = functools.cache(self._of)

    def _of(self, subject: Subject) -> "Lab":
        """Return the laboratory of another subject, in a folder of this one."""
        name = f"{subject.experiment}{subject.processes}"
        return Lab(self.folder / name, subject, self._outputs)

    @property
    def last(self) -> str:
        """What the last process of a trial printed."""
        return self._outputs[-1]

    def command(self, workdir: Path | str, *more: str, config: str = "") -> list[str]:
        """Return the command that runs the experiment in a folder."""
        subject, start = self.subject, []
        if subject.processes > 1:
            start = [sys.executable, "tools/launch/local.py", "--cpu-devices", "1"]
            start += ["-n", str(subject.processes), "--grace", "10", "--"]
        file = config or str(ROOT / "configs" / subject.config)
        start += [sys.executable, "-m", f"experiments.{subject.experiment}"]
        start += ["--config", file, "--workdir", str(workdir)]
        return [*start, *subject.options, *more]

    def run(
        self,
        workdir: Path | str,
        *more: str,
        config: str = "",
        after: float | None = None,
        sent: signal.Signals = signal.SIGKILL,
        process: int | None = None,
        file_size: int | None = None,
    ) -> Ended:
        """Run to the end, or send a signal after some seconds.

        Args:
            workdir: the folder of the run.
            *more: options of the experiment.
            config: the path of another config.
            after: seconds until the signal; default: none is sent.
            sent: the signal.
            process: which of several processes gets it; default: the launcher.
            file_size: the size beyond which no file may grow.
        """
        command, environ = self.command(workdir, *more, config=config), self.environ
        if file_size is not None:
            # A program from the cache is a file too.
            environ = {**environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
            command = [sys.executable, "-c", _LIMITED, str(file_size), *command]
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert running.stdout is not None  # noqa: S101
        begun, pid = "", running.pid
        if process is not None:
            # The launcher prints the numbers of its processes first.
            first = [running.stdout.readline() for _ in range(self.subject.processes)]
            begun, pid = "".join(first), int(first[process].split()[-1])
        try:
            shown, _ = running.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            try:
                os.kill(pid, sent)
            except ProcessLookupError:
                pass  # It has just ended.
            shown, _ = running.communicate(timeout=300)
        self._outputs[:] = [begun + shown]
        return Ended(running.returncode, self.last)

    def bits_of(self, workdir: Path) -> str:
        """Return the hash of the metrics, accuracies and networks of a run or study."""
        import jax
        import numpy as np

        import jaxfer

        metrics = read_result(workdir, ("metrics",))["metrics"]
        found = hashlib.sha256(json_digest(metrics).encode())
        # Finished networks of a study are not read again.
        for path in sorted(workdir.glob("model.safetensors")):
            model = jaxfer.load_model(path)
            for x in jax.tree.leaves((model.params, model.state)):
                found.update(np.asarray(x).tobytes())
        if (workdir / "episodes.npz").is_file():
            with np.load(workdir / "episodes.npz") as episodes:
                for name in sorted(episodes):
                    found.update(episodes[name].tobytes())
        return found.hexdigest()

    def judged(self, ended: Ended, workdir: Path, word: str = "") -> str:
        """Return how a trial ended.

        Args:
            ended: the last process of the trial.
            workdir: its folder.
            word: what it says if it found the damage.
        """
        if "Traceback" in ended.shown:
            return TRACE
        lines = [x for x in ended.shown.splitlines() if "error: " in x[:11]]
        if ended.code == 2 and len(lines) == 1:
            return SAID
        if ended.code:
            return SILENT
        if self.bits_of(workdir) != self.bits:
            return LOST
        return NAMED if word and word in ended.shown else SAME

    def went_on(self, workdir: Path) -> str:
        """Run again, and return how that ended: a refusal is bad."""
        found = self.judged(self.run(workdir), workdir)
        return LOST if found == SAID else found

    def copied(self, name: str) -> Path:
        """Return a copy of the finished run."""
        place = self.folder / name
        shutil.copytree(self.whole, place)
        return place


# The name of a trial, and what makes it and returns how it ended.
Trial = tuple[str, Callable[[], str]]
