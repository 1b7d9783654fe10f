"""Make the figures and tables of finished runs again.

    python tools/paper_figures.py DIR [DIR ...]

This writes DIR/tables.md and, as SVG and PNG, DIR/figures: for a layer-transfer study
Figures 2 and 3 and the first-layer filters of Yosinski et al. 2014; for an imprinting
study Figures 3 to 8 of Qi et al. 2018; for a run of prototypical networks the learning
curve and a test episode; for a zero-shot study its accuracy beside few-shot curves. It
prints which findings of the paper are seen. The exit code is 2 if a result is missing
or damaged.
"""

import argparse
import sys
from pathlib import Path

from experiments.studies import draw_figures, write_tables
from jaxfer.claims import findings_table
from jaxfer.config import clean_errors
from jaxfer.runlog import read_result

_STUDY = ("config", "metrics", "findings", "rows")
_NEEDED = {
    "layer_transfer": _STUDY,
    "imprinting": _STUDY,
    "prototypes": ("config", "metrics", "reference", "classes"),
    "zero_shot": _STUDY,
}


def draw(workdir: Path) -> None:
    """Make the figures and tables of one run; print their paths and its findings."""
    name = read_result(workdir)["experiment"]
    if name not in _NEEDED:
        raise ValueError(
            f"expected a result of {', '.join(_NEEDED)} in {workdir}, got {name}"
        )
    result = read_result(workdir, _NEEDED[name])
    try:
        print(write_tables(workdir, result))
        for path in draw_figures(workdir, result):
            print(path)
    except KeyError as e:
        raise ValueError(
            f"{workdir / 'result.json'} is damaged: expected an entry {e}, got none"
        ) from e
    if "findings" in result:
        print(findings_table(result["findings"]))


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
