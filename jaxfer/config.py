"""Typed configs: read from a file, overridden by name, compared on resume.

A config is a frozen dataclass of dataclasses. Its fields say *what* is run. Fields
marked with `how` may change when a run is resumed (data directory, logging, steps per
call): results do not depend on them.
"""

import argparse
import contextlib
import dataclasses
import difflib
import errno
import importlib
import io
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jaxfer import distributed
from jaxfer.clusters import PLACES
from jaxfer.config_files import load_config
from jaxfer.echoes import echoes_hidden
from jaxfer.signals import AllStopped, interruptible

# Errors of the system that a user can mend.
_ERRNOS = {
    getattr(errno, name)
    for name in (
        *("EACCES", "EEXIST", "EIO", "EISDIR", "ELOOP", "EMFILE", "ENAMETOOLONG"),
        *("EBUSY", "ENOTDIR", "ENOTEMPTY", "EPERM", "EROFS", "ESTALE", "ETIMEDOUT"),
    )
}
_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")


def how(default: Any) -> Any:
    """A field that says how to run, not what to run: it may change on resume.

    If the field holds a dataclass, this applies to all fields of that dataclass.
    """
    return dataclasses.field(default=default, metadata={"kind": "how"})


def which(default: tuple[Any, ...]) -> Any:
    """A field that selects members of a study: seeds, splits, layers, treatments.

    More values may be added to a finished study, and the comparison with published
    values does not depend on them.
    """
    return dataclasses.field(default=default, metadata={"kind": "which"})


def length(default: int) -> Any:
    """A field that says how long to train: more of it may go on from a shorter run."""
    return dataclasses.field(default=default, metadata={"kind": "length"})


class Command(NamedTuple):
    """A parsed command line.

    Attributes:
        config: the config in the file, with the overrides applied.
        workdir: the folder of the run.
        published: the published values listed in the config file.
        start_timeout: seconds that the processes of the run wait for its start.
        places: the variables JAX_... that options set.
    """

    config: Any
    workdir: Path
    published: Sequence[dict[str, Any]]
    start_timeout: int
    places: Mapping[str, str]


def parse(experiment: str, config_class: type, argv: Sequence[str]) -> Command:
    """Read `--config FILE --workdir DIR [--a.b VALUE ...]`.

    The file is a Python module whose `config` is an instance of `config_class`. Its
    optional `published` lists the values to compare with. The options
    --coordinator-address, --num-processes and --process-id take precedence over the
    variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
        experiment: the module name, for messages.
        config_class: the config class of the experiment.
        argv: the arguments.

    Raises:
        ValueError: no such file, or a file with another kind of config; an unknown
            option (the message suggests the nearest one), or a value not allowed.
        SystemExit: after printing the help, with code 0.
    """
    prog = f"python -m {experiment}"
    helped = "--help" in argv or "-h" in argv
    outer = argparse.ArgumentParser(
        prog, add_help=False, allow_abbrev=False, exit_on_error=False
    )
    outer.add_argument("--config", required=not helped, help="config file")
    outer.add_argument("--workdir", help="folder of the run; default: runs/CONFIG")
    outer.add_argument(
        "--start-timeout",
        type=int,
        default=distributed.WAIT_S,
        help="seconds to wait for the other processes at the start (default: 1800)",
    )
    for variable, text in PLACES.items():
        outer.add_argument(f"--{_option(variable)}", dest=variable, help=text)
    if helped:
        print(outer.format_help())
    known, rest = outer.parse_known_args(argv)
    if known.start_timeout < 1:
        raise ValueError(
            f"expected --start-timeout of at least 1, got {known.start_timeout}"
        )
    default, published = config_class(), []
    if known.config:
        default, published = load_config(Path(known.config), config_class)
    if known.workdir == "":
        raise ValueError("expected the path of a folder as --workdir, got ''")
    config = _override(default, rest, f"{prog} --config FILE --workdir DIR")
    published = _comparable(published, default, config)
    workdir = Path(known.workdir or f"runs/{Path(known.config).stem}")
    places = {name: getattr(known, name) for name in PLACES}
    places = {name: x for name, x in places.items() if x is not None}
    return Command(config, workdir, published, known.start_timeout, places)


