"""When to stop: the best evaluation so far, and how long to wait for a better one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


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
