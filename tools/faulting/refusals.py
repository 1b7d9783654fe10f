"""Trials with configs and numbers that have to be refused."""

import random
from collections.abc import Iterator

from tools.faulting.lab import LOST, ROOT, Lab, Trial


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
