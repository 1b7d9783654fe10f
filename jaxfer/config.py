"""Typed, closed configs: from a file, overridden by name, compared on resume.

A config is a frozen dataclass of dataclasses. Its fields say *what* is run, unless
marked with `how`, for what may change when a run is resumed (data directory, logging,
steps a call): results do not depend on those.
"""

import argparse
import dataclasses
import json
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from jaxfer.runlog import read_json, report, write_json

C = TypeVar("C")


def how(default: Any) -> Any:
    """A field that says how to run and not what: it may change on resume."""
    return dataclasses.field(default=default, metadata={"how": True})


class Command(NamedTuple):
    """A parsed command line.

    Attributes:
        config: of the file, with the overrides.
        workdir: where the run lives.
        published: the values the config file publishes beside the result.
        line: the command itself, to be shown again.
    """

    config: Any
    workdir: Path
    published: Sequence[dict[str, Any]]
    line: str


def parse(experiment: str, config_class: type, argv: Sequence[str]) -> Command:
    """Read `--config FILE --workdir DIR [--a.b VALUE ...]`.

    The file is a Python module whose `config` is an instance of `config_class`, and
    whose `published`, where there is one, lists the values to compare with.

    Args:
        experiment: module name, for messages.
        config_class: of the experiment.
        argv: the arguments.

    Raises:
        ValueError: no such file, or one that makes another kind of config.
        SystemExit: an unknown or ill-typed option, with the nearest spelling, code 2.
    """
    import tyro

    prog = f"python -m {experiment}"
    outer = argparse.ArgumentParser(
        prog, add_help=False, allow_abbrev=False, exit_on_error=False
    )
    outer.add_argument("--config", required="--help" not in argv and "-h" not in argv)
    outer.add_argument("--workdir")
    known, rest = outer.parse_known_args(argv)
    default, published = config_class(), []
    if known.config:
        default, published = _load(Path(known.config), config_class)
    config = tyro.cli(
        config_class,
        default=default,
        args=rest,
        prog=f"{prog} --config FILE --workdir DIR",
    )
    workdir = known.workdir or f"runs/{Path(known.config).stem}"
    line = f"{prog} {shlex.join(argv)}"
    return Command(config, Path(workdir), published, line)


def main(
    experiment: str,
    config_class: type,
    run: Callable[[Any, Path, Sequence[dict[str, Any]]], dict[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """The command line of an experiment: parse, run, print the result.

    Args:
        experiment: module name.
        config_class: of the experiment.
        run: `run(config, workdir, published)` gives the content of result.json.
        argv: the arguments; those of the process, unless given.

    Returns:
        The exit code, 130 where the run was stopped on request.

    Raises:
        SystemExit: bad input, code 2.
    """
    with clean_errors():
        command = parse(
            experiment, config_class, sys.argv[1:] if argv is None else argv
        )
        try:
            result = run(command.config, command.workdir, command.published)
        except KeyboardInterrupt as e:
            print(f"{str(e) or 'stopped'}; to go on:\n  {command.line}")
            return 130
    print(report(result))
    print(f"result and figures: {command.workdir}")
    return 0


def check_workdir(workdir: Path, config: Any) -> None:
    """Refuse a run's folder that holds another run.

    Raises:
        ValueError: a folder whose config differs in *what* is run; the fields are
            listed.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    theirs, ours, fixed = read_json(path), to_json(config), _what(config)
    differing = [
        f"{name} (there {theirs.get(name)!r}, here {ours.get(name)!r})"
        for name in sorted(theirs.keys() | ours.keys())
        if (name in fixed or name not in ours) and theirs.get(name) != ours.get(name)
    ]
    if differing:
        raise ValueError(
            f"{workdir} holds a run of another config: {', '.join(differing)}; "
            "choose another --workdir, or the same options to resume"
        )


def earlier_result(workdir: Path, config: Any) -> dict[str, Any] | None:
    """The result of a run that is finished, which is said; None where there is none.

    Raises:
        ValueError: as `check_workdir`.
    """
    check_workdir(workdir, config)
    path = workdir / "result.json"
    if not path.exists():
        return None
    print(f"{workdir} is finished; its result stands in {path}")
    return read_json(path)


def check_one_process(does: str) -> None:
    """Refuse several processes, for what works in one.

    Args:
        does: what the experiment does in it, for the message.

    Raises:
        ValueError: more than one.
    """
    if (count := jax.process_count()) > 1:
        raise ValueError(f"found {count} processes, needed one: this experiment {does}")


def check_at_least(least: int, values: dict[str, Any], names: Sequence[str]) -> None:
    """Refuse fields of a config that are smaller; those that are None are not asked.

    Args:
        least: what is needed.
        values: of `to_json`.
        names: of the fields.

    Raises:
        ValueError: a smaller one.
    """
    for name in names:
        if values[name] is not None and values[name] < least:
            raise ValueError(f"found {name} = {values[name]}, needed at least {least}")


@contextmanager
def open_workdir(workdir: Path, config: Any) -> Iterator[None]:
    """A run's folder with its config, held against other runs while the context lasts.

    The hold is a lock of the kernel's, which goes with the process however it dies.

    Raises:
        ValueError: as `check_workdir`, a folder that cannot be written, or one in which
            another run is at work.
    """
    import fcntl

    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / "lock").open("w")
    except OSError as e:
        raise ValueError(
            f"the workdir {workdir} cannot be written ({e.strerror}: {e.filename}); "
            "choose another --workdir"
        ) from e
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ValueError(
                f"another run is at work in {workdir}; wait for it, stop it, or choose "
                "another --workdir"
            ) from e
        check_workdir(workdir, config)
        write_json(workdir / "config.json", to_json(config))
        yield


def to_json(config: Any) -> dict[str, Any]:
    """The fields of a config by dotted name, as JSON has them.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Optim:
        ...     rate: float = 0.1
        >>> @dataclasses.dataclass(frozen=True)
        ... class Config:
        ...     optim: Optim = Optim()
        ...     ways: tuple[int, ...] = (5, 20)
        >>> to_json(Config())
        {'optim.rate': 0.1, 'ways': [5, 20]}
    """
    return {name: json.loads(json.dumps(value)) for name, value, _ in _fields(config)}


@contextmanager
def clean_errors() -> Iterator[None]:
    """Bad input as one line on stderr and exit code 2, in place of a traceback."""
    try:
        yield
    except (ValueError, argparse.ArgumentError) as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(2) from e


def _what(config: Any) -> set[str]:
    return {name for name, _, is_how in _fields(config) if not is_how}


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")
        else:
            is_how = bool(field.metadata.get("how"))
            yield f"{prefix}{field.name}", value, is_how


def _load(path: Path, config_class: type[C]) -> tuple[C, list[dict[str, Any]]]:
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.py"))
        raise ValueError(f"found no config {path}, {path.parent} has {there}")
    made = runpy.run_path(str(path))
    config = made.get("config")
    if not isinstance(config, config_class):
        raise ValueError(
            f"found config = {type(config).__name__} in {path}, "
            f"needed a {config_class.__module__}.{config_class.__name__}"
        )
    return config, list(made.get("published", []))
