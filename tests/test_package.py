"""What users get: an import that needs little, and a wheel that holds jaxfer alone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Block())
"""
_OPTIONAL = {
    "grain",
    "tensorflow_datasets",
    "tensorflow",
    "array_record",
    "matplotlib",
    "tensorboardX",
    "PIL",
}


def _run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    )


def test_import_and_every_room_work_without_the_optional_packages():
    code = _BLOCKED.format(blocked=_OPTIONAL) + (
        "import jaxfer\n"
        "for name in jaxfer.__all__: getattr(jaxfer, name)\n"
        "assert jaxfer.data.load('glyphs', ['val'])['val'].num_classes\n"
        "import experiments.prototypes.__main__, experiments.layer_transfer.__main__\n"
        "import experiments.imprinting.__main__, experiments.zero_shot.__main__\n"
        "print('fine')"
    )
    done = _run(code)
    assert done.stdout == "fine\n", done.stderr


def test_import_loads_nothing_heavy():
    done = _run(
        "import sys, jaxfer\n"
        "heavy = {'jax', 'flax', 'orbax', 'optax', 'tensorflow_datasets', 'grain'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert done.stdout == "[]\n", done.stderr


def test_paths_in_place_of_images_are_refused():
    # In a process of its own, where types are not checked as they are under pytest.
    done = _run("import jaxfer.models.model\njaxfer.models.model.items_of(['a.png'])")
    assert "ValueError: expected images as an array" in done.stderr
    assert "got a list" in done.stderr


@pytest.mark.parametrize(
    "name", ["imprinting", "layer_transfer", "prototypes", "zero_shot"]
)
def test_help_loads_neither_networks_nor_training(name):
    done = _run(
        f"import sys\nfrom experiments.{name}.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'flax', 'orbax', 'tensorstore', 'grain', 'scipy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert "--config" in done.stdout, done.stderr
    assert done.stdout.endswith("[]\n"), done.stdout[-200:]


def test_wheel_holds_jaxfer_alone_and_imports_elsewhere(tmp_path):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    done = subprocess.run(
        [*build, "--outdir", str(tmp_path), str(ROOT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert tops == {"jaxfer", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert "jaxfer/py.typed" in names and "jaxfer/data/glyphs.py" in names
    assert not [name for name in names if name.endswith((".npy", ".png", ".ipynb"))]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import jaxfer, jaxfer.data, jaxfer.nets; print(jaxfer.__file__)",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr
