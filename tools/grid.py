"""Run a config once for every combination of some options.

    python tools/grid.py configs/cifar_fs_figure2.py --workdir runs/figure2
        --vary task.way 5 20 --vary distance sqeuclidean cosine --vary seed 0 1
        -- --data.dir DIR

Runs go one after another into folders below --workdir that are named after the values.
The same line again resumes, and skips finished runs. Options after -- are passed to
every run. A combination with all settings of a --skip is left out. The exit code is 1
if a run failed, and 130 after Ctrl-C.
"""

import argparse
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxfer.config import clean_errors


def combinations(
    vary: Sequence[Sequence[str]], skip: Sequence[Sequence[str]]
) -> Iterator[dict[str, str]]:
    """Yield the options of each run.

    Args:
        vary: the name of an option and its values, for each option.
        skip: lists of `name=value`.

    Raises:
        ValueError: an option without values, or a setting that no run has.
    """
    if empty := [name for name, *values in vary if not values]:
        raise ValueError(f"expected values for --vary {empty[0]}, got none")
    names = [name for name, *_ in vary]
    known = {f"{name}={value}" for name, *values in vary for value in values}
    if odd := [setting for group in skip for setting in group if setting not in known]:
        raise ValueError(f"expected settings of --vary in --skip, got {odd[0]!r}")
    for values in itertools.product(*(values for _, *values in vary)):
        run = dict(zip(names, values, strict=True))
        settings = {f"{name}={value}" for name, value in run.items()}
        if not any(settings >= {*group} for group in skip):
            yield run


def folder_of(run: Mapping[str, str]) -> str:
    """Return the name of the folder of a run, such as `way5_seed0`."""
    words = (f"{name.rpartition('.')[2]}{value}" for name, value in run.items())
    return re.sub(r"[^\w.-]", "", "_".join(words))


def call(line: Sequence[str | Path]) -> int:
    """Run a command to its end, and return its exit code.

    Ctrl-C reaches the command too, which saves its state and ends with 130.
    """
    with subprocess.Popen(line) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--vary", nargs="+", action="append", default=[])
    parser.add_argument("--skip", nargs="+", action="append", default=[])
    args = parser.parse_args(argv[:at])
    with clean_errors():
        return run_all(args, argv[at + 1 :])


def run_all(args: argparse.Namespace, more: Sequence[str]) -> int:
    """Run all combinations that are not finished."""
    named = re.search(r"python -m (experiments\.\w+)", args.config.read_text())
    if named is None:
        raise ValueError(f"expected `python -m experiments...` in {args.config}")
    runs = [*combinations(args.vary, args.skip)]
    folders = [folder_of(run) for run in runs]
    if twice := [name for name in folders if folders.count(name) > 1]:
        raise ValueError(f"expected a folder per run, got {twice[0]} twice")
    failed = 0
    for number, (run, folder) in enumerate(zip(runs, folders, strict=True), 1):
        workdir = args.workdir / folder
        print(f"{number} of {len(runs)}: {workdir}", flush=True)
        options = [x for name, value in run.items() for x in (f"--{name}", value)]
        line = [sys.executable, "-m", named[1], "--config", args.config]
        code = call([*line, "--workdir", workdir, *options, *more])
        if code == 130:
            return code
        failed += code != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
