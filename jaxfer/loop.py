"""The loop: calls compiled steps, logs, saves, stops. It knows nothing of papers."""

import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxfer.checkpoint import Checkpoints
from jaxfer.runlog import RunLog
from jaxfer.steps import CompiledStep
from jaxfer.types import TrainState

# Calls handed to the device before the oldest must be done: enough to hide the host,
# few enough that the bar and an interrupt are at most this far behind.
_IN_FLIGHT = 4


def train(
    workdir: str | Path,
    step: CompiledStep,
    train_state: TrainState,
    data: PyTree,
    *,
    fingerprint: str,
    num_steps: int,
    per_step: int = 1,
    unit: str = "episode",
    steps_per_call: int = 1,
    save_every: int = 500,
    log_every: int = 100,
) -> tuple[TrainState, RunLog]:
    """Train in a run's folder: from its newest checkpoint, or from the state given.

    Args:
        workdir: the run's folder.
        step: of `steps.compile_step`.
        train_state: the first state; one of a checkpoint is placed as it is.
        data: what `step` draws its batches from.
        fingerprint: of the data, which may not change while the run goes on.
        num_steps: the step to end at.
        per_step: examples or episodes a step.
        unit: what they are.
        steps_per_call: see `fit`.
        save_every: see `fit`.
        log_every: steps averaged to one line of metrics.jsonl.

    Returns:
        The state at `num_steps`, and the log, closed, for its rate and seconds.

    Raises:
        KeyboardInterrupt: stopped on request, the state saved.
        ValueError: a checkpoint of a run on other data, or a metric that is not finite.
    """
    meta: dict[str, Any] = {"fingerprint": fingerprint}
    with Checkpoints(workdir) as checkpoints:
        if restored := checkpoints.restore(train_state):
            train_state, meta = restored
            if meta["fingerprint"] != fingerprint:
                raise ValueError(
                    f"{workdir} was begun on data of fingerprint "
                    f"{meta['fingerprint']}, found {fingerprint}; choose another "
                    "--workdir, or the data it was begun on"
                )
            print(f"going on from step {int(train_state.step)} of {num_steps}")
        with RunLog(
            workdir,
            start=int(train_state.step),
            num_steps=num_steps,
            every=log_every,
            per_step=per_step,
            unit=unit,
            position=meta.get("log"),
        ) as log:
            train_state = fit(
                step,
                train_state,
                data,
                num_steps=num_steps,
                log=log,
                checkpoints=checkpoints,
                steps_per_call=steps_per_call,
                save_every=save_every,
                meta=meta,
            )
    return train_state, log


def fit(
    step: CompiledStep,
    train_state: TrainState,
    data: PyTree,
    *,
    num_steps: int,
    log: RunLog,
    checkpoints: Checkpoints | None = None,
    steps_per_call: int = 1,
    save_every: int = 500,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    meta: Mapping[str, Any] | None = None,
) -> TrainState:
    """Train until a step, from wherever the state is.

    A state is saved only once the metrics up to it are known to be finite. SIGINT
    (Ctrl-C) and SIGTERM finish the calls under way, save, and raise
    `KeyboardInterrupt`; a second one stops at once.

    Args:
        step: of `steps.compile_step`.
        train_state: donated to the first call.
        data: what `step` draws its batches from.
        num_steps: the step to end at.
        log: gets every step's metrics.
        checkpoints: where to save, nowhere unless given.
        steps_per_call: at most; a call ends where a save or an evaluation is due.
        save_every: a state is saved at its multiples, and at the end.
        evaluate: called every `eval_every` steps, its numbers go to the log.
        eval_every: 0 for never.
        meta: saved with each checkpoint, beside the log's position.

    Returns:
        The state at `num_steps`.

    Raises:
        KeyboardInterrupt: stopped on request, the state saved.
        ValueError: a metric that is not finite.
    """
    done = int(train_state.step)
    flying: deque[tuple[int, dict[str, Any]]] = deque()

    def land(most: int) -> None:
        while flying and (len(flying) > most or flying[0][1]["loss"].is_ready()):
            _log_call(log, checkpoints, *flying.popleft())

    def save() -> None:
        land(0)
        if checkpoints is not None:
            checkpoints.save(train_state, {**(meta or {}), "log": log.position()})

    with _stop_requests() as stop_requested:
        while done < num_steps:
            due = [_next(every, done) for every in (save_every, eval_every) if every]
            count = min(steps_per_call, num_steps - done, *(at - done for at in due))
            train_state, metrics = step(train_state, data, count=count)
            flying.append((done, metrics))
            done += count
            land(_IN_FLIGHT)
            if done == num_steps or (save_every and done % save_every == 0):
                save()
            if evaluate is not None and eval_every and done % eval_every == 0:
                land(0)
                log.write(done, evaluate(train_state))
            if stop_requested():
                save()
                raise KeyboardInterrupt(f"stopped at step {done}, saved")
    return train_state


def _next(every: int, done: int) -> int:
    return (done // every + 1) * every


def evaluate_episodes(
    accuracies: Callable[[PyTree, np.ndarray], jax.Array],
    data: PyTree,
    *,
    episodes: int,
    block: int = 100,
) -> np.ndarray:
    """The accuracies of episodes 0 to `episodes` - 1, in percent.

    Args:
        accuracies: of `steps.make_episode_eval`.
        data: what it draws from.
        episodes: how many.
        block: episodes a call.
    """
    block = min(block, episodes)
    # Numbers past the last fill the last block, so that there is one shape to compile.
    starts = range(0, episodes, block)
    calls = [
        accuracies(data, np.arange(start, start + block, dtype=np.uint32))
        for start in starts
    ]
    return 100 * np.concatenate(jax.device_get(calls))[:episodes].astype(np.float64)


def _log_call(
    log: RunLog, checkpoints: Checkpoints | None, before: int, metrics: dict[str, Any]
) -> None:
    fetched = {k: np.ravel(x).tolist() for k, x in jax.device_get(metrics).items()}
    values = zip(*fetched.values(), strict=True)
    rows = [dict(zip(fetched, row, strict=True)) for row in values]
    for number, row in enumerate(rows, before + 1):
        for name, value in row.items():
            if not math.isfinite(value):
                saved = checkpoints and checkpoints.latest_step()
                raise ValueError(
                    f"the {name} of step {number} is {value}, needed a finite one; "
                    f"the last good checkpoint is of step {saved}"
                )
        log.train(number, row)
    log.landed(before + len(rows))


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Whether a stop has been asked for, in place of the exceptions of signals."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(signum: int, frame: Any) -> None:
        asked.set()
        for s, handler in before.items():
            signal.signal(s, handler)

    for s in before:
        signal.signal(s, ask)
    try:
        yield asked.is_set
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
