"""Keep the results of runs, and write their tables into the documentation.

    python tools/result_tables.py --keep RUN NAME
    python tools/result_tables.py [--check]

The first line copies what tables need from RUN/result.json to
docs/results/data/NAME.json; RUN may also be a file that tools/compare.py, plan.py,
bench_plan.py or bench_scaling.py wrote with --json.
The second line makes every table of README.md and docs/ again. A table lies between two
comments. The first one names the kept result and the beginning of a title:

    <!-- table NAME: Accuracy on images of novel classes -->
    <!-- end of table -->

The title "Findings" stands for the verdicts on a paper's findings, and "Cost" for the
cost of several runs beside their accuracies. The titles of a comparison of runs are
"Accuracy" and the options that it compares by. Names without a title give one row per
run of prototypical networks. With --check nothing is written, and the exit code is 1 if
a table differs from its result.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.prototypes.report import compare_runs
from experiments.studies import tables_of
from jaxfer import models
from jaxfer.claims import findings_table
from jaxfer.config import clean_errors
from jaxfer.runlog import read_json, read_result, write_json
from tools import bench_plan, bench_scaling, compare, cost, photo_results, plan

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "results" / "data"
_KEPT = (
    *("experiment", "config", "metrics", "findings", "reference", "seed", "wall_s"),
    *("versions", "devices", "dataset_fingerprint", "phases"),
)
_LEFT_OUT = ("_balanced", "/balanced_accuracy", "/train_accuracy")
_TABLE = re.compile(
    r"<!-- table (?P<names>[\w ]+?)(?:: (?P<title>[^\n]*?))? -->\n"
    r".*?<!-- end of table -->",
    re.DOTALL,
)


def keep(workdir: Path, name: str) -> Path:
    """Write the part of a result that tables need, and return its path."""
    DATA.mkdir(parents=True, exist_ok=True)
    if workdir.suffix == ".json":
        write_json(DATA / f"{name}.json", _shortened(read_json(workdir)))
        return DATA / f"{name}.json"
    result = read_result(workdir, ("config", "metrics"))
    kept = {key: result[key] for key in _KEPT if key in result}
    kept["metrics"] = {
        key: metric
        for key, metric in result["metrics"].items()
        if not key.endswith(_LEFT_OUT)
    }
    # Where the data lay says nothing about the result.
    kept["config"] = {
        k: Path(v).name if isinstance(v, str) and Path(v).is_absolute() else v
        for k, v in kept["config"].items()
        if k != "data.dir"
    }
    if (workdir / models.FILE).is_file():
        kept["image_shape"] = models.load_model(workdir).about["image_shape"]
    kept = {k: x if k == "config" else _rounded(x) for k, x in kept.items()}
    write_json(DATA / f"{name}.json", kept)
    return DATA / f"{name}.json"


def written(text: str) -> str:
    """Return a page with its tables made from the kept results.

    Raises:
        ValueError: a result that is not kept, or a title that no table has.
    """
    return _TABLE.sub(lambda match: f"{_filled(match)}", text)


def pages() -> list[Path]:
    """Return the pages that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _filled(match: re.Match[str]) -> str:
    names, title = match["names"].split(), match["title"]
    results = [_kept(name) for name in names]
    opening = match[0].partition("\n")[0]
    if "plan" in results[0]:
        table = plan.table(results[0]["plan"])
    elif "measured" in results[0]:
        table = bench_plan.table(results[0]["measured"])
    elif "scaling" in results[0]:
        table = bench_scaling.table(results[0]["scaling"])
    elif title is None:
        table = compare_runs(results)
    elif title == "Cost":
        table = cost.table(results)
    else:
        table = _table(results[0], title)
    return f"{opening}\n{table}\n<!-- end of table -->"


def _kept(name: str) -> Any:
    path = DATA / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"expected a kept result {path}, got none: see --keep")
    return read_json(path)


def _table(result: Mapping[str, Any], title: str) -> str:
    if title == "Findings":
        return findings_table(result["findings"])
    if "by" in result:
        return _comparison(result, title)
    own = result["experiment"] == "photographs"
    tables = photo_results.tables(result) if own else tables_of(result)
    found = [table for name, table in tables.items() if name.startswith(title)]
    if len(found) != 1:
        raise ValueError(
            f"expected a title that one table begins with, got {title!r}: the tables "
            f"are {[*tables]}"
        )
    return found[0]


def _comparison(compared: Mapping[str, Any], title: str) -> str:
    if title == "Accuracy":
        return compare.trained_table(compared["rows"])
    if title not in compared["by"]:
        raise ValueError(
            f"expected Accuracy or an option of the comparison, got {title!r}: the "
            f"options are {[*compared['by']]}"
        )
    return compare.table_by(compared["by"][title])


def _shortened(content: Any) -> Any:
    """Numbers with six digits, for what may be far below 1."""
    if isinstance(content, Mapping):
        return {key: _shortened(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_shortened(value) for value in content]
    return float(f"{content:.6g}") if isinstance(content, float) else content


def _rounded(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return round(content, 4) if isinstance(content, float) else content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep",
        nargs=2,
        metavar=("RUN", "NAME"),
        help="keep the result of a finished run or of a comparison as NAME",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the tables, and write nothing"
    )
    args = parser.parse_args()
    with clean_errors():
        if args.keep:
            print(keep(Path(args.keep[0]), args.keep[1]))
            return 0
        differing = []
        for page in pages():
            text = page.read_text()
            if (made := written(text)) == text:
                continue
            differing.append(page)
            print(f"{page.relative_to(ROOT)} {'differs' if args.check else 'written'}")
            if not args.check:
                page.write_text(made)
    return 1 if args.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
