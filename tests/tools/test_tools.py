import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.imprinting.config import Config
from experiments.imprinting.report import summaries
from experiments.prototypes import config as prototypes
from jaxfer.claims import Claim, judge
from jaxfer.config import to_json
from jaxfer.runlog import write_json
from tools import check_result, paper_figures

ROOT = Path(__file__).resolve().parents[2]


def _tool(name, *args):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def _result(folder, ours, within):
    name = "test/5way_1shot/prototypes/accuracy"
    metric = {"mean": ours, "ci95": 0.1, "n": 1000, "over": "episodes", "unit": "%"}
    row = {
        "name": name,
        "value": 98.8,
        "tolerance": 0.6,
        "source": "Table 1",
        "ours": ours,
        "within": within,
    }
    folder.mkdir()
    content = {"experiment": "prototypes", "seed": 0, "metrics": {name: metric}}
    write_json(folder / "result.json", {**content, "reference": [row]})
    return folder


def test_check_result_prints_the_comparison_and_exits_by_it(tmp_path):
    good, bad = (
        _result(tmp_path / "a", 98.5, True),
        _result(tmp_path / "b", 97.0, False),
    )
    done = _tool("check_result.py", good)
    assert done.returncode == 0
    assert "ours 98.50 ± 0.10 % over 1000 episodes" in done.stdout
    assert "published 98.8, tolerance 0.60: within (Table 1)" in done.stdout
    done = _tool("check_result.py", good, bad)
    assert done.returncode == 1 and "OUTSIDE" in done.stdout


def test_check_result_does_not_pass_what_was_not_measured(tmp_path):
    folder = _result(tmp_path / "a", None, None)
    done = _tool("check_result.py", folder)
    assert done.returncode == 1 and "NOT MEASURED" in done.stdout


def test_check_result_without_a_result(tmp_path):
    done = _tool("check_result.py", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected the result of a finished run")


@pytest.mark.parametrize("tool", ["check_result.py", "paper_figures.py"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "expected a result with experiment"),
        ("[]", "expected a result with experiment"),
        ('{"experiment": "imprinting", "rows": [', "expected JSON in"),
        ('{"experiment": "imprinting"}', "expected a result with"),
    ],
    ids=["empty", "list", "cut", "partial"],
)
def test_a_damaged_result_is_one_line_that_names_the_file(
    tool, content, expected, tmp_path, capsys, monkeypatch
):
    (tmp_path / "result.json").write_text(content)
    module = {"check_result.py": check_result, "paper_figures.py": paper_figures}[tool]
    monkeypatch.setattr(sys, "argv", [tool, str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {expected}") and message.count("\n") == 1
    assert str(tmp_path / "result.json") in message


def _study(folder):
    """The result of a small imprinting study, and what its figures are drawn from."""
    scores = {"novel": 30.0, "base": 60.0, "all": 50.0, "harmonic": 40.0}
    rows = [
        {
            "member": f"seed{seed}-measure-n{n}-softmax-d4",
            "seed": seed,
            "row": row,
            "n": n,
            "dim": 4,
            "loss": "softmax",
            "metric": metric,
            "value": value + seed + n,
        }
        for seed in (0, 1)
        for n in (1, 2)
        for row in ("imprinting", "rand_noft", "softmax_average", "softmax_nearest")
        for metric, value in scores.items()
    ]
    claim = Claim("1", "Imprinting - Rand", {"row": "imprinting"}, {"row": "rand_noft"})
    content = {
        "experiment": "imprinting",
        "config": to_json(Config(dim=4, shots=(1, 2), seeds=(0, 1))),
        "rows": rows,
        "metrics": summaries(rows, "2+2", 4),
        "findings": judge(rows, [dataclasses.replace(claim, metric="novel")]),
        "members": [],
        "curves": {},
        "base": 2,
    }
    folder.mkdir(exist_ok=True)
    write_json(folder / "result.json", content)
    return content


def test_figures_are_drawn_from_the_result_of_a_study(tmp_path):
    pytest.importorskip("matplotlib")
    _study(tmp_path)
    done = _tool("paper_figures.py", tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"rows.svg", "rows.png", "nearest.svg"} <= drawn
    assert str(tmp_path / "figures" / "rows.svg") in done.stdout
    assert re.search(r"\| 1 +\| Imprinting - Rand \| 0.00 ± 0.00 \|", done.stdout)


def test_figures_of_a_result_that_lacks_something_name_the_file(tmp_path):
    pytest.importorskip("matplotlib")
    content = _study(tmp_path)
    for row in content["rows"]:
        del row["n"]
    write_json(tmp_path / "result.json", content)
    with pytest.raises(ValueError, match=r"result.json is damaged: .* 'n'"):
        paper_figures.draw(tmp_path)


def test_figures_of_a_run_of_prototypes_are_drawn_again(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    config = to_json(prototypes.Config())
    name = "test/5way_1shot/prototypes/accuracy"
    metric = {"mean": 60.0, "ci95": 1.0, "n": 9, "over": "episodes", "unit": "%"}
    content = {"experiment": "prototypes", "config": config, "classes": {"test": []}}
    content |= {"metrics": {name: metric}, "reference": []}
    write_json(tmp_path / "result.json", content)
    line = {"step": 1, "train/loss": 1.0, "train/accuracy": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    paper_figures.draw(tmp_path)
    names = ("tables.md", "figures/learning_curve.svg", "figures/learning_curve.png")
    assert capsys.readouterr().out.split() == [str(tmp_path / x) for x in names]
    assert "60.00 ± 1.00" in (tmp_path / "tables.md").read_text()


def test_figures_of_other_experiments_are_refused(tmp_path):
    write_json(tmp_path / "result.json", {"experiment": "other"})
    with pytest.raises(ValueError, match="prototypes, zero_shot in .*, got other"):
        paper_figures.draw(tmp_path)


@pytest.mark.slow
def test_presets_run_one_after_another_and_failures_count(tmp_path, data_dir):
    few = ("--episodes", "2", "--test.episodes", "2", "--test.ways", "2")
    few = (*few, "--no-figures", "--net.width", "4", "--run.steps-per-call", "1")

    def run(*args):
        return subprocess.run(
            [str(ROOT / "tools" / "run_presets.sh"), *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHON": sys.executable},
        )

    folders = (str(data_dir), str(tmp_path / "runs"))
    done = run(*folders, "absent", "quickstart", "--", *few)
    assert done.returncode == 1, done.stderr
    assert "absent.py" in done.stderr
    assert (tmp_path / "runs" / "quickstart" / "result.json").exists(), done.stderr
    assert run().returncode == 2
