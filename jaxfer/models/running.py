"""Options of a training that do not change its result, and the run it logs to."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxfer.loop import Run
from jaxfer.runlog import read_metrics


@dataclass(frozen=True)
class Options:
    """How to run. Results do not depend on these, and they may change on resume."""

    steps_per_call: int = 1
    """Steps per compiled call; increase it if the overhead of calls is large."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 50
    """Steps averaged in one line of metrics.jsonl."""
    limit: float = 4.0
    """Gigabytes of pixels kept on a device; larger data are streamed."""
    workers: int = 2
    """Threads that decode images and read streamed data."""
    cache_limit: float = 2.0
    """Gigabytes of activations kept on a device; more are kept on disk."""
    progress: bool = True
    """Show a progress bar."""
    tensorboard: bool = True
    """Write TensorBoard events, if tensorboardX is installed."""
    save_last: bool = True
    """Save a checkpoint at the end."""

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges."""
        for name in ("steps_per_call", "log_every", "workers"):
            if not getattr(self, name) >= 1:
                raise ValueError(
                    f"expected {name} of at least 1, got {getattr(self, name)}"
                )
        for name in ("save_every", "limit", "cache_limit"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"expected {name} of at least 0, got {getattr(self, name)}"
                )

    def without_last_save(self) -> "Options":
        """The same options without a last checkpoint, if results are kept elsewhere."""
        return dataclasses.replace(self, save_last=False)


DEFAULTS = Options()


@contextlib.contextmanager
def open_run(
    workdir: str | Path | Run | None,
    *,
    fingerprint: str,
    per_step: int,
    unit: str,
    options: Options,
) -> Iterator[Run]:
    """Open a run in a folder, or without checkpoints in a temporary one.

    Args:
        workdir: the folder; or an open run, which stays open; None for a temporary
            folder.
        fingerprint: the hash of the data.
        per_step: examples or episodes per step.
        unit: 'image' or 'episode', for messages.
        options: how to run.
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
                per_step=per_step,
                unit=unit,
                log_every=options.log_every,
                show=options.progress,
                events=options.tensorboard,
                steps_per_call=options.steps_per_call,
                save_every=options.save_every if kept else 0,
                save_last=options.save_last and kept,
            )
        )


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
