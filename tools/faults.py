"""Try what signals, disks and damaged files do to a run, and print how it ended.

    python tools/faults.py
    python tools/faults.py --kinds kill stop --trials 5 --json faults.json

Every trial starts an experiment in processes of its own, on generated handwriting, and
is compared with a run without a fault. A trial with a signal or a full disk is good if
the last command gives the same bits and metrics; one of `damage` and `members` also if
the damage was named; the others also if one line says what is wrong and the exit code
is 2. Everything else is listed, and the exit code is then 1.

    kill     kill -9 at a random moment, then the same command again
    study    the same for a study of layer transfer
    pair     kill -9 of one of two processes, then both again
    stop     SIGTERM or SIGINT at a random moment, then the same command again
    stop2    SIGTERM to one of two processes, then both again
    damage   a flipped byte, a cut or a missing file in the newest checkpoint
    members  the same in the records and networks of a study
    files    the same in config.json, result.json and metrics.jsonl
    disk     files that may not grow beyond a random size, then the same command again
    mounts   small and read-only disks, then larger and writable ones (needs root)
    folders  files where folders should be, and the other way round; names too long
    configs  config files with faults
    numbers  options outside their ranges
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from jaxfer.runlog import write_json
from tools.faulting import damages, places, refusals, signals
from tools.faulting.lab import BAD, NAMED, SAID, SAME, Lab

KINDS = {
    "kill": signals.kill,
    "study": signals.study,
    "pair": signals.pair,
    "stop": signals.stop,
    "stop2": signals.stop_pair,
    "damage": damages.damage,
    "members": damages.members,
    "files": damages.files,
    "disk": places.disk,
    "mounts": places.mounts,
    "folders": places.folders,
    "configs": refusals.config_files,
    "numbers": refusals.numbers,
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
    bad: list[str] = []
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
