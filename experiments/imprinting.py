"""Imprinted weights (Qi et al. 2018): a trained classifier meets new classes.

    python -m experiments.imprinting --config configs/glyphs_imprinting.py

trains classifiers of base classes, adds novel ones from 1 to 20 examples each by
imprinting, at random, or as nearest neighbours, fine-tunes some of these, and measures
on test images what is known of old and new classes. The same line goes on after any
stop: networks that are done are not trained again.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import imprinting_result as results
from experiments.backbone import load_parts
from experiments.imprinting_config import Config, check
from experiments.imprinting_members import members
from experiments.imprinting_study import Study
from experiments.members import findings_table
from jaxfer import config as configs
from jaxfer import runlog


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train every network that is not yet there, and write the result.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    configs.check_one_process("runs on one device")
    if (earlier := configs.earlier_result(workdir, config)) is not None:
        return earlier
    check(config)
    train, test = load_parts(config.data, streams=True)
    queue = members(config)
    study = Study(config, workdir, train, test)
    study.check(queue)
    with configs.open_workdir(workdir, config):
        study.train(queue)
        result = results.make_result(
            config, workdir, queue, train, test, study.base, published
        )
        print(results.tables(result), end="\n\n")
        print(findings_table(result))
        if config.figures:
            results.draw(workdir, result)
        # Last: a study is finished where it stands.
        runlog.write_json(workdir / "result.json", result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    return configs.main("experiments.imprinting", Config, run, argv)


if __name__ == "__main__":
    # Config files import this module by name, and a class is one class only once.
    from experiments.imprinting import main as named_main

    sys.exit(named_main())
