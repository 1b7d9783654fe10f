"""The outputs of a run: metrics.jsonl, TensorBoard events, progress, result.json."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfer import distributed
from jaxfer.progress import Progress
from jaxfer.stats import Mean
from jaxfer.tensors import json_digest

# Called with a step and the numbers logged at it, by name.
Logger = Callable[[int, Mapping[str, float]], None]


class RunLog:
    """The log of training metrics: averaged, written, and shown on a progress bar.

    With several processes, process 0 alone writes and shows it.

    Args:
        workdir: the run's folder.
        phase: the prefix of the names of training metrics.
        first: steps of the run before this phase; the files add them to the step.
        start: the step that training starts from; later lines of an earlier run in the
            same folder are dropped, since these steps run again.
        num_steps: the step at which training ends.
        every: steps averaged in one line of metrics.jsonl.
        per_step: examples or episodes per step, for the rate.
        unit: 'image' or 'episode', for messages.
        show: whether to show the progress bar.
        leave: whether the bar stays on the screen; otherwise it has the name of the
            folder, and is shown on terminals only.
        events: whether to write TensorBoard events, if tensorboardX is installed.
        logger: called as `logger(step, metrics)` with every line of metrics.jsonl.
        position: the position of the log that this one continues.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        phase: str = "train",
        first: int = 0,
        start: int = 0,
        num_steps: int,
        every: int = 100,
        per_step: int = 1,
        unit: str = "episode",
        show: bool = True,
        leave: bool = True,
        events: bool = True,
        logger: Logger | None = None,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the files."""
        before = position or {"wall_s": 0.0, "window": {}, "rate": None}
        path, silent = Path(workdir) / "metrics.jsonl", distributed.index() > 0
        if silent:
            path, show, events, logger = Path(os.devnull), False, False, None
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            _keep_lines(path, first + start)
        self._file = path.open("a")
        self._events = _event_writer(workdir, first + start) if events else None
        self._logger = logger
        self._phase = phase
        self._first_step = first
        self._every = every
        self._num_steps = num_steps
        self._window = {name: Mean(*pair) for name, pair in before["window"].items()}
        self._opened = time.monotonic()
        self._began = self._opened - before["wall_s"]
        self._rate_before = before["rate"]
        # Step and time when the first steps were done, after compilation, and the last.
        self._first: tuple[int, float] | None = None
        self._last = (start, self._began)
        self._bar = Progress(
            phase if leave else Path(workdir).name,
            total=num_steps * per_step,
            start=start * per_step,
            unit=unit,
            every=every,
            show=show,
            leave=leave,
        )
        self._per_step = per_step
        self._unit = unit

    def examples(self, step: int) -> str:
        """The numbers of the examples or episodes of a step, such as "episode 17"."""
        last = step * self._per_step - 1
        if self._per_step == 1:
            return f"{self._unit} {last}"
        return f"{self._unit}s {last - self._per_step + 1} to {last}"

    def train(self, step: int, metrics: Mapping[str, Sequence[float]]) -> None:
        """Log training metrics of the steps that were finished since the last call.

        Args:
            step: the number of steps done, including these.
            metrics: one number per step for each metric.
        """
        count = len(next(iter(metrics.values())))
        at, before = 0, step - count
        while at < count:
            room = self._every - (before + at) % self._every
            stop = min(count, at + room)
            for name, values in metrics.items():
                total, weight = self._window.get(name, Mean(0.0, 0.0))
                # Add them one by one: the mean does not depend on their grouping.
                for value in values[at:stop]:
                    total += value
                self._window[name] = Mean(total, weight + stop - at)
            at = stop
            if (before + at) % self._every == 0 or before + at == self._num_steps:
                self.end(before + at)
        shown = {k: v for k, v in metrics.items() if k != "learning_rate"}
        self._bar.update(count * self._per_step, shown)
        self._last = (step, time.monotonic())
        self._first = self._first or self._last

    def end(self, step: int) -> None:
        """Write the averages up to a step, if there are any."""
        means = {f"{self._phase}/{k}": float(x.value) for k, x in self._window.items()}
        self._window = {}
        if means:
            self.write(step, means)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write numbers at a step without averaging.

        Args:
            step: the number of steps of the phase that are done.
            metrics: one number per metric, named "split/metric".
        """
        step += self._first_step
        line = {"step": step, "wall_s": round(self.elapsed(), 3), **metrics}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, step)
        if self._logger is not None:
            self._logger(step, metrics)

    def rate(self) -> float | None:
        """Examples or episodes per second, without compilation; None at first.

        The first steps are left out, since they include compilation. The time of
        validation and saving between steps is included. If no steps were left to do,
        this is the rate of the log that this one continues.
        """
        first, began = self._first or self._last
        last, ended = self._last
        done = (last - first) * self._per_step
        return done / (ended - began) if done else self._rate_before

    @property
    def compile_s(self) -> float:
        """Seconds until the first steps were done, including compilation."""
        return self._first[1] - self._opened if self._first else 0.0

    def elapsed(self) -> float:
        """Seconds since the run began, including its earlier parts."""
        return time.monotonic() - self._began

    def position(self) -> dict[str, Any]:
        """The values a later log needs to continue this one without a difference."""
        return {
            "wall_s": self.elapsed(),
            "window": dict(self._window),
            "rate": self.rate(),
        }

    def close(self) -> None:
        """Finish the bar and the files."""
        self._bar.close()
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> "RunLog":
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the log."""
        self.close()


def read_json(path: str | Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        ValueError: a file that is not JSON, such as a truncated one.
    """
    try:
        return json.loads(Path(path).read_text())
    except ValueError as e:
        raise ValueError(f"expected JSON in {path}, which is damaged: {e}") from e


