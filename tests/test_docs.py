"""README and docs: their Python runs, their shell lines parse, their links resolve."""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import jaxfer
from jaxfer.cli.main import make_parser
from jaxfer.config import parse
from jaxfer.data import glyphs
from jaxfer.nets import Conv4
from jaxfer.pretrained import weights_at_hand
from tools import result_tables

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {str(p.relative_to(ROOT)): p.read_text() for p in result_tables.pages()}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


# Each shell line with its page.
LINES = [
    (page, line)
    for page, text in PAGES.items()
    for block in _blocks(text, "bash")
    for line in block.splitlines()
]
# Pages whose Python takes longest; the others run by default.
SLOW = [
    f"docs/howto/{name}.md"
    for name in (
        "add_classes",
        "feature_banks",
        "freeze_layers",
        "pretrained_backbones",
    )
]
WITH_PYTHON = [
    pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())
    for page, text in PAGES.items()
    if _blocks(text, "python")
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the pages assume: a run, two results, a folder of images."""
    image = pytest.importorskip("PIL.Image")
    import jax

    folder = tmp_path_factory.mktemp("docs")
    model = jaxfer.init_model(Conv4(), (28, 28, 1), jax.random.key(0))
    jaxfer.save_model(folder / "runs" / "quickstart" / "model.safetensors", model)
    for number, name in enumerate(("one", "other")):
        (folder / "runs" / name).mkdir()
        accuracy = {"test/5way_1shot/prototypes/accuracy": np.arange(10.0) + number}
        np.savez(folder / "runs" / name / "episodes.npz", **accuracy)
    data = glyphs(alphabets=20, characters=1, drawers=20)
    for i in range(60):
        own = folder / "pictures" / f"class{data.labels[i]}"
        own.mkdir(parents=True, exist_ok=True)
        image.fromarray(data.images[i, ..., 0]).save(own / f"{i}.png")
    return folder


@pytest.mark.once
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_blocks_run(page, workplace, monkeypatch, capsys):
    if "efficientnet_lite0" not in weights_at_hand() and page in NEED_WEIGHTS:
        pytest.skip("needs the weights of the extra 'pretrained'")
    monkeypatch.chdir(workplace)
    names: dict = {"__name__": "page"}
    for code in _blocks(PAGES[page], "python"):
        exec(compile(code, page, "exec"), names)
    CHECKS.get(page, lambda names, shown: None)(names, capsys.readouterr().out)


def _check_photographs(names, shown):
    assert float(shown.splitlines()[0].split()[-1]) > 0.5  # chance is a third
    assert shown.endswith("['class0' 'class1' 'class2']\n")


def _check_export(names, shown):
    assert shown.endswith("True\n")


def _check_methods(names, shown):
    lines = shown.strip().splitlines()
    assert [line.split()[0] for line in lines[:4]] == [
        *("prototypes", "matching", "nearest", "ridge")
    ]
    # Chance is 20 percent.
    assert all(float(line.split()[1]) > 25 for line in lines[:4]) and "±" in lines[4]


def _check_zero_shot(names, shown):
    # Chance is 10 percent.
    assert int(shown.split("%")[0].split()[-1]) > 50


def _check_readme(names, shown):
    # Chance is 20 percent.
    assert float(shown.split()[0]) > 40


def _check_freeze(names, shown):
    lines = shown.strip().splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["n = 1", "n = 3", "n = 5"]
    # Twenty classes: chance is 5%.
    assert all(int(re.search(r"(\d+)% of B", line)[1]) > 15 for line in lines[:3])


def _check_add(names, shown):
    assert len(names["model"].class_names) == 23
    hits = [
        name == found
        for name, x in names["novel"].items()
        for found in jaxfer.predict(names["model"], x[5:]).names
    ]
    assert np.mean(hits) > 0.3  # chance is 1 in 23
    assert shown.endswith("['gull']\n")


def _check_images(names, shown):
    right, total = re.search(r"(\d+) of (\d+) right", shown).groups()
    assert int(right) > int(total) / 3 > 0
    assert len(jaxfer.load_model("runs/pictures").class_names) == 3


def _check_backbone(names, shown):
    assert shown.startswith("('Conv_0', 'Dense_0')\n")
    assert shown.endswith("(2, 32)\n")


def _check_runs(names, shown):
    assert shown.split()[-2:] == ["[5,", "10]"]


def _check_studies(names, shown):
    assert shown.split()[-1] == "True"


# Pages whose Python loads installed weights.
NEED_WEIGHTS = [
    f"docs/howto/{name}.md"
    for name in (
        *("feature_banks", "photographs", "pretrained_backbones"),
        "unknown_classes",
    )
]
CHECKS = {
    "README.md": _check_readme,
    "docs/howto/compare_methods.md": _check_methods,
    "docs/howto/export_and_serve.md": _check_export,
    "docs/howto/photographs.md": _check_photographs,
    "docs/howto/add_classes.md": _check_add,
    "docs/howto/freeze_layers.md": _check_freeze,
    "docs/howto/own_backbone.md": _check_backbone,
    "docs/howto/own_images.md": _check_images,
    "docs/howto/zero_shot.md": _check_zero_shot,
    "docs/runs.md": _check_runs,
    "docs/studies.md": _check_studies,
}


@pytest.mark.parametrize("page, line", LINES, ids=lambda x: x[:60])
def test_shell_lines_parse(page, line, monkeypatch):
    """Options and files exist; what needs data or hours is not run."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    words = words[next(i for i, word in enumerate(words) if "=" not in word) :]
    if words[:2] == ["python", "-m"] and words[3:] == ["--help"]:
        return
    if words[:3] == ["python", "-m", "jaxfer"]:
        make_parser().parse_args(words[3:])
    elif words[:2] == ["python", "-m"]:
        config = importlib.import_module(f"{words[2]}.config").Config
        assert parse(words[2], config, words[3:]).config
    elif words[0] == "python":
        source = (ROOT / words[1]).read_text()
        # What follows -- is for the commands that the tool runs.
        words = words[: words.index("--")] if "--" in words else words
        for option in (word for word in words if word.startswith("--")):
            field = option.removeprefix("--").removeprefix("no-").replace("-", "_")
            assert f'"{option}"' in source or f"    {field}:" in source, option
    elif words[0] == "sbatch" or words[0].startswith("tools/"):
        (file,) = [word for word in words if word.startswith("tools/")]
        assert os.access(ROOT / file, os.X_OK)
        if "-m" in words:
            first = words.index("-m") + 1
            config = importlib.import_module(f"{words[first]}.config").Config
            assert parse(words[first], config, words[first + 1 :]).config
    elif words[0] == "kubectl":
        assert words[1:3] == ["apply", "-f"]
    elif words[0] in ("pip", "python3"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = re.search(r"\[([\w,-]+)\]", line)
        assert {*extras[1].split(",")} <= {*project["optional-dependencies"]}
    elif words[0] == "curl":
        route = urlsplit(words[-1]).path.split("/")[1]
        assert f'"/{route}"' in (ROOT / "jaxfer" / "cli" / "serve.py").read_text()
    else:
        raise AssertionError(f"{page}: no test knows how to check {line!r}")


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)#]*)(?:#[\w-]+)?\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    for path in re.findall(r"(?:configs|tools|docs)/[\w/]+\.\w+", PAGES[page]):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_kept_results(page):
    assert result_tables.written(PAGES[page]) == PAGES[page]


