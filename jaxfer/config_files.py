"""Config files: Python modules with a config, whose faults are named by line."""

import dataclasses
import numbers
import re
import runpy
import traceback
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")

# What a published value needs, and its types.
_PUBLISHED = {
    "name": str,
    "value": numbers.Real,
    "tolerance": numbers.Real,
    "source": str,
}


def load_config(path: Path, config_class: type[C]) -> tuple[C, list[dict[str, Any]]]:
    """The `config` of a file, and its `published` values, [] where there are none.

    Args:
        path: a Python module.
        config_class: the class that `config` must have.

    Raises:
        ValueError: no such file, or a file that fails or holds something else; the
            message has the file, and the line where it is known.
    """
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.py"))
        raise ValueError(f"expected a config file, got no {path}; there are {there}")
    made = _run(path)
    config = made.get("config")
    if not isinstance(config, config_class):
        raise ValueError(
            f"expected config = {config_class.__module__}.{config_class.__name__}(...) "
            f"in {path}, got a {type(config).__name__}"
        )
    for name, value, hint in _fields(config):
        if not _fits(value, hint):
            raise ValueError(
                f"expected {name} to be {_shown(hint)}, got {value!r} in "
                f"{_place(path, name.rpartition('.')[2])}"
            )
    return config, _published(path, made.get("published", []))


def _run(path: Path) -> dict[str, Any]:
    """The names that a module defines."""
    try:
        return runpy.run_path(str(path))
    except SyntaxError as e:
        where, why = f"{e.filename or path}, line {e.lineno or 1}", e.msg
    except ImportError as e:
        moved = re.sub(r"^(experiments\.\w+?)_config$", r"\1.config", e.name or "")
        hint = f": it is now called {moved}" if moved != (e.name or "") else ""
        where, why = _line_in(path, e), f"{e}{hint}"
    except SystemExit as e:
        where, why = _line_in(path, e), f"it ends the program, with {e.code!r}"
    except Exception as e:
        where, why = _line_in(path, e), f"{type(e).__name__}: {e}"
    raise ValueError(f"the config {where} cannot be read: {why}")


def _line_in(path: Path, error: BaseException) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _place(path: Path, word: str) -> str:
    """The file, and the line that gives a value to a name, if only one does."""
    lines = path.read_text().splitlines()
    found = [n for n, line in enumerate(lines, 1) if re.search(rf"\b{word}\s*=", line)]
    return f"{path}, line {found[0]}" if len(found) == 1 else str(path)


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and type of every field."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint) and isinstance(value, typing.cast(Any, hint)):
            yield from _fields(value, f"{name}.")
        else:
            yield name, value, hint


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a field; an integer may stand for a float."""
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(_fits(one, parts[0]) for one in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if parts:
        return any(_fits(value, part) for part in parts)
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (hint is float and isinstance(value, float))
    return isinstance(value, hint)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else f"{hint}".replace("typing.", "")


def _published(path: Path, found: Any) -> list[dict[str, Any]]:
    where = _place(path, "published")
    if not isinstance(found, list | tuple):
        raise ValueError(f"expected published to be a list in {where}, got {found!r}")
    for row in found:
        if not isinstance(row, dict) or any(
            not isinstance(row.get(key), kind) for key, kind in _PUBLISHED.items()
        ):
            raise ValueError(
                "expected published values with a name, a value, a tolerance and a "
                f"source in {where}, got {row!r}"
            )
    return list(found)