def _option(variable: str) -> str:
    """The option that stands for a variable JAX_..., without its dashes."""
    return variable.removeprefix("JAX_").lower().replace("_", "-")


def _override(default: Any, args: Sequence[str], prog: str) -> Any:
    """The default config, with the options of a command line applied."""
    import tyro

    _check_names(default, args)
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            config = tyro.cli(type(default), default=default, args=args, prog=prog)
    except SystemExit as e:
        if not e.code:
            raise
        raise ValueError(_refusal(shown.getvalue())) from None
    sys.stderr.write(shown.getvalue())
    return config


def _refusal(box: str) -> str:
    """The reason in the box that tyro prints, without its frame and its help."""
    lines = [line.strip("│| ") for line in box.splitlines()[1:]]
    lines = itertools.dropwhile(_is_rule, lines)
    text = " ".join(itertools.takewhile(lambda line: not _is_rule(line), lines))
    # What a dataclass of options says of its own field.
    return re.sub(r"^Error parsing ([\w.-]+): expected (\w+ )", r"expected \1.\2", text)


def _is_rule(line: str) -> bool:
    return not line.strip("─-+╭╮╰╯ ")


def _check_names(config: Any, args: Sequence[str]) -> None:
    """Refuse options that are not fields, and suggest the nearest field."""
    known = {"help", "config", "workdir", "start-timeout"}
    known |= {_option(variable) for variable in PLACES}
    for name, value, _ in fields_of(config):
        name = name.replace("_", "-")
        head, dot, last = name.rpartition(".")
        known |= {name, f"{head}{dot}no-{last}"} if isinstance(value, bool) else {name}
    for arg in args:
        name = arg.removeprefix("--").partition("=")[0].replace("_", "-")
        if not arg.startswith("--") or name in known:
            continue
        last = name.rpartition(".")[2]
        same = [other for other in sorted(known) if other.rpartition(".")[2] == last]
        near = same or difflib.get_close_matches(name, sorted(known), 1)
        hint = f": did you mean --{near[0]}?" if near else ", see --help"
        raise ValueError(f"unknown option --{name}{hint}")


def main(
    experiment: str,
    config_class: type,
    argv: Sequence[str] | None = None,
    *,
    together: bool = False,
) -> int:
    """The command line of an experiment: parse, run, print the result.

    Args:
        experiment: the name of a package. Its module `run` has a function
            `run(config, workdir, published)` that returns the content of result.json,
            its module `report` a function `tables(result)` that returns Markdown tables
            by title. They are imported after the options are read, so that --help is
            fast.
        config_class: the config class of the experiment.
        together: whether the processes that a cluster started train one model together.
            The processes of a study work on their own.
        argv: the arguments; default: those of the process.

    Returns:
        The exit code; 130 if the run was stopped on request.

    Raises:
        SystemExit: bad input, with code 2.
    """
    argv = sys.argv[1:] if argv is None else argv
    again = f"python -m {experiment} {shlex.join(argv)}"

    def stopped(why: str) -> None:
        if not distributed.index():
            print(f"{why}; to go on:\n  {again}")

    try:
        with (
            echoes_hidden(),
            clean_errors(),
            interruptible(),
            contextlib.ExitStack() as stack,
        ):
            command = parse(experiment, config_class, argv)
            began = distributed.begin(
                command.places,
                together=together,
                timeout=command.start_timeout,
                stopped=lambda: stopped("stopped by SIGTERM"),
            )
            if began:
                print(began)
            if distributed.index():
                # Process 0 speaks for all; errors of others are shown.
                silent = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(silent))
            run = importlib.import_module(f"{experiment}.run").run
            result = run(command.config, command.workdir, command.published)
            tables = importlib.import_module(f"{experiment}.report").tables(result)
            print(_summary(command.workdir, result, tables))
    except KeyboardInterrupt as e:
        stopped(str(e) or "stopped")
        distributed.leave(130, stop=not isinstance(e, AllStopped))
        return 130
    except BaseException as e:
        code = e.code if isinstance(e, SystemExit) else None
        distributed.leave(code if isinstance(code, int) else 1)
        raise
    return 0


