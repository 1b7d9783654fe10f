"""Trials in places without room, or with something in the way."""

import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools.faulting.lab import LOST, SAID, SAME, Lab, Trial


def disk(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials in which no file may grow beyond a size, and then any may."""
    for n in range(trials):
        size = int(10 ** rng.uniform(0, 4.5))

        def one(n: int = n, size: int = size) -> str:
            workdir = lab.folder / f"disk{n}"
            found = lab.judged(lab.run(workdir, file_size=size), workdir)
            if found not in (SAME, SAID):
                return found
            return lab.went_on(workdir)

        yield f"files of at most {size} bytes", one


def mounts(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials on small and on read-only disks in memory; none without mount(8)."""
    try:
        with _mounted(lab.folder / "probe", "size=1m"):
            pass
    except (OSError, subprocess.CalledProcessError):
        return
    for n in range(trials):
        size = int(10 ** rng.uniform(1.5, 3.5))

        def small(n: int = n, size: int = size) -> str:
            place = lab.folder / f"mount{n}"
            with _mounted(place, f"size={size}k"):
                workdir = place / "run"
                found = lab.judged(lab.run(workdir), workdir)
                if found not in (SAME, SAID):
                    return found
                subprocess.run(
                    ["mount", "-o", "remount,size=1g", str(place)], check=True
                )
                return lab.went_on(workdir)

        yield f"a disk of {size} kB, then of 1 GB", small

    def read_only() -> str:
        place = lab.folder / "readonly"
        with _mounted(place, "size=1g"):
            workdir = place / "run"
            shutil.copytree(lab.whole, workdir)
            (workdir / "result.json").unlink()
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            found = lab.judged(lab.run(workdir), workdir)
            new = lab.judged(lab.run(place / "new"), place / "new")
            subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
            if (found, new) != (SAID, SAID):
                return new if found == SAID else found
            return lab.went_on(workdir)

    yield "a disk that is read-only, then not", read_only


@contextlib.contextmanager
def _mounted(place: Path, options: str) -> Iterator[None]:
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    subprocess.run(line, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def folders(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials in folders with something in the way."""
    things: dict[str, Callable[[Path], Any]] = {
        "checkpoints is a file": lambda w: (w / "checkpoints").write_text("x"),
        "metrics.jsonl is a folder": lambda w: (w / "metrics.jsonl").mkdir(),
        "metrics.jsonl of another program": (
            lambda w: (w / "metrics.jsonl").write_text("hello\n")
        ),
        "config.json is a folder": lambda w: (w / "config.json").mkdir(),
        "config.json is a list": lambda w: (w / "config.json").write_text("[]"),
        "result.json is empty": lambda w: (w / "result.json").write_text("{}"),
        "lock is a folder": lambda w: (w / "lock").mkdir(),
        "episodes.npz is a folder": lambda w: (w / "episodes.npz").mkdir(),
    }
    for n, (name, make) in enumerate(things.items()):

        def one(n: int = n, make: Callable[[Path], Any] = make) -> str:
            workdir = lab.folder / f"folder{n}"
            workdir.mkdir()
            make(workdir)
            return lab.judged(lab.run(workdir), workdir)

        yield name, one

    def long() -> str:
        workdir = lab.folder / ("x" * 300)
        return lab.judged(lab.run(workdir), workdir)

    def linked() -> str:
        precious, workdir = lab.folder / "precious", lab.folder / "linked"
        workdir.mkdir()
        precious.write_text("kept")
        (workdir / "lock").symlink_to(precious)
        found = lab.judged(lab.run(workdir), workdir)
        return found if precious.read_text() == "kept" else LOST

    yield "a name of 300 letters", long
    yield "lock is a link to a file", linked
