"""The shape of the house: sizes, names, homes and the one direction of imports."""

import ast
import inspect
import statistics
from pathlib import Path

import pytest

import jaxfer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxfer"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
LEVELS = {
    "types": 0,
    "trees": 0,
    "stats": 0,
    "heads": 1,
    "episodes": 1,
    "losses": 1,
    "nets": 1,
    "data": 1,
    "sharding": 1,
    "data.resident": 2,
    "data.streamed": 2,
    "transfer": 2,
    "steps": 2,
    "checkpoint": 2,
    "runlog": 2,
    "loop": 3,
    "config": 3,
}
HOMES = {"flax": "nets", "orbax": "checkpoint", "jax.sharding": "sharding"}


def _name(path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def _room(module: str) -> str:
    """The room of a module below jaxfer: its longest name in the table of levels."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (room := ".".join(parts[:end])) in LEVELS:
            return room
    raise AssertionError(f"{module} has no level")


def _imports(path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_down(path):
    here = _room(_name(path))
    for target in _imports(path):
        if not target.startswith("jaxfer."):
            continue
        there = _room(target.removeprefix("jaxfer."))
        house = here.split(".")[0]
        if there.split(".")[0] == house and house in ("heads", "nets", "data"):
            continue
        down = LEVELS[there] < LEVELS[here]
        among_words = LEVELS[there] == LEVELS[here] == 0
        assert down or among_words, f"{_name(path)} imports {target}"


def test_words_import_only_the_types_among_themselves():
    for room in ("types", "trees", "stats"):
        imported = {t for t in _imports(PACKAGE / f"{room}.py") if "jaxfer" in t}
        assert all(t.startswith("jaxfer.types") for t in imported), room


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_some_packages_have_one_home(path):
    room = _room(_name(path))
    for package, home in HOMES.items():
        users = [t for t in _imports(path) if f"{t}.".startswith(f"{package}.")]
        assert not users or room == home, f"{_name(path)} imports {users}"


def test_modules_are_small():
    lines = {_name(p): len(p.read_text().splitlines()) for p in MODULES}
    assert max(lines.values()) <= 400, lines
    assert statistics.median(lines.values()) <= 200, lines
    for path in (ROOT / "experiments").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_no_room_is_called_after_nothing():
    forbidden = {"utils", "common", "misc", "helpers", "base", "registry"}
    assert not forbidden & {p.stem for p in MODULES}


def test_the_public_names_are_sorted_and_there():
    for package in (jaxfer, jaxfer.data):
        stub = Path(package.__file__).with_suffix(".pyi")
        names = ast.literal_eval(ast.parse(stub.read_text()).body[-1].value)
        assert names == sorted(
            names, key=lambda n: (not n.isupper(), n[0].islower(), n)
        )
        assert sorted(names) == package.__all__
        assert all(hasattr(package, name) for name in names)
    with pytest.raises(AttributeError, match="attribute protoypes"):
        jaxfer.protoypes  # noqa: B018


PUBLIC = [getattr(jaxfer, n) for n in jaxfer.__all__ if callable(getattr(jaxfer, n))]


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: item.__name__)
def test_every_public_name_is_documented_and_annotated(item):
    assert item.__doc__ and len(item.__doc__.splitlines()[0]) <= 88
    if inspect.isfunction(item):
        assert ">>>" in item.__doc__, "an example is not optional"
        signature = inspect.signature(item)
        missing = [
            p.name
            for p in signature.parameters.values()
            if p.annotation is inspect.Parameter.empty
        ]
        assert not missing
        assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem
)
def test_configs_say_what_they_reproduce(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    for line in ("Reproduces:", "Run:", "Expect:"):
        assert f"\n{line}" in text, f"{path} lacks {line}"
    assert path.name in text
