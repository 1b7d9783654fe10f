"""The training loop: it calls compiled steps, logs metrics, saves states and stops."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxfer import distributed
from jaxfer.checkpoint import Checkpoints, Kind
from jaxfer.runlog import RunLog
from jaxfer.signals import AllStopped, stop_requests
from jaxfer.steps import CompiledStep
from jaxfer.stopping import Best, Length
from jaxfer.types import TrainState

# Maximum number of unfinished calls on the device: enough to keep it busy, and few
# enough that the progress bar and an interrupt lag by at most this many calls.
_IN_FLIGHT = 4
# Minimum seconds between two reads of the metrics of finished calls: often enough for
# a progress bar, and cheap compared with steps of a millisecond.
_LAND_S = 0.2


class Ended(NamedTuple):
    """How a phase ended.

    Attributes:
        train_state: the state at its end; None where an earlier process ended it.
        steps: the number of steps it took.
        best_step: the step of the lowest loss; 0 where no best state was selected.
    """

    train_state: TrainState | None
    steps: int
    best_step: int


class Run:
    """A run in its folder: phases one after another, resumed where it stopped.

    A run that is killed at any moment and started again by the same calls ends with
    bit-identical results on a CPU: a checkpoint stores its phase, how earlier phases
    ended, the best loss with its step, and the log's position; the random numbers of a
    step depend on its number only.

    Args:
        workdir: the run's folder, which no other run may be using.
        fingerprint: the hash of the data; a run can be resumed only with the same hash.
        steps_per_call: see `fit`.
        save_every: see `fit`.
        save_last: see `fit`.
        log: arguments of the `RunLog` of every phase, such as `per_step` and `unit`.

    Attributes:
        folder: the run's folder.
        compilations: number of programs that the training steps of all phases compiled
            in this process.
        compile_s: seconds until the first call of each phase was done; this is mostly
            compilation.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        fingerprint: str,
        steps_per_call: int = 1,
        save_every: int = 500,
        save_last: bool = True,
        **log: Any,
    ) -> None:
        """Open the checkpoints, once all processes have read their data."""
        # Orbax waits for all processes without end.
        distributed.barrier("the start of the training")
        self.folder = Path(workdir)
        self._fingerprint = fingerprint
        self._log_options = log
        self._fit_options: dict[str, Any] = dict(
            steps_per_call=steps_per_call, save_every=save_every, save_last=save_last
        )
        self._checkpoints = Checkpoints(workdir)
        self.compilations = 0
        self.compile_s = 0.0
        self._past: dict[str, list[int]] = {}
        self._lengths: dict[str, list[int | None]] = {}
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
        schedule: int | None = None,
        evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
        eval_every: int = 0,
        best: Best | None = None,
    ) -> Ended:
        """Train from the newest checkpoint of this phase, or from the state given.

        A finished phase goes on if `num_steps` is larger than before.

        Args:
            name: the prefix of its metrics' names; unique among the phases.
            step: the step, made by `steps.compile_step`.
            train_state: its first state, placed as a restored state should be. Its step
                may continue that of the phase before.
            data: see `fit`.
            num_steps: the step at which the phase ends at the latest.
            schedule: the number of steps that its learning rates depend on, if any.
            evaluate, eval_every: see `fit`.
            best: if given, the best state is kept and the phase may stop early.

        Raises:
            KeyboardInterrupt: stopped on request, with the state saved.
            ValueError: a checkpoint of a run on other data, of another network or of
                another length (see `Length`), or a metric that is not finite.
        """
        found, past, position = self._look(), self._past, self._position
        self._lengths[name] = [num_steps, schedule]
        begun = int(train_state.step)
        if found:
            Length(num_steps, schedule).check(name, found, best)
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
                "lengths": self._lengths,
                "best": [best.loss, best.step] if best and best.step else None,
            }

        # A plain function that wraps a compiled step has no such attribute.
        compiled = getattr(step, "thread_compilations", 0)
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
        self.compilations += getattr(step, "thread_compilations", 0) - compiled
        self.compile_s += log.compile_s
        self._position = log.position()
        past[name] = [int(train_state.step) - begun, best.step if best else 0]
        return Ended(train_state, *past[name])

    def best(self, like: TrainState) -> TrainState:
        """The best state of the one phase that selected a best state.

        Args:
            like: a state with the same shapes and the wanted placement on devices.
        """
        (step,) = [before + best for before, best in self._bests() if best]
        restored = self._checkpoints.restore(like, kind="best", step=step)
        assert restored is not None  # noqa: S101
        return restored[0]

    @property
    def wall_s(self) -> float:
        """Seconds of training and validation, including earlier processes."""
        return self._position["wall_s"] if self._position else 0.0

    @property
    def rate(self) -> float | None:
        """Examples or episodes per second, without compilation; see `RunLog.rate`."""
        return self._position["rate"] if self._position else None

    def _bests(self) -> Iterator[tuple[int, int]]:
        before = 0
        for steps, best_step in self._past.values():
            yield before, best_step
            before += steps

    def _look(self) -> dict[str, Any] | None:
        """The meta of the newest checkpoint; None once its phase has been resumed."""
        if not self._looked:
            self._looked = True
            self._found = self._checkpoints.meta()
            if self._found and self._found["fingerprint"] != self._fingerprint:
                raise ValueError(
                    f"expected the data that {self.folder} was started on (fingerprint "
                    f"{self._found['fingerprint']}), got {self._fingerprint}: choose "
                    "another --workdir, or use the same data"
                )
            # If the run was killed before its first 'last' state was saved, it starts
            # again at step 0, and this line removes the best states saved so far.
            self._checkpoints.drop_best_after(self._checkpoints.latest_step() or 0)
            self._checkpoints.check_best()
        return self._found

    def __enter__(self) -> "Run":
        """Return this object."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for unfinished saves."""
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
    """Train from the step of the state until a given step.

    A state is saved only after the metrics up to it are known to be finite, and after
    the evaluation that is due at its step. SIGINT (Ctrl-C) and SIGTERM, to any process
    of the run, finish the running calls, save, and raise `KeyboardInterrupt` in all
    processes; a second one stops at once.

    Args:
        step: the step, made by `steps.compile_step`.
        train_state: the first state; it is donated to the first call.
        data: the data that `step` samples its batches from; or a function of a step
            that yields the batches from that step on, one per call (`data.stream`).
        num_steps: the step to end at.
        log: receives every step's metrics.
        checkpoints: where to save; default: nothing is saved.
        first: the step of the run minus the step of the state. It is added to the step
            numbers of checkpoints.
        steps_per_call: steps per call. If such a call would pass the next save, the
            next evaluation or the end, calls make one step each, so at most two
            programs are compiled. With streamed batches every call makes one step.
        save_every: steps between saves; 0 for none. A new best state is always saved.
        save_last: whether to save at the end as well.
        evaluate: called every `eval_every` steps; its numbers go to the log.
        eval_every: steps between evaluations; 0 for `best.every`, or never without it.
        best: reads the evaluations, and ends training once patience is exhausted.
        meta: returns what is saved with each checkpoint, besides the log's position.

    Returns:
        The state at the last step.

    Raises:
        KeyboardInterrupt: stopped on request, with the state saved.
        ValueError: fewer steps than are done, or a metric that is not finite.
    """
    if (done := int(train_state.step)) > num_steps:
        raise ValueError(
            f"expected at least {done} steps, which are done, got {num_steps}: choose "
            "another workdir for a shorter training"
        )
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
        """Evaluate if it is due, and return whether the state is the best so far."""
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
            # Use two lengths only: each needs its own program, slow to compile.
            count = steps_per_call if steps_per_call <= room else 1
            train_state, metrics = step(train_state, next(batches), count=count)
            flying.append(metrics)
            done += count
            land_ready()
            is_best = evaluated()
            if ended():
                # Log before saving: the saved position must include the written line.
                land(len(flying))
                log.end(done)
            if is_best:
                save("best")
            last = save_last and ended()
            if is_best or last or (save_every and done % save_every == 0):
                save()
            if distributed.stop_now(stop_requested.is_set()):
                save()
                raise AllStopped(f"stopped at step {done}, saved")
        if save_last:
            save()
    return train_state


def _log_calls(
    log: RunLog,
    checkpoints: Checkpoints | None,
    logged: int,
    calls: Sequence[dict[str, Any]],
) -> int:
    """Log the metrics of some calls, and return the number of steps logged so far."""
    found: dict[str, list[float]] = {name: [] for name in calls[0]}
    for metrics in jax.device_get(calls):
        for name, x in metrics.items():
            # For a population, take the mean over its networks.
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
            saved = checkpoints.latest_step() if checkpoints else None
            last = "no checkpoint was saved"
            if saved is not None:
                last = f"the last good checkpoint is of step {saved}"
            raise ValueError(f"expected a finite {name} {when}, got {value}; {last}")
