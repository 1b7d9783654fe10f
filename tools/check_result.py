"""Compare the result of a finished run with published values.

    python tools/check_result.py DIR [DIR ...]

The exit code is 1 if a value is outside its tolerance or nothing is published, and 2 if
the result is missing or damaged. The tolerance is one-sided: a value better than the
published one is within it.
"""

import argparse
import sys
from pathlib import Path

from jaxfer.config import clean_errors
from jaxfer.runlog import read_result


def check(workdir: Path) -> bool:
    """Print the comparison; return whether every value is within its tolerance."""
    result = read_result(workdir, ("metrics", "reference", "seed"))
    rows, metrics = result["reference"], result["metrics"]
    print(f"{workdir} ({result['experiment']}, seed {result['seed']})")
    if not rows:
        print("  no published values to compare this result with")
    for row in rows:
        if row["ours"] is None:
            print(f"  {row['name']}: NOT MEASURED ({row['source']})")
            continue
        metric = metrics[row["name"]]
        half = "" if metric["ci95"] is None else f" ± {metric['ci95']:.2f}"
        print(
            f"  {row['name']}: ours {row['ours']:.2f}{half} {metric['unit']} over "
            f"{metric['n']} {metric['over']}, published {row['value']:.1f}, tolerance "
            f"{row['tolerance']:.2f}: {'within' if row['within'] else 'OUTSIDE'} "
            f"({row['source']})"
        )
    return bool(rows) and all(row["within"] for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="DIR")
    args = parser.parse_args()
    with clean_errors():
        verdicts = [check(workdir) for workdir in args.workdirs]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
