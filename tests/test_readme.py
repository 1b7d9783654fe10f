"""What the README shows is run, and its lines are the ones CI and users run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("heading", ["Quickstart", "Tests"])
def test_each_contract_section_opens_with_one_line_of_bash(heading):
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.match(r"\n```bash\n(.*?)\n```\n", section, re.DOTALL)
    assert block and "\n" not in block[1]


def test_ci_runs_the_line_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script and "pytest" not in script


def _shown(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_examples_run():
    episodes, birds = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shown = _shown(episodes)
    assert re.fullmatch(r"\d+\.\d\d ± \d\.\d\d\n", shown)
    # Chance is 20 percent.
    assert float(shown.split()[0]) > 40
    assert _shown(birds) == "['gull']\n"


def test_files_the_readme_names_are_there():
    for path in re.findall(r"(?:configs|tools|docs)/[\w.]+\.\w+", README):
        assert (ROOT / path).is_file(), path
