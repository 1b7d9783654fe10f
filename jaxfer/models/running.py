"""The run that a training logs to."""

import contextlib
import importlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxfer.loop import Run
from jaxfer.models.options import Options
from jaxfer.runlog import Logger, read_metrics


@contextlib.contextmanager
def open_run(
    workdir: str | Path | Run | None,
    *,
    fingerprint: str,
    per_step: int,
    unit: str,
    options: Options,
    logger: Logger | None = None,
) -> Iterator[Run]:
    """Open a run in a folder, or without checkpoints in a temporary one.

    Args:
        workdir: the folder; or an open run, which stays open; None for a temporary
            folder.
        fingerprint: the hash of the data.
        per_step: examples or episodes per step.
        unit: 'image' or 'episode', for messages.
        options: how to run.
        logger: called with every line of metrics.jsonl; default: `options.logger`.
    """
    if isinstance(workdir, Run):
        yield workdir
        return
    with contextlib.ExitStack() as stack:
        kept = workdir is not None
        if workdir is None:
            workdir = stack.enter_context(tempfile.TemporaryDirectory())
        yield stack.enter_context(
            Run(
                workdir,
                fingerprint=fingerprint,
                steps_per_call=options.steps_per_call,
                save_every=options.save_every if kept else 0,
                save_last=options.save_last and kept,
                per_step=per_step,
                unit=unit,
                every=options.log_every,
                show=options.progress,
                leave=options.leave_bar,
                events=options.tensorboard,
                logger=logger or _imported(options.logger),
            )
        )


def _imported(path: str | None) -> Logger | None:
    if path is None:
        return None
    module, colon, function = path.partition(":")
    try:
        if not colon:
            raise ValueError("it has no ':'")
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as e:
        raise ValueError(
            f"expected run.logger to be an import path such as my_package:log, got "
            f"{path!r}: {e}"
        ) from e


def evaluations(run: Run, phase: str) -> dict[int, Mapping[str, float]]:
    """The evaluations during a run by step, including earlier parts of the run.

    Args:
        run: the run.
        phase: the phase whose training metrics are left out.
    """
    if not (run.folder / "metrics.jsonl").exists():
        return {}
    found: dict[int, Mapping[str, float]] = {}
    for line in read_metrics(run.folder):
        names = [name for name in line if name not in ("step", "wall_s")]
        if not any(name.startswith(phase) for name in names):
            found[int(line["step"])] = {name: line[name] for name in names}
    return found
