"""The command line of the imprinting study."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.imprinting import report
from experiments.imprinting.config import Config, check
from experiments.imprinting.members import networks
from experiments.imprinting.train import Trainer
from experiments.inputs import load_parts
from experiments.studies import finish, train_study
from jaxfer import config as configs
from jaxfer import workdir as workdirs
from jaxfer.study import report_lock


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train every network that is not yet there, and write the result and its figures.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    configs.check_one_process("spreads over the devices of one host")
    if (earlier := workdirs.earlier_result(workdir, config, grows=True)) is not None:
        return earlier
    check(config)
    train, test = load_parts(config.data, limit=config.run.limit)
    trainer = Trainer(config, workdir, train, test)
    whole, queue, records = train_study(config, workdir, trainer, networks)
    splits = {network.seed: trainer.split(network.seed) for network in queue}
    with report_lock(workdir):
        result = report.make_result(
            whole, queue, records, train, test, splits, published
        )
        print(report.tables(result["rows"], whole.dim), end="\n\n")
        return finish(workdir, result, figures=config.figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return configs.main("experiments.imprinting", Config, run, argv)


if __name__ == "__main__":
    sys.exit(main())
