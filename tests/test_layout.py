"""The layout of the code: sizes, names, homes and the one direction of imports."""

import ast
import inspect
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

import jaxfer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, EXPERIMENTS = ROOT / "jaxfer", ROOT / "experiments"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
STUDIES = sorted(p for p in EXPERIMENTS.rglob("*.py") if p.name != "__init__.py")

# The level of each part of jaxfer; a part imports from lower levels only.
LEVELS = {
    "types": 0,
    "trees": 0,
    "stats": 0,
    "claims": 0,
    "keys": 0,
    "memo": 0,
    "tables": 0,
    "tensors": 0,
    "ranges": 0,
    "echoes": 0,
    "versions": 0,
    "config_files": 0,
    "heads": 1,
    "episodes": 1,
    "losses": 1,
    "optim": 1,
    "nets": 1,
    "data": 1,
    "sharding": 1,
    "compilation": 0,
    "clusters": 0,
    "threads": 0,
    "distributed": 1,
    "signals": 2,
    "stopping": 1,
    "data.bank": 2,
    "data.flat": 1,
    "data.sampling": 2,
    "data.resident": 2,
    "data.streamed": 2,
    "data.feed": 2,
    "methods": 2,
    "search": 2,
    "transfer": 2,
    "steps": 2,
    "checkpoint": 2,
    "progress": 1,
    "runlog": 2,
    "loop": 3,
    "config": 3,
    "workdir": 4,
    "queue": 4,
    "models": 4,
    "support_set": 2,
    "estimator_inputs": 3,
    "open_set": 1,
    "classifier_files": 5,
    "estimator": 6,
    "exported": 7,
    "cli": 8,
    "__main__": 9,
    "pretrained": 5,
    "study": 5,
}
# Packages that only one part of jaxfer imports.
HOMES = {
    "flax": "nets",
    "orbax": "checkpoint",
    "jax.sharding": "sharding",
    "jax.distributed": "distributed",
    "safetensors": "tensors",
}
# Within these packages modules import each other.
TOGETHER = ("heads", "nets", "data", "methods", "models", "pretrained", "cli")
# Modules that all experiments may import, which import no experiment themselves.
SHARED = ("inputs", "options", "plots", "studies")
# What a module of an experiment may import of its own package. Modules of other names
# are helpers of the training.
ORDER = ("config", "members", "train", "claims", "report", "figures", "run", "__main__")
REPORTING = ("claims", "report", "figures", "run", "__main__")
# The public face of an experiment: these names are in every package.
FACE = {
    *("main", "run", "check", "claims", "draw"),
    *("Config", "Data", "Trainer", "make_result", "tidy_rows", "summaries", "tables"),
}


