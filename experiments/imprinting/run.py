"""An imprinting study, from data to result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.imprinting import report
from experiments.imprinting.config import Config, check
from experiments.imprinting.train import Trainer
from experiments.studies import run_study


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train the missing networks and write the result; see `run_study`."""

    def result(whole: Config, queue: Any, records: Any, trainer: Trainer) -> dict:
        parts = trainer.train_set, trainer.test_set
        splits = {network.seed: trainer.split(network.seed) for network in queue}
        return report.make_result(whole, queue, records, *parts, splits, published)

    return run_study(config, workdir, check=check, trainer=Trainer, result=result)
