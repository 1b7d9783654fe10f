"""Try what signals, disks and damaged files do to a run, and print how it ended.

    python tools/faults.py
    python tools/faults.py --kinds kill stop --trials 5 --json faults.json

Every trial starts `python -m experiments.prototypes` in processes of its own, on
generated handwriting, and is compared with a run without a fault. A trial of `kill`,
`stop` and `disk` is good if the last command gives the same bits and metrics; one of
`damage` also if the damage was named; the others also if one line says what is wrong
and the exit code is 2. Everything else is listed, and the exit code is then 1.

    kill     kill -9 at a random moment, then the same command again
    stop     SIGTERM or SIGINT at a random moment, then the same command again
    damage   a flipped byte, a cut or a missing file in the newest checkpoint
    files    the same in config.json, result.json and metrics.jsonl
    disk     files that may not grow beyond a random size, then the same command again
    folders  files where folders should be, and the other way round; names too long
    configs  config files with faults
    numbers  options outside their ranges
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from jaxfer.runlog import read_result, write_json
from jaxfer.tensors import json_digest

ROOT = Path(__file__).resolve().parents[1]
_OPTIONS = (
    *("--net.width", "4", "--task.way", "5", "--episodes", "60", "--no-figures"),
    *("--test.ways", "5", "--test.shots", "1", "--test.episodes", "10"),
    *("--run.save-every", "20", "--run.log-every", "5"),
)
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


class Ended(NamedTuple):
    """How a process ended: its exit code, and what it printed."""

    code: int
    shown: str


class Lab:
    """A folder for trials, with a finished run to compare with."""

    def __init__(self, folder: Path) -> None:
        """Run once without a fault, and once more to know how long that takes."""
        self.folder, self.last = folder, ""
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

    def command(self, workdir: Path | str, *more: str, config: str = "") -> list[str]:
        """Return the command that runs an experiment in a folder."""
        file = config or str(ROOT / "configs" / "quickstart.py")
        start = [sys.executable, "-m", "experiments.prototypes", "--config", file]
        return [*start, "--workdir", str(workdir), *_OPTIONS, *more]

    def run(
        self,
        workdir: Path | str,
        *more: str,
        config: str = "",
        after: float | None = None,
        sent: signal.Signals = signal.SIGKILL,
        file_size: int | None = None,
    ) -> Ended:
        """Run to the end, or send a signal after some seconds."""
        command, environ = self.command(workdir, *more, config=config), self.environ
        if file_size is not None:
            # A program from the cache is a file too.
            environ = {**environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
            command = [sys.executable, "-c", _LIMITED, str(file_size), *command]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            shown, _ = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.send_signal(sent)
            shown, _ = process.communicate(timeout=300)
        self.last = shown
        return Ended(process.returncode, shown)

    def bits_of(self, workdir: Path) -> str:
        """Return the hash of a run's model, metrics and accuracies."""
        import jax
        import numpy as np

        import jaxfer

        model = jaxfer.load_model(workdir)
        metrics = read_result(workdir, ("metrics",))["metrics"]
        found = hashlib.sha256(json_digest(metrics).encode())
        for x in jax.tree.leaves((model.params, model.state)):
            found.update(np.asarray(x).tobytes())
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
        lines = [x for x in ended.shown.splitlines() if x.startswith("error: ")]
        if ended.code == 2 and len(lines) == 1:
            return SAID
        if ended.code:
            return SILENT
        if self.bits_of(workdir) != self.bits:
            return LOST
        return NAMED if word and word in ended.shown else SAME

    def copied(self, number: int) -> Path:
        """Return a copy of the finished run."""
        place = self.folder / f"copy{number}"
        shutil.copytree(self.whole, place)
        return place


Trial = tuple[str, Callable[[], str]]


def _same(end: str) -> str:
    """How a run ended that has to go on: a refusal is bad."""
    return LOST if end == SAID else end