def _name(path, root=PACKAGE) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def _part(module: str) -> str:
    """The part of jaxfer that a module is in: its longest name in the table."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (part := ".".join(parts[:end])) in LEVELS:
            return part
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


def _lines(path) -> int:
    return len(path.read_text().splitlines())


def _code(path) -> int:
    """Lines of code: neither blank, nor comments, nor docstrings."""
    text, spoken = path.read_text(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if ast.get_docstring(node) is not None:
                first = node.body[0]
                spoken |= {*range(first.lineno, first.end_lineno + 1)}
    lines = enumerate(text.splitlines(), 1)
    written = [line.strip() for number, line in lines if number not in spoken]
    return sum(bool(line) and not line.startswith("#") for line in written)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_down(path):
    here = _part(_name(path))
    package = here.split(".")[0]
    for target in _imports(path):
        if not target.startswith("jaxfer."):
            continue
        there = _part(target.removeprefix("jaxfer."))
        if there.split(".")[0] == package and package in TOGETHER:
            continue
        down = LEVELS[there] < LEVELS[here]
        among_words = LEVELS[there] == LEVELS[here] == 0
        assert down or among_words, f"{_name(path)} imports {target}"


def test_the_lowest_level_imports_only_types_and_statistics_of_itself():
    allowed = {"claims": {"jaxfer.stats", "jaxfer.tables"}}
    for part in ("types", "trees", "stats", "claims", "keys", "tables"):
        imported = {t for t in _imports(PACKAGE / f"{part}.py") if "jaxfer" in t}
        known = {"jaxfer.types"} | allowed.get(part, set())
        assert all(".".join(t.split(".")[:2]) in known for t in imported), part


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_some_packages_have_one_home(path):
    name = _name(path)
    for package, home in HOMES.items():
        users = [t for t in _imports(path) if f"{t}.".startswith(f"{package}.")]
        at_home = f"{name}.".startswith(f"{home}.")
        assert not users or at_home, f"{name} imports {users}"


def test_the_library_knows_nothing_of_experiments_and_tools():
    for path in [*MODULES, *PACKAGE.rglob("__init__.py")]:
        roots = {target.split(".")[0] for target in _imports(path)}
        assert not roots & {"experiments", "tools", "configs", "tests"}, path


def test_modules_are_small():
    lines = {_name(path): _lines(path) for path in MODULES}
    assert {n: size for n, size in lines.items() if size > 400} == {}
    assert statistics.median(lines.values()) <= 180
    assert sum(map(_code, MODULES)) <= 14600


def test_experiments_are_small():
    lines = {_name(path, EXPERIMENTS): _lines(path) for path in STUDIES}
    assert {n: size for n, size in lines.items() if size > 400} == {}
    assert sum(map(_code, STUDIES)) <= 4250


def _experiment(path) -> str | None:
    """The experiment that a module is part of; None for a shared module."""
    parts = path.relative_to(EXPERIMENTS).parts
    return parts[0] if len(parts) > 1 else None


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: _name(p, EXPERIMENTS))
def test_experiments_import_in_one_direction(path):
    own, name = _experiment(path), path.stem
    assert own or name in SHARED, f"expected {name} in the package of an experiment"
    for target in _imports(path):
        root, *rest = target.split(".")
        assert root not in ("tools", "tests", "configs"), f"{path} imports {target}"
        if root != "experiments" or not rest:
            continue
        if rest[0] in SHARED:
            assert own or SHARED.index(rest[0]) < SHARED.index(name), target
            continue
        assert rest[0] == own, f"{path} imports another experiment: {target}"
        module = _module(own, rest[1:])
        if module is not None:
            assert _may_import(name, module), f"{path} imports {target}"


def _module(experiment: str, rest: list[str]) -> str | None:
    """The module of an experiment that an import names, if it names one."""
    there = rest and (EXPERIMENTS / experiment / f"{rest[0]}.py").exists()
    return rest[0] if there else None


def _may_import(here: str, there: str) -> bool:
    """Whether one module of an experiment may import another of its package."""
    if here == "__main__":
        return there != "__main__"
    if here in REPORTING:
        return there not in ORDER or ORDER.index(there) < ORDER.index(here)
    if there in REPORTING or here == "config":
        return False
    if here == "members":
        return there == "config"
    # Helpers and presets import no training; training imports them.
    return there != "train"


def test_the_direction_of_imports_is_checked():
    """The rule itself: what it allows and what it refuses."""
    for here, there in (
        ("members", "config"),
        ("train", "members"),
        ("train", "rows"),
        ("report", "claims"),
        ("figures", "report"),
        ("figures", "train"),
        ("run", "figures"),
        ("__main__", "run"),
    ):
        assert _may_import(here, there), (here, there)
        assert not _may_import(there, here), (there, here)
    assert not _may_import("train", "claims")


def test_an_experiment_defines_each_name_once():
    """A name in two files says that a function waits to be shared."""
    defined = defaultdict(set)
    for path in STUDIES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined[node.name].add(_name(path, EXPERIMENTS))
            elif isinstance(node, ast.Assign):
                for target in ast.walk(ast.Tuple(node.targets)):
                    if isinstance(target, ast.Name):
                        defined[target.id].add(_name(path, EXPERIMENTS))
    twice = {
        name: sorted(files)
        for name, files in defined.items()
        if len(files) > 1 and name not in FACE
    }
    assert twice == {}


def test_the_public_face_is_no_longer_than_it_needs_to_be():
    defined = defaultdict(int)
    for path in STUDIES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined[node.name] += 1
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    defined[getattr(target, "id", "")] += 1
    assert {name for name in FACE if defined[name] < 2} == set()


def test_no_module_has_a_name_without_meaning():
    forbidden = {"utils", "common", "misc", "helpers", "base", "registry"}
    assert not forbidden & {p.stem for p in [*MODULES, *STUDIES]}


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