def test_a_changed_table_is_made_again():
    page = PAGES["docs/results/imprinting.md"]
    first = re.search(r"\| Imprinting +\| (\d+\.\d+)", page)
    wrong = page.replace(first[0], first[0].replace(first[1], "99.99"), 1)
    assert wrong != page and result_tables.written(wrong) == page


def test_a_title_without_a_table_is_refused():
    text = "<!-- table glyphs_imprinting: Nosuch -->\n<!-- end of table -->"
    with pytest.raises(ValueError, match="expected a title that one table begins with"):
        result_tables.written(text)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("heading", ["Quickstart", "Tests"])
def test_each_contract_section_opens_with_one_line_of_bash(heading):
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.match(r"\n```bash\n(.*?)\n```\n", section, re.DOTALL)
    assert block and "\n" not in block[1]


def test_ci_runs_the_line_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script and "pytest" not in script


@pytest.mark.slow
def test_the_install_line_makes_a_wheel_that_works(tmp_path):
    (line,) = [x for x in _blocks(README, "bash") if x.startswith("pip wheel")]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    path = f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    environment.pop("PYTHONPATH", None)
    how = {"cwd": tmp_path / "clone", "env": environment, "check": True}
    subprocess.run(["bash", "-ec", line], **how)
    code = "import jaxfer; print(jaxfer.__file__)"
    done = subprocess.run(
        ["python", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path / "venv") in done.stdout