def write_result(workdir: str | Path, content: Mapping[str, Any]) -> None:
    """Write a run's result.json, with a checksum; `read_result` reads it."""
    known = plain(content)
    write_json(Path(workdir) / "result.json", {**known, "sha256": json_digest(known)})


def read_result(workdir: str | Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a run's result.json.

    Args:
        workdir: the folder of a finished run.
        needed: entries that it must have, besides the name of its experiment.

    Raises:
        ValueError: no result, a damaged one, one that differs from what was written,
            or one without these entries.
    """
    path = Path(workdir) / "result.json"
    if not path.is_file():
        raise ValueError(f"expected the result of a finished run, got no {path}")
    result = read_json(path)
    known = result if isinstance(result, Mapping) else {}
    if lost := [name for name in ("experiment", *needed) if name not in known]:
        raise ValueError(
            f"expected a result with {', '.join(lost)} in {path}, got none"
        )
    result = dict(known)
    # Results of earlier versions have no checksum.
    if result.pop("sha256", None) not in (None, json_digest(result)):
        raise ValueError(
            f"expected what was written in {path}, got other content: it is damaged or "
            "edited; remove it and start the same command again to make it anew"
        )
    return result


def read_metrics(workdir: str | Path) -> list[dict[str, float | int]]:
    """Return the lines of a run's metrics.jsonl.

    Raises:
        ValueError: a line that is no JSON object with a step.
    """
    path = Path(workdir) / "metrics.jsonl"
    return [_metrics_in(line, path, n) for n, line in enumerate(_lines(path), 1)]


def _lines(path: Path) -> list[str]:
    """The lines of a file with their ends; invalid bytes are replaced."""
    return path.read_text(errors="replace").splitlines(keepends=True)


def _metrics_in(line: str, path: Path, number: int) -> dict[str, float | int]:
    try:
        found = json.loads(line)
        if not isinstance(found["step"], int):
            raise TypeError("no step")
    except (ValueError, TypeError, KeyError) as e:
        raise ValueError(
            f"expected metrics with a step in {path}, line {number}, got "
            f"{line.strip()[:60]!r}: the file is damaged or of another program; move "
            "it away, or choose another --workdir"
        ) from e
    return found


def compare(
    metrics: Mapping[str, Mapping[str, Any]], published: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Compare published values with ours, for the `reference` of a result file.

    The tolerance is one-sided: a value better than the published one is always within
    it. Where the run did not measure the published metric, `ours` and `within` are
    None.

    Args:
        metrics: the metrics of the result.
        published: per value the name of a metric, the value, a tolerance and a source.

    Example:
        >>> row = {"name": "a", "value": 99.0, "tolerance": 0.5, "source": "T1"}
        >>> compare({"a": {"mean": 98.6}}, [row])[0]["within"]
        True
    """
    rows = []
    for row in published:
        ours = metrics.get(row["name"], {}).get("mean")
        within = None if ours is None else ours >= row["value"] - row["tolerance"]
        rows.append({**row, "ours": ours, "within": within})
    return rows


def write_events(
    workdir: str | Path,
    step: int,
    metrics: Mapping[str, Mapping[str, Any]],
    figures: Iterable[Path] = (),
) -> None:
    """Add the metrics and figures of a result to the TensorBoard events of a run.

    Nothing is written if tensorboardX is not installed.

    Args:
        workdir: the folder of the run.
        step: the step at which they are shown.
        metrics: the metrics of the result; their means are written.
        figures: paths of PNG files.
    """
    if (writer := _event_writer(workdir)) is None:
        return
    for name, metric in metrics.items():
        writer.add_scalar(name, metric["mean"], step)
    for path in figures:
        # Figures exist only if matplotlib is installed.
        from matplotlib.image import imread

        writer.add_image(path.stem, imread(path)[..., :3], step, dataformats="HWC")
    writer.close()


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file completely or not at all, with NaN and infinity as null."""
    _write_whole(Path(path), json.dumps(plain(content), indent=1) + "\n")


def plain(content: Any) -> Any:
    """Convert values to what JSON holds: lists for arrays, None for NaN and infinity.

    Example:
        >>> plain({"rates": (0.1, float("nan")), "n": np.int32(3)})
        {'rates': [0.1, None], 'n': 3}
    """
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if isinstance(content, (np.generic, np.ndarray, jax.Array)):
        return plain(np.asarray(content).tolist())
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def _keep_lines(path: Path, start: int) -> None:
    if path.exists():
        # A line that was truncated by a kill has no line break.
        whole = [line for line in _lines(path) if line.endswith("\n")]
        kept = [
            line
            for n, line in enumerate(whole, 1)
            if _metrics_in(line, path, n)["step"] <= start
        ]
        _write_whole(path, "".join(kept))


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def _event_writer(workdir: str | Path, start: int | None = None) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    purged = None if start is None else start + 1
    return SummaryWriter(str(Path(workdir) / "events"), purge_step=purged)
