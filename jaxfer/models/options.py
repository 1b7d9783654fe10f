"""Options of a training that do not change its result."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from jaxfer.ranges import Amount, Count, NotNegative, Range, check_ranges


@dataclass(frozen=True)
class Options:
    """How to run. Results do not depend on these, and they may change on resume."""

    steps_per_call: Count = 1
    """Steps per compiled call, at least 1; increase it if the overhead of calls is
    large."""
    save_every: Amount = 500
    """Steps between checkpoints, at least 0; 0 for none before the end."""
    log_every: Count = 50
    """Steps averaged in one line of metrics.jsonl, at least 1."""
    limit: NotNegative = 4.0
    """Gigabytes of pixels, at least 0, kept on a device; larger data are streamed."""
    workers: Annotated[int, Range(1, 1024)] = 2
    """Threads that decode images and read streamed data, at least 1."""
    cache_limit: NotNegative = 2.0
    """Gigabytes of cached activations, at least 0, kept on a device; more are kept on
    disk."""
    progress: bool = True
    """Show a progress bar."""
    tensorboard: bool = True
    """Write TensorBoard events, if tensorboardX is installed."""
    logger: str | None = None
    """Import path of a function log(step, metrics), such as my_package:log, that is
    called with every line of metrics.jsonl; default: none."""
    save_last: bool = True
    """Save a checkpoint at the end; studies ignore this and save none."""
    leave_bar: bool = True
    """Leave the progress bar on the screen when training ends."""

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges."""
        check_ranges(self)

    def for_member(self) -> "Options":
        """The options of a study's member: its record replaces checkpoint and bar."""
        return dataclasses.replace(self, save_last=False, leave_bar=False)


DEFAULTS = Options()
