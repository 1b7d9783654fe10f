"""Layer transfer (Yosinski et al. 2014): which layers of a network carry over?

    python -m experiments.layer_transfer --config configs/glyphs_layer_transfer.py

trains base networks on halves of the classes, copies the first n layers of each to
networks for its own half (selffer) and for the other (transfer), frozen and fine-tuned,
and measures on test images what that costs, paired by target task. The same line goes
on after any stop: networks that are done are not trained again.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import layer_transfer_result as results
from experiments.backbone import load_parts, make_net
from experiments.layer_transfer_config import Config, check
from experiments.layer_transfer_members import members
from experiments.layer_transfer_study import Study
from experiments.members import findings_table
from jaxfer import config as configs
from jaxfer import runlog
from jaxfer.transfer import check_layers


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train every network that is not yet there, and write the result and its figures.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    configs.check_one_process("spreads over the devices of one host")
    if (earlier := configs.earlier_result(workdir, config)) is not None:
        return earlier
    check(config)
    train, test = load_parts(config.data)
    net = make_net(config.net, 2)
    queue = members(config, train.class_names, len(net.layers))
    for member in queue:
        if member.treatment is not None:
            check_layers(net, member.treatment)
    study = Study(config, workdir, train, test)
    study.check(queue)
    with configs.open_workdir(workdir, config):
        study.train(queue)
        result = results.make_result(config, workdir, queue, train, test, published)
        print(findings_table(result))
        if config.figures:
            results.draw(workdir, result)
        # Last: a study is finished where it stands.
        runlog.write_json(workdir / "result.json", result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    return configs.main("experiments.layer_transfer", Config, run, argv)


if __name__ == "__main__":
    # Config files import this module by name, and a class is one class only once.
    from experiments.layer_transfer import main as named_main

    sys.exit(named_main())
