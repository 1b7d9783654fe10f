"""The folder of a run: its config, its lock, and whether it is finished."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jaxfer import distributed
from jaxfer.config import fields_of, to_json
from jaxfer.runlog import read_json, read_result, write_json

# An option that every config of version 0.1 has, and no config of later versions.
_OLD = "data.limit"
_OTHER = "choose another --workdir"
# Options of earlier versions that said how to run.
_GONE = ("devices",)
# Why a study cannot train for longer.
_ENDED = (
    "networks of a study are trained to their end and their checkpoints are removed: "
    f"{_OTHER}"
)


def check_workdir(
    workdir: Path, config: Any, *, grows: bool = False, refusal: str | None = _OTHER
) -> None:
    """Refuse a run's folder that holds another run.

    Args:
        workdir: the folder.
        config: the config of the run.
        grows: whether it is a study, whose fields that select members may differ.
        refusal: why this run cannot go on from a shorter one in the folder, and what
            to do, for the message; None if it can.

    Raises:
        ValueError: a folder whose config differs in *what* is run; the message lists
            the fields.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    theirs, ours = _read_config(path), to_json(config)
    if _OLD in theirs and _OLD not in ours:
        raise ValueError(
            f"{workdir} holds a run of jaxfer 0.1, which cannot be resumed or "
            f"extended: {_OTHER}"
        )
    theirs = _with_later(config, theirs)
    differing = _differing(config, theirs, grows)
    listed = ", ".join(
        f"{name} = {theirs.get(name)!r} (got {ours.get(name)!r})" for name in differing
    )
    lengths = {name for name, _, kind in fields_of(config) if kind == "length"}
    if all(n in lengths and (theirs.get(n) or ours[n]) < ours[n] for n in differing):
        refusal = _ENDED if grows else refusal
        if differing and refusal is not None:
            raise ValueError(f"{workdir} holds a shorter run: {listed}; {refusal}")
        return
    raise ValueError(
        f"{workdir} holds a run of another config: {listed}; {_OTHER}, or the same "
        "options to resume"
    )


def _differing(config: Any, theirs: dict[str, Any], grows: bool = False) -> list[str]:
    """The fields that differ from another config, except those that may differ."""
    ours, free = to_json(config), {"how", "which"} if grows else {"how"}
    theirs = _with_later(config, theirs)
    fixed = {name for name, _, kind in fields_of(config) if kind not in free}
    return [
        name
        for name in sorted(theirs.keys() | ours.keys())
        if (name in fixed or name not in ours) and theirs.get(name) != ours.get(name)
    ]


def _with_later(config: Any, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A config of an earlier version with the defaults of later options."""
    kept = {name: value for name, value in theirs.items() if name not in _GONE}
    return {**to_json(type(config)()), **kept}


def earlier_result(
    workdir: Path, config: Any, *, grows: bool = False, refusal: str | None = _OTHER
) -> dict[str, Any] | None:
    """The result of a finished run, after printing its path; None where there is none.

    Args:
        workdir: the folder.
        config: the config of the run.
        grows: whether the run is a study, to which members can be added. A study is
            finished if its result covers all members that the config selects.
        refusal: see `check_workdir`.

    Raises:
        ValueError: see `check_workdir`.
    """
    check_workdir(workdir, config, grows=grows, refusal=refusal)
    path = workdir / "result.json"
    if not path.exists():
        return None
    result = read_result(workdir, ("config", "metrics", "reference"))
    ours, theirs = to_json(config), result["config"]
    if not grows and _differing(config, theirs):
        # It is the result of a shorter run, from which this one goes on.
        return None
    if grows:
        if result.get("lacking"):
            return None
        for name, _, kind in fields_of(config):
            if kind == "which" and not set(ours[name]) <= set(theirs.get(name) or ()):
                return None
    print(f"{workdir} is finished; its result is in {path}")
    return result


def join_workdir(workdir: Path, config: Any) -> Any:
    """Add a config to the study in a folder.

    Args:
        workdir: the folder, made where it is missing.
        config: the config whose members are added to those of the study.

    Returns:
        The config of the whole study: fields that select members hold the values of
        both configs.

    Raises:
        ValueError: a folder that cannot be written, or see `check_workdir`.
    """
    check_workdir(workdir, config, grows=True)
    path, whole = workdir / "config.json", config
    if path.exists():
        whole = _grown(config, _read_config(path))
    make_workdir(workdir)
    write_json(path, to_json(whole))
    return whole


def _read_config(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"expected the config of a run in {path}, got {found!r}")
    return found


def _grown(config: Any, theirs: dict[str, Any], prefix: str = "") -> Any:
    changes = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            changes[field.name] = _grown(value, theirs, f"{name}.")
        elif field.metadata.get("kind") == "which":
            before = tuple(theirs.get(name) or ())
            changes[field.name] = (*before, *(x for x in value if x not in before))
    return dataclasses.replace(config, **changes)


@contextmanager
def open_workdir(
    workdir: Path, config: Any, *, refusal: str | None = _OTHER
) -> Iterator[None]:
    """Write a run's config to its folder, and lock out other runs during the context.

    The lock is a kernel file lock, which is released when the process exits. With
    several processes, process 0 holds it.

    Args:
        workdir: the folder, made where it is missing.
        config: the config of the run.
        refusal: see `check_workdir`.

    Raises:
        ValueError: see `check_workdir`; a folder that cannot be written, or one in
            which another run is working.
    """
    with ExitStack() as locks:
        distributed.on_first(lambda: _claim(workdir, config, refusal, locks))
        yield


def _claim(workdir: Path, config: Any, refusal: str | None, locks: ExitStack) -> None:
    """Lock the folder of a run and write its config."""
    import fcntl

    make_workdir(workdir)
    try:
        lock = locks.enter_context((workdir / "lock").open("a"))
    except OSError as e:
        raise _unwritable(workdir, e) from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise ValueError(
            f"another run is working in {workdir}: wait for it, stop it, or {_OTHER}"
        ) from e
    check_workdir(workdir, config, refusal=refusal)
    path = workdir / "config.json"
    # A shorter run keeps its config and its result until `replace_run`.
    if not path.exists() or not _differing(config, _read_config(path)):
        write_json(path, to_json(config))


def replace_run(workdir: Path, config: Any) -> None:
    """Replace the config of a shorter run, and remove its result.

    Call this when a run has trained, before its results are written.

    Args:
        workdir: the folder, opened by `open_workdir`.
        config: the config of the longer run; or of the same one, which changes nothing.
    """
    (workdir / "result.json").unlink(missing_ok=True)
    write_json(workdir / "config.json", to_json(config))


def make_workdir(workdir: Path) -> None:
    """Make the folder of a run if it is missing.

    Raises:
        ValueError: a folder that cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise _unwritable(workdir, e) from e


def _unwritable(workdir: Path, e: OSError) -> ValueError:
    return ValueError(
        f"the workdir {workdir} cannot be written ({e.strerror}: {e.filename}): "
        f"{_OTHER}"
    )
