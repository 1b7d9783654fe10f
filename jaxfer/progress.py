"""The progress bar of a training, with averages that move smoothly."""

import sys
from collections.abc import Mapping, Sequence

from tqdm.auto import tqdm

from jaxfer.stats import Mean


class Progress:
    """A progress bar that shows a moving average of each metric.

    After t steps it shows `sum_i d^(t-i) x_i / sum_i d^(t-i)` with `d = 1 - 1 / every`:
    an exponential average over about `every` steps, without bias at the start.

    Args:
        label: text in front of the bar.
        total: examples or episodes of the whole training.
        start: examples or episodes that are done already.
        unit: 'image' or 'episode'.
        every: steps that an average covers.
        show: whether to show the bar.
        leave: whether the bar stays on the screen. A bar that does not stay is shown on
            terminals only.
    """

    def __init__(
        self,
        label: str,
        *,
        total: int,
        start: int,
        unit: str,
        every: int,
        show: bool,
        leave: bool,
    ) -> None:
        """Open the bar."""
        terminal = sys.stderr.isatty()
        self._keep = 1 - 1 / every
        self._averages: dict[str, Mean] = {}
        self._bar = tqdm(
            desc=label,
            total=total,
            initial=start,
            unit=unit,
            disable=not show or not (leave or terminal),
            leave=leave,
            # A log file gets two lines per minute.
            mininterval=0.5 if terminal else 30,
            smoothing=0.1,
            # The default of tqdm, but always with a rate and never its inverse.
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]",
        )

    def update(self, done: int, metrics: Mapping[str, Sequence[float]]) -> None:
        """Add the metrics of some steps, and show the new averages.

        Args:
            done: examples or episodes in these steps.
            metrics: one number per step for each metric.
        """
        if self._bar.disable:
            return
        for name, values in metrics.items():
            total, weight = self._averages.get(name, Mean(0.0, 0.0))
            for value in values:
                total = self._keep * total + value
                weight = self._keep * weight + 1
            self._averages[name] = Mean(total, weight)
        # Some updates of the bar redraw it, others do not: tqdm decides.
        self._bar.set_postfix(self.averages(), refresh=False)
        self._bar.update(done)

    def averages(self) -> dict[str, str]:
        """The moving averages, as text of a constant number of digits."""
        return {name: f"{mean.value:.3f}" for name, mean in self._averages.items()}

    def close(self) -> None:
        """Finish the bar."""
        self._bar.close()