def _summary(
    workdir: Path, result: Mapping[str, Any], tables: Mapping[str, str]
) -> str:
    """The first table of a result, and where to find the rest."""
    lines = [f"\n{title}:\n\n{table}\n" for title, table in tables.items()][:1]
    if findings := [f for f in result.get("findings", {}).values() if f["expects"]]:
        seen = [f["seen"] for f in findings]
        lines.append(
            f"findings of the paper: {seen.count(True)} seen, {seen.count(False)} not "
            f"seen, {seen.count(None)} undecided"
        )
    rest = {
        "tables": "tables.md",
        "figures": "figures",
        "model": "model.safetensors",
        "all metrics": "result.json",
    }
    there = [
        f"  {what}: {workdir / name}"
        for what, name in rest.items()
        if (workdir / name).exists()
    ]
    return "\n".join([*lines, *there])


def what_of(config: Any) -> dict[str, Any]:
    """The fields that say *what* is run, by dotted name, as JSON values.

    Fields that select members are left out: a member depends on its own values only.
    """
    every = to_json(config)
    kinds = ("what", "length")
    return {name: every[name] for name, _, kind in fields_of(config) if kind in kinds}


def check_at_least(least: int, values: dict[str, Any], names: Sequence[str]) -> None:
    """Refuse fields of a config below a minimum; fields that are None are skipped.

    Args:
        least: the minimum.
        values: the fields of the config, made by `to_json`.
        names: the names of the fields to check.

    Raises:
        ValueError: a field below the minimum.
    """
    for name in names:
        if values[name] is not None and values[name] < least:
            raise ValueError(f"expected {name} of at least {least}, got {values[name]}")


def to_json(config: Any) -> dict[str, Any]:
    """The fields of a config by dotted name, as JSON values.

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
    return {name: json.loads(json.dumps(value)) for name, value, _ in fields_of(config)}


@contextmanager
def clean_errors() -> Iterator[None]:
    """Report bad input as one line on stderr and exit code 2, without a traceback.

    So are disks and memory that are full, and files that cannot be used.
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError, argparse.ArgumentError) as e:
        if (text := _said(e)) is None:
            raise
        if not isinstance(e, distributed.Elsewhere):
            print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2) from e
    except MemoryError as e:
        print(f"error: expected more memory: {e}", file=sys.stderr)
        raise SystemExit(2) from e


def _said(error: Exception) -> str | None:
    """The line for an error that is no fault of the code; None for others."""
    text = " ".join(f"{error}".split())
    full = _FULL.search(text)
    if full and (isinstance(error, OSError) or "error" in text.lower()):
        return f"{full[0]}: make room, then start the same command again ({text[:200]})"
    if isinstance(error, OSError):
        known = error.errno in _ERRNOS and error.filename is not None
        return f"{error.strerror}: {error.filename}" if known else None
    if isinstance(error, RuntimeError):
        full = text.startswith("RESOURCE_EXHAUSTED")
        return f"expected more memory on the device: {text[:300]}" if full else None
    return text


def fields_of(
    config: Any, prefix: str = "", kind: str | None = None
) -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value and kind of every field: what, length, how or which."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        own = kind or field.metadata.get("kind")
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{prefix}{field.name}.", own)
        else:
            yield f"{prefix}{field.name}", value, own or "what"


def _comparable(
    published: list[dict[str, Any]], default: Any, config: Any
) -> list[dict[str, Any]]:
    """The published values, or [] if an option that they depend on was changed."""
    theirs, ours = what_of(default), what_of(config)
    changed = [name for name in ours if name != "seed" and ours[name] != theirs[name]]
    if published and changed:
        names = ", ".join(changed)
        print(f"no comparison with published values: this run changes {names}")
        return []
    return published
