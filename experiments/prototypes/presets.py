"""The protocol of Snell et al. 2017 on Omniglot, and its published values."""

from collections.abc import Mapping
from typing import Any

from experiments.prototypes.config import Config, Data, Evaluation, Task, Validation
from jaxfer.optim import Optim


def snell2017(learning_rate: float, halve_every: int) -> Optim:
    """Adam with a rate that is halved every so many episodes."""
    return Optim("adam", learning_rate, "staircase", decay=0.5, decay_every=halve_every)


def published_accuracies(
    source: str, cells: Mapping[tuple[int, int], tuple[float, float]]
) -> list[dict[str, Any]]:
    """Published test accuracies, for a config file to set beside its result.

    Args:
        source: the paper and its table.
        cells: accuracy in percent and tolerance below it, by (way, shot).
    """
    return [
        {
            "name": f"test/{way}way_{shot}shot/prototypes/accuracy",
            "value": value,
            "tolerance": tolerance,
            "source": source,
        }
        for (way, shot), (value, tolerance) in cells.items()
    ]


def omniglot_snell2017(
    *, way: int, shot: int, query: int, test_shots: tuple[int, ...] = (1, 5)
) -> Config:
    """Omniglot by the protocol of Snell et al. 2017, as their released code has it.

    One episode per update; Adam at 1e-3, halved every 2000 episodes; after every 100
    episodes 100 of 5-way validation, new ones each time, on five alphabets; training
    stops after more than 200 of those in a row without a lower loss; then a fresh run
    on train + val for as many episodes as the best took, counted from 0, and 20,000
    more. Its last weights are tested on 1000 episodes. Convolutions have no bias, which
    BatchNorm would subtract again (see `Conv4`).

    Args:
        way: classes of a training episode.
        shot: support examples per class.
        query: queries per class.
        test_shots: of the test episodes.
    """
    return Config(
        data=Data("omniglot", "train", val="val", retrain="trainval", test="test"),
        task=Task(way=way, shot=shot, query=query),
        val=Validation(every=100, episodes=100, way=5, query=15, patience=200),
        test=Evaluation(ways=(5, 20), shots=test_shots, query=15, episodes=1000),
        optim=snell2017(1e-3, 2000),
        episodes=1_000_000,
    )


def omniglot_published(
    table: int, accuracies: Mapping[tuple[int, int], float]
) -> list[dict[str, Any]]:
    """Accuracies of Snell et al. 2017 on Omniglot, with the tolerance below them.

    The tolerance is how far re-implementations fall short of Table 1; Table 4 borrows
    it.

    Args:
        table: 1 or 4.
        accuracies: in percent, by (way, shot).
    """
    tolerance = {(5, 1): 0.6, (5, 5): 0.35, (20, 1): 1.1, (20, 5): 0.4}
    return published_accuracies(
        f"Snell et al. 2017, Table {table}",
        {cell: (value, tolerance[cell]) for cell, value in accuracies.items()},
    )
