"""Draw the figures and tables of a paper from the result of a finished run.

    python tools/paper_figures.py DIR [DIR ...]

This writes to DIR/figures: for a layer-transfer study Figures 2 and 3, Table 1 and the
first-layer filters of Yosinski et al. 2014; for an imprinting study Tables 1 to 4 and
Figures 3 to 8 of Qi et al. 2018. It prints which findings of the paper are seen. The
exit code is 2 if the result is missing or damaged.
"""

import argparse
import sys
from pathlib import Path

from experiments.imprinting import figures as imprinting
from experiments.layer_transfer import figures as layer_transfer
from jaxfer.claims import findings_table
from jaxfer.config import clean_errors
from jaxfer.runlog import read_result

FIGURES = {"layer_transfer": layer_transfer, "imprinting": imprinting}
_NEEDED = ("config", "findings", "rows")


def draw(workdir: Path) -> None:
    """Draw the figures of one run, and print their paths and its findings."""
    result = read_result(workdir)
    if result["experiment"] not in FIGURES:
        raise ValueError(
            f"expected a result of {' or '.join(FIGURES)} in {workdir}, got one of "
            f"{result['experiment']}, which draws its own figures"
        )
    result = read_result(workdir, _NEEDED)
    try:
        for drawn in FIGURES[result["experiment"]].draw(workdir, result):
            print(drawn)
        print(findings_table(result["findings"]))
    except KeyError as e:
        raise ValueError(
            f"{workdir / 'result.json'} is damaged: expected an entry {e}, got none"
        ) from e


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="DIR")
    args = parser.parse_args()
    with clean_errors():
        for workdir in args.workdirs:
            draw(workdir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
