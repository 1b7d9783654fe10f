"""A zero-shot study, from data to result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.studies import run_study
from experiments.zero_shot import report
from experiments.zero_shot.config import Config, check
from experiments.zero_shot.features import load_classes
from experiments.zero_shot.train import Trainer


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train the missing maps and write the result; see `run_study`."""

    def result(whole: Config, queue: Any, records: Any, trainer: Trainer) -> dict:
        levels = whole.simulated.noise or (None,)
        parts = {
            name if level is None else f"{name}_noise{level:g}": part
            for level in levels
            for name, part in trainer.features(level).items()
            if name in ("trainval", "test")
        }
        names = trainer.attributes["test"].names
        return report.make_result(whole, queue, records, parts, names, published)

    return run_study(
        config,
        workdir,
        check=check,
        trainer=Trainer,
        result=result,
        load=load_classes,
    )
