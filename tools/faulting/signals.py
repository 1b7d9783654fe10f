"""Trials that kill or stop a run, a study, or one of two processes."""

import random
import signal
import time
from collections.abc import Iterator

from tools.faulting.lab import (
    PAIR,
    SILENT,
    STUDY,
    TRACE,
    Lab,
    Trial,
)

_STOPS = (signal.SIGTERM, signal.SIGINT)
# Seconds in which the launcher ends the other process; 10 of them are its grace.
_BOUND_S = 30


def kill(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that kill a run, and start it again."""
    for n in range(trials):
        # A process that ends earlier was not killed.
        at = rng.uniform(0, 0.9 * lab.seconds)

        def one(n: int = n, at: float = at) -> str:
            workdir = lab.folder / f"kill{n}"
            lab.run(workdir, after=at)
            return lab.went_on(workdir)

        yield f"kill -9 after {at:.2f} s", one


def study(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that kill a study, and start it again."""
    yield from kill(lab.of(STUDY), trials, rng)


def pair(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that kill one of two processes, and start both again."""
    two = lab.of(PAIR)
    for n in range(trials):
        at, process = rng.uniform(0.5, 0.9 * two.seconds), n % 2

        def one(n: int = n, at: float = at, process: int = process) -> str:
            workdir = two.folder / f"pair{n}"
            began = time.monotonic()
            ended = two.run(workdir, after=at, process=process)
            lasted = time.monotonic() - began - at
            # A run that ends earlier was not killed.
            if not ended.code and (workdir / "result.json").exists():
                return two.went_on(workdir)
            if not ended.code or lasted > _BOUND_S:
                return SILENT
            if f"process {process} ended with signal 9" not in ended.shown:
                return SILENT
            return two.went_on(workdir)

        yield f"kill -9 of process {process} after {at:.2f} s", one


def stop(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that ask a run to stop, and start it again."""
    for n in range(trials):
        at, sent = rng.uniform(0.3, 0.9 * lab.seconds), rng.choice(_STOPS)

        def one(n: int = n, at: float = at, sent: signal.Signals = sent) -> str:
            workdir = lab.folder / f"stop{n}"
            first = lab.run(workdir, after=at, sent=sent)
            if "Traceback" in first.shown:
                return TRACE
            # Before the experiment is imported, the system ends the process.
            if first.code not in (0, 130, -sent):
                return SILENT
            if first.code == 130 and "to go on:" not in first.shown:
                return SILENT
            return lab.went_on(workdir)

        yield f"{sent.name} after {at:.2f} s", one


def stop_pair(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that ask one of two processes to stop, and start both again."""
    two = lab.of(PAIR)
    for n in range(trials):
        at, process = rng.uniform(3, 0.9 * two.seconds), n % 2

        def one(n: int = n, at: float = at, process: int = process) -> str:
            workdir = two.folder / f"stop{n}"
            first = two.run(workdir, after=at, sent=signal.SIGTERM, process=process)
            if "Traceback" in first.shown:
                return TRACE
            if first.code not in (0, 130, 128 + signal.SIGTERM):
                return SILENT
            # A process may be stopped while the other one ends the run.
            told = "to go on:" in first.shown or (workdir / "result.json").exists()
            if first.code == 130 and not told:
                return SILENT
            return two.went_on(workdir)

        yield f"SIGTERM to process {process} after {at:.2f} s", one
