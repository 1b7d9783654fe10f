"""When to stop: the length of a phase, the best evaluation, and patience."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Length(NamedTuple):
    """How long a phase of a run trains.

    Attributes:
        num_steps: the step at which it ends at the latest.
        schedule: the number of steps that its learning rates depend on; None if the
            rate of a step does not depend on the length of the training.
    """

    num_steps: int
    schedule: int | None = None

    def check(
        self, name: str, meta: Mapping[str, Any], best: "Best | None" = None
    ) -> None:
        """Refuse a phase that cannot go on from a checkpoint for this length.

        Args:
            name: the name of the phase.
            meta: the meta of the newest checkpoint of the run: its current "phase", the
                steps of "past" phases, and the "lengths" of all of them.
            best: given if patience may end the phase.

        Raises:
            ValueError: a schedule of another length, or another number of steps for a
                phase whose last state is gone.

        Example:
            >>> meta = {"phase": "train", "past": {}, "lengths": {"train": [100, 100]}}
            >>> Length(200, 200).check("train", meta)
            Traceback (most recent call last):
            ...
            ValueError: expected 100 steps of train as before, since its learning ...
        """
        if name not in meta.get("lengths", {}):
            return
        before, past = Length(*meta["lengths"][name]), meta["past"].get(name)
        if best is not None and past and past[0] < before.num_steps:
            # Patience ended it: a higher limit changes nothing.
            return
        ours, theirs, why = self.num_steps, before.num_steps, ""
        if self.schedule and before.schedule and self.schedule != before.schedule:
            ours, theirs = self.schedule, before.schedule
            why = "since its learning rates depend on their number"
        elif past and ours != theirs:
            why = "since a later phase has begun"
        if why:
            raise ValueError(
                f"expected {theirs} steps of {name} as before, {why}, got {ours}: "
                "choose another workdir to train for another length"
            )


@dataclass
class Best:
    """The step of the lowest loss, and when to stop waiting for a lower one.

    Attributes:
        every: steps between evaluations.
        patience: number of evaluations without improvement that are tolerated; one more
            ends training (the released code of Snell et al. 2017 counts this way).
        monitor: name of the loss among the evaluated metrics.
        loss: the lowest loss so far.
        step: the step of the lowest loss; 0 before the first evaluation.
    """

    every: int
    patience: int
    monitor: str = "val/loss"
    loss: float = math.inf
    step: int = 0

    def improved(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Record an evaluation, and return whether it is the best so far."""
        lower = metrics[self.monitor] < self.loss
        if lower:
            self.loss, self.step = float(metrics[self.monitor]), step
        return lower

    def exhausted(self, step: int) -> bool:
        """Whether training should stop.

        Example:
            >>> best = Best(every=100, patience=2, step=500)
            >>> best.exhausted(700), best.exhausted(800)
            (False, True)
        """
        return (step - self.step) // self.every > self.patience
