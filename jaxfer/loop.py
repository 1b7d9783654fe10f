"""The loop: calls compiled steps, logs, saves, stops. It knows nothing of papers."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxfer.checkpoint import Checkpoints, Kind
from jaxfer.runlog import RunLog
from jaxfer.signals import stop_requests
from jaxfer.steps import CompiledStep
from jaxfer.stopping import Best
from jaxfer.types import TrainState

# Calls handed to the device before the oldest must be done: enough to hide the host,
# few enough that the bar and an interrupt are at most this far behind.
_IN_FLIGHT = 4
# Seconds between two looks at their metrics: often enough for a bar, and no cost beside
# steps of a millisecond.
_LAND_S = 0.2


class Ended(NamedTuple):
    """How a phase ended.

    Attributes:
        train_state: at its end; None where an earlier process ended it.
        steps: how many it took.
        best_step: of the lowest loss, 0 where none was looked for.
    """

    train_state: TrainState | None
    steps: int
    best_step: int


class Run:
    """A run in its folder: phases one after another, resumed where it stopped.

    Killed at any moment and started again by the same calls, it ends with bit-identical
    results on a CPU: a checkpoint knows its phase, how those before ended, the best
    loss with its step, and the log's position; what a step draws depends on its number
    alone.

    Args:
        workdir: the run's folder, which no other run may be using.
        fingerprint: of the data, which may not change while the run goes on.
        per_step: examples or episodes per step.
        unit: what they are.
        log_every: steps averaged to one line of metrics.jsonl.
        show: whether to draw a progress bar.
        events: whether to write TensorBoard events.
        steps_per_call: see `fit`.
        save_every: see `fit`.
        save_last: see `fit`.

    Attributes:
        folder: the run's folder.
        compilations: number of programs that the training steps of all phases compiled
            in this process.
        compile_s: seconds until the first call of each phase was done, mostly
            compilation.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        fingerprint: str,
        per_step: int = 1,
        unit: str = "episode",
        log_every: int = 100,
        show: bool = True,
        events: bool = True,
        steps_per_call: int = 1,
        save_every: int = 500,
        save_last: bool = True,
    ) -> None:
        """Open the checkpoints."""
        self.folder = Path(workdir)
        self._fingerprint = fingerprint
        self._log_options = {
            "per_step": per_step,
            "unit": unit,
            "every": log_every,
            "show": show,
            "events": events,
        }
        self._fit_options = {
            "steps_per_call": steps_per_call,
            "save_every": save_every,
            "save_last": save_last,
        }
        self._checkpoints = Checkpoints(workdir)
        self.compilations = 0
        self.compile_s = 0.0
        self._past: dict[str, list[int]] = {}
        self._position: dict[str, Any] | None = None
        self._looked = False
        self._found: dict[str, Any] | None = None

    def phase(
        self,
        name: str,
        step: CompiledStep,
        train_state: TrainState,
        data: PyTree | Callable[[int], Iterator[PyTree]],
        *,
        num_steps: int,
        evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
        eval_every: int = 0,
        best: Best | None = None,
    ) -> Ended:
        """Train from the newest checkpoint of this phase, or from the state given.

        Args:
            name: goes before its metrics' names; unlike those of the other phases.
            step: of `steps.compile_step`.
            train_state: its first state; a restored one is placed as it is. Its number
                of steps may go on from the phase before.
            data: see `fit`.
            num_steps: the step to end at, at the latest.
            evaluate, eval_every: see `fit`.
            best: where given, the best state is kept and the phase may stop early.

        Raises:
            KeyboardInterrupt: stopped on request, the state saved.
            ValueError: a checkpoint of a run on other data or of another network, or a
                metric that is not finite.
        """
        found, past, position = self._look(), self._past, self._position
        begun = int(train_state.step)
        if found:
            if name in found["past"]:
                past[name] = found["past"][name]
                return Ended(None, *past[name])
            self._found, position = None, found["log"]
            if found["phase"] == name:
                restored = self._checkpoints.restore(train_state)
                assert restored is not None  # noqa: S101
                train_state, begun = restored[0], found["begun"]
                if best is not None and found["best"]:
                    best.loss, best.step = found["best"]
                done = int(train_state.step)
                print(f"{name}: going on from step {done} of {num_steps}")
        first = sum(steps for steps, _ in past.values()) - begun

        def meta_now() -> dict[str, Any]:
            return {
                "fingerprint": self._fingerprint,
                "phase": name,
                "begun": begun,
                "past": past,
                "best": [best.loss, best.step] if best and best.step else None,
            }

        compiled = _compilations(step)
        with RunLog(
            self.folder,
            phase=name,
            first=first,
            start=int(train_state.step),
            num_steps=num_steps,
            position=position,
            **self._log_options,
        ) as log:
            train_state = fit(
                step,
                train_state,
                data,
                num_steps=num_steps,
                log=log,
                checkpoints=self._checkpoints,
                first=first,
                evaluate=evaluate,
                eval_every=eval_every,
                best=best,
                meta=meta_now,
                **self._fit_options,
            )
        self.compilations += _compilations(step) - compiled
        self.compile_s += log.compile_s
        self._position = log.position()
        past[name] = [int(train_state.step) - begun, best.step if best else 0]
        return Ended(train_state, *past[name])

    def best(self, like: TrainState) -> TrainState:
        """The best state of the one phase that looked for it.

        Args:
            like: a state of the same shapes, placed as this one is to be.
        """
        (step,) = [before + best for before, best in self._bests() if best]
        restored = self._checkpoints.restore(like, kind="best", step=step)
        assert restored is not None  # noqa: S101
        return restored[0]

    @property
    def wall_s(self) -> float:
        """Seconds of training and validation, those of earlier processes counted in."""
        return self._position["wall_s"] if self._position else 0.0

    @property
    def rate(self) -> float | None:
        """Examples or episodes a second, without compilation; see `RunLog.rate`."""
        return self._position["rate"] if self._position else None

    def _bests(self) -> Iterator[tuple[int, int]]:
        before = 0
        for steps, best_step in self._past.values():
            yield before, best_step
            before += steps

    def _look(self) -> dict[str, Any] | None:
        """What is known of the newest checkpoint, until its phase is gone on with."""
        if not self._looked:
            self._looked = True
            self._found = self._checkpoints.meta()
            if self._found and self._found["fingerprint"] != self._fingerprint:
                raise ValueError(
                    f"{self.folder} was started on data of fingerprint "
                    f"{self._found['fingerprint']}, got {self._fingerprint}: choose "
                    "another --workdir, or the data it was started on"
                )
            # Also where a kill came between the first best state and the first last.
            self._checkpoints.drop_best_after(self._checkpoints.latest_step() or 0)
        return self._found

    def __enter__(self) -> "Run":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the saves under way."""
        self._checkpoints.__exit__(*error)


def fit(
    step: CompiledStep,
    train_state: TrainState,
    data: PyTree | Callable[[int], Iterator[PyTree]],
    *,
    num_steps: int,
    log: RunLog,
    checkpoints: Checkpoints | None = None,
    first: int = 0,
    steps_per_call: int = 1,
    save_every: int = 500,
    save_last: bool = True,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    best: Best | None = None,
    meta: Callable[[], Mapping[str, Any]] = dict,
) -> TrainState:
    """Train until a step, from wherever the state is.

    A state is saved only once the metrics up to it are known to be finite, and after
    the evaluation that is due at its step. SIGINT (Ctrl-C) and SIGTERM finish the calls
    under way, save, and raise `KeyboardInterrupt`; a second one stops at once.

    Args:
        step: of `steps.compile_step`.
        train_state: donated to the first call.
        data: what `step` draws its batches from; or a function that gives, from a step
            on, the batches themselves, one a call (such as `data.stream`).
        num_steps: the step to end at.
        log: gets every step's metrics.
        checkpoints: where to save, nowhere unless given.
        first: steps of the run before these, counted in by the checkpoints' numbers.
        steps_per_call: steps of a call that reaches no further than the next save, the
            next evaluation or the end; all other calls make one step, so that at most
            two programs are compiled. With streamed batches every call makes one step.
        save_every, save_last: a state is saved at multiples, at the end, where best.
        evaluate: called every `eval_every` steps, its numbers go to the log.
        eval_every: 0 for `best.every`, or never.
        best: looks at the evaluations, and ends training once patience is exhausted.
        meta: what is saved with each checkpoint, beside the log's position.

    Returns:
        The state at the last step.

    Raises:
        KeyboardInterrupt: stopped on request, the state saved.
        ValueError: a metric that is not finite.
    """
    done = int(train_state.step)
    batches: Any = data(done) if callable(data) else itertools.repeat(data)
    steps_per_call = 1 if callable(data) else steps_per_call
    eval_every = eval_every or (best.every if best else 0)
    flying: list[dict[str, Any]] = []
    logged, landed_at = done, -math.inf

    def land(calls: int) -> None:
        nonlocal logged, landed_at
        if calls:
            logged = _log_calls(log, checkpoints, logged, flying[:calls])
            landed_at = time.monotonic()
            del flying[:calls]

    def land_ready() -> None:
        if len(flying) > _IN_FLIGHT:
            flying[-1 - _IN_FLIGHT]["loss"].block_until_ready()
        if time.monotonic() > landed_at + _LAND_S:
            ready = (call["loss"].is_ready() for call in flying)
            land(sum(itertools.takewhile(bool, ready)))

    def save(kind: Kind = "last") -> None:
        land(len(flying))
        if checkpoints is not None:
            known = {**meta(), "log": log.position()}
            checkpoints.save(first + done, train_state, known, kind=kind)

    def ended() -> bool:
        return done >= num_steps or bool(best and best.exhausted(done))

    def evaluated() -> bool:
        """Whether the state is the best by now."""
        if evaluate is None or not eval_every or done % eval_every:
            return False
        land(len(flying))
        metrics = evaluate(train_state)
        _check_finite(metrics, f"after step {done}", checkpoints)
        log.write(done, metrics)
        return best is not None and best.improved(done, metrics)

    with stop_requests() as stop_requested:
        while not ended():
            every = [number for number in (save_every, eval_every) if number]
            due = [(done // number + 1) * number for number in every]
            room = min(num_steps, *due) - done if due else num_steps - done
            # Two lengths only: each is a program, and compiling takes long.
            count = steps_per_call if steps_per_call <= room else 1
            train_state, metrics = step(train_state, next(batches), count=count)
            flying.append(metrics)
            done += count
            land_ready()
            is_best = evaluated()
            if ended():
                # Before the save, whose position must say that the line is written.
                land(len(flying))
                log.end(done)
            if is_best:
                save("best")
            last = save_last and ended()
            if is_best or last or (save_every and done % save_every == 0):
                save()
            if stop_requested():
                save()
                raise KeyboardInterrupt(f"stopped at step {done}, saved")
        if save_last:
            save()
    return train_state


def _compilations(step: CompiledStep) -> int:
    # A plain function around a compiled step does not say.
    return getattr(step, "thread_compilations", 0)


def _log_calls(
    log: RunLog,
    checkpoints: Checkpoints | None,
    logged: int,
    calls: Sequence[dict[str, Any]],
) -> int:
    """Log the metrics of some calls; returns how many steps are logged by now."""
    found: dict[str, list[float]] = {name: [] for name in calls[0]}
    for metrics in jax.device_get(calls):
        for name, x in metrics.items():
            # For a population, the mean over its networks.
            flat = x.ravel() if x.size == len(x) else x.reshape(len(x), -1).mean(1)
            found[name] += flat.tolist()
    steps = len(found["loss"])
    finite = np.isfinite([*found.values()])
    bad = steps if finite.all() else int(np.argmin(finite.all(axis=0)))
    if bad:
        log.train(logged + bad, {name: values[:bad] for name, values in found.items()})
    if bad < steps:
        number = logged + bad + 1
        row = {name: values[bad] for name, values in found.items()}
        _check_finite(row, f"of step {number} ({log.examples(number)})", checkpoints)
    return logged + steps


def _check_finite(
    metrics: Mapping[str, float], when: str, checkpoints: Checkpoints | None
) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            saved = checkpoints and checkpoints.latest_step()
            raise ValueError(
                f"expected a finite {name} {when}, got {value}; the last good "
                f"checkpoint is of step {saved}"
            )
