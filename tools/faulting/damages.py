"""Trials that damage the files of a run or of a study."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.faulting.lab import STUDY, Lab, Trial


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


def _unfinished(
    lab: Lab, place: str, word: str, file: Path, name: str, rng: random.Random
) -> str:
    """Damage a file of a run that lacks its result, and return how it went on."""
    workdir = lab.copied(place)
    (workdir / "result.json").unlink()
    DAMAGES[name](workdir / file, rng)
    return lab.judged(lab.run(workdir), workdir, word)


def damage(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that damage the newest checkpoint of a run that is not finished."""
    newest = max((lab.whole / "checkpoints/last").iterdir(), key=lambda p: int(p.name))
    files = sorted(p.relative_to(lab.whole) for p in newest.rglob("*") if p.is_file())
    for n in range(trials):
        name, file = rng.choice([*DAMAGES]), rng.choice(files)

        def one(n: int = n, name: str = name, file: Path = file) -> str:
            return _unfinished(lab, f"damage{n}", "is damaged", file, name, rng)

        yield f"{file} {name}", one


def files(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that damage the JSON files of a finished run."""
    for n in range(trials):
        name = rng.choice([*DAMAGES])
        file = rng.choice(["config.json", "result.json", "metrics.jsonl"])

        def one(n: int = n, name: str = name, file: str = file) -> str:
            workdir = lab.copied(f"files{n}")
            DAMAGES[name](workdir / file, rng)
            return lab.judged(lab.run(workdir), workdir)

        yield f"{file} {name}", one


def members(lab: Lab, trials: int, rng: random.Random) -> Iterator[Trial]:
    """Yield trials that damage the records and networks of a study's members."""
    of_study = lab.of(STUDY)
    every = sorted(
        p.relative_to(of_study.whole)
        for p in (of_study.whole / "members").rglob("*")
        if p.name in ("record.json", "model.safetensors")
    )
    for n in range(trials):
        name, file = rng.choice([*DAMAGES]), rng.choice(every)

        def one(n: int = n, name: str = name, file: Path = file) -> str:
            return _unfinished(of_study, f"members{n}", "damaged", file, name, rng)

        yield f"{file} {name}", one