def kill(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that kill a run, and start it again."""
    for n in range(trials):
        # A process that ends earlier was not killed.
        at = rng.uniform(0, 0.9 * lab.seconds)

        def one(n: int = n, at: float = at) -> str:
            workdir = lab.folder / f"kill{n}"
            lab.run(workdir, after=at)
            return _same(lab.judged(lab.run(workdir), workdir))

        yield f"kill -9 after {at:.2f} s", one


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
            return _same(lab.judged(lab.run(workdir), workdir))

        yield f"{sent.name} after {at:.2f} s", one


_STOPS = (signal.SIGTERM, signal.SIGINT)


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) or 1)])


def _remove(path: Path, rng: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "flipped": _flip,
    "cut": _cut,
    "gone": _remove,
}


def damage(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that damage the newest checkpoint of a run that is not finished."""
    newest = max((lab.whole / "checkpoints/last").iterdir(), key=lambda p: int(p.name))
    files = sorted(p.relative_to(lab.whole) for p in newest.rglob("*") if p.is_file())
    for n in range(trials):
        name, file = rng.choice([*DAMAGES]), rng.choice(files)

        def one(n: int = n, name: str = name, file: Path = file) -> str:
            workdir = lab.copied(n)
            (workdir / "result.json").unlink()
            DAMAGES[name](workdir / file, rng)
            return lab.judged(lab.run(workdir), workdir, "is damaged")

        yield f"{file} {name}", one


def files(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that damage the JSON files of a finished run."""
    for n in range(trials):
        name = rng.choice([*DAMAGES])
        file = rng.choice(["config.json", "result.json", "metrics.jsonl"])

        def one(n: int = n, name: str = name, file: str = file) -> str:
            workdir = lab.copied(1000 + n)
            DAMAGES[name](workdir / file, rng)
            return lab.judged(lab.run(workdir), workdir)

        yield f"{file} {name}", one


def disk(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials in which no file may grow beyond a size, and then any may."""
    for n in range(trials):
        size = int(10 ** rng.uniform(0, 4.5))

        def one(n: int = n, size: int = size) -> str:
            workdir = lab.folder / f"disk{n}"
            found = lab.judged(lab.run(workdir, file_size=size), workdir)
            if found not in (SAME, SAID):
                return found
            return _same(lab.judged(lab.run(workdir), workdir))

        yield f"files of at most {size} bytes", one


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


def config_files(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials with config files that have faults."""
    good = (ROOT / "configs" / "quickstart.py").read_text()
    faults = {
        "a syntax error": good + "\nx = (",
        "a missing import": "import nosuch\n" + good,
        "an exception": good + "\n1 / 0",
        "an exit": good + "\nraise SystemExit(0)",
        "no text": good + "\0",
        "an unknown field": good.replace("episodes=300", "epizodes=300"),
        "a wrong type": good.replace("episodes=300", "episodes='many'"),
        "published = 7": good + "\npublished = 7",
        "a published value without a name": good + "\npublished = [{'nome': 'x'}]",
        "no config": "x = 1",
    }
    for n, (name, text) in enumerate(faults.items()):

        def one(n: int = n, text: str = text) -> str:
            path, workdir = lab.folder / f"config{n}.py", lab.folder / f"refused{n}"
            path.write_text(text)
            found = lab.judged(lab.run(workdir, config=str(path)), workdir)
            # A refused run makes no folder.
            return LOST if workdir.exists() else found

        yield name, one


def numbers(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials with options outside their ranges."""
    from experiments.prototypes.config import Config
    from jaxfer.ranges import ranges_of

    every = list(ranges_of(Config()))
    for n in range(trials):
        name, _, allowed = rng.choice(every)
        option = f"--{name.replace('_', '-')}"

        def one(n: int = n, option: str = option, low: float = allowed.low) -> str:
            workdir = lab.folder / f"number{n}"
            found = lab.judged(lab.run(workdir, option, f"{low - 1:g}"), workdir)
            return LOST if workdir.exists() else found

        yield f"{option} {allowed.low - 1:g}", one


KINDS = {
    "kill": kill,
    "stop": stop,
    "damage": damage,
    "files": files,
    "disk": disk,
    "folders": folders,
    "configs": config_files,
    "numbers": numbers,
}


def table(counts: dict[str, Counter[str]]) -> str:
    """Return the counts as Markdown, one row per kind."""
    known = set().union(*counts.values())
    ends = [end for end in (SAME, SAID, NAMED, *BAD) if end in known]
    rows = [["fault", "trials", *ends], ["---"] * (2 + len(ends))]
    for kind, count in counts.items():
        row = [kind, str(count.total()), *(str(count[end] or "") for end in ends)]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS])
    parser.add_argument("--trials", type=int, default=20, help="of each random kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the counts")
    args = parser.parse_args(argv)
    counts: dict[str, Counter[str]] = {}
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        for kind in args.kinds:
            rng = random.Random(f"{args.seed} {kind}")
            counts[kind] = Counter()
            trials = list(KINDS[kind](lab, args.trials, rng))
            for name, one in tqdm(trials, kind, leave=False):
                found = one()
                counts[kind][found] += 1
                if found in BAD:
                    tail = lab.last.strip().splitlines()[-12:]
                    bad.append("\n    ".join([f"{kind}: {name}: {found}", *tail]))
    print(table(counts))
    for line in bad:
        print(line)
    if args.json:
        write_json(args.json, {k: dict(c) for k, c in counts.items()} | {"bad": bad})
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
