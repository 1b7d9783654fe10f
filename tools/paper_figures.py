"""Draw the figures and tables of a paper from the result of a finished run.

    python tools/paper_figures.py DIR [DIR ...]

draws, of a layer-transfer study, Figures 2 and 3, Table 1 and the first-layer filters
of Yosinski et al. 2014 under DIR/figures, and of an imprinting study Tables 1 to 4 and
Figures 3 to 8 of Qi et al. 2018; and prints which of the paper's findings are seen.
"""

import argparse
import sys
from pathlib import Path

from experiments import imprinting_figures, layer_transfer_figures
from experiments.members import findings_table
from jaxfer.config import clean_errors
from jaxfer.runlog import read_json


def draw(workdir: Path) -> None:
    """Draw the figures of one run, and print its findings."""
    path = workdir / "result.json"
    if not path.is_file():
        raise ValueError(f"found no {path}, needed the result of a finished run")
    result = read_json(path)
    figures = {
        "layer_transfer": layer_transfer_figures,
        "imprinting": imprinting_figures,
    }
    if result["experiment"] not in figures:
        raise ValueError(
            f"found a result of {result['experiment']} in {workdir}, needed one of "
            f"{[*figures]}: others draw their own"
        )
    for drawn in figures[result["experiment"]].draw(workdir, result):
        print(drawn)
    print(findings_table(result))


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
