"""The protocols of Snell et al. 2017 and later recipes, with published values."""

from collections.abc import Mapping
from typing import Any

from experiments.prototypes.config import (
    Base,
    Config,
    Data,
    Evaluation,
    Task,
    Validation,
)
from jaxfer.data import Crop
from jaxfer.models import Options
from jaxfer.optim import Optim


def snell2017(learning_rate: float, halve_every: int) -> Optim:
    """Return Adam with a rate that is halved every `halve_every` episodes."""
    return Optim("adam", learning_rate, "staircase", decay=0.5, decay_every=halve_every)


def published_accuracies(
    source: str, cells: Mapping[tuple[int, int], tuple[float, float]]
) -> list[dict[str, Any]]:
    """Return published test accuracies, which a result is compared with.

    Args:
        source: the paper and its table.
        cells: accuracy in percent and tolerance below it, keyed by (way, shot).
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


def miniimagenet_snell2017(*, way: int, shot: int) -> Config:
    """Return the miniImageNet protocol of Snell et al. 2017, as far as it is stated.

    Episodes have 15 queries per class, each update uses one of them, and the learning
    rate of Adam starts at 1e-3 and is halved every 2000 episodes. The network is tested
    on 600 5-way episodes with the shot of training. The paper does not say when
    training stops: here it is after more than 200 validations in a row, one every 100
    episodes, without a lower loss, as in its code for Omniglot. The state with the
    lowest loss is tested.

    Args:
        way: classes per training episode.
        shot: support examples per class.
    """
    return Config(
        data=Data("miniimagenet", "train", val="val", test="test"),
        task=Task(way=way, shot=shot, query=15),
        val=Validation(every=100, episodes=100, way=5, query=15, patience=200),
        test=Evaluation(ways=(5,), shots=(shot,), query=15, episodes=600),
        optim=snell2017(1e-3, 2000),
        episodes=1_000_000,
    )


def conv4_modern(
    data: str, *, shift: int, base_epochs: int, episodes: int, unit: bool = False
) -> Config:
    """Return a later recipe for the network of Snell et al. 2017 on photographs.

    A classifier of the training classes is trained first, then the same network on
    5-way 5-shot episodes with cyclic support. The temperature is trained. At first, it
    is the root of the dimension, or 0.2 for embeddings of length 1.

    Args:
        data: name of the data set.
        shift: largest shift of training images in pixels; they are also mirrored.
        base_epochs: passes over the training images before the episodes.
        episodes: training episodes.
        unit: whether episodes scale embeddings to length 1.
    """
    others = ("nearest_cosine", "simpleshot", "ridge")
    return Config(
        data=Data(data, "train", test="test"),
        base=Base(epochs=base_epochs),
        task=Task(way=5, shot=5, query=5, cyclic=True),
        test=Evaluation((5,), (1, 5), query=15, episodes=2000, methods=others),
        optim=Optim("sgd", 0.01, schedule="cosine", weight_decay=5e-4),
        crop=Crop(shift=shift, mirror=True),
        unit=unit,
        temperature=0.2 if unit else "sqrt_dim",
        learn_temperature=True,
        episodes=episodes,
        run=Options(save_every=100, log_every=50),
    )


def omniglot_snell2017(
    *, way: int, shot: int, query: int, test_shots: tuple[int, ...] = (1, 5)
) -> Config:
    """Return the Omniglot protocol of Snell et al. 2017, as in their released code.

    Each update uses one episode. The learning rate of Adam starts at 1e-3 and is halved
    every 2000 episodes. Every 100 episodes, the loss is measured on 100 new 5-way
    validation episodes from five alphabets. Training stops after more than 200
    validations in a row without a lower loss. A second training then starts from
    scratch on train + val and lasts 19,900 episodes longer than the best state took:
    the released code counts validations from 0 and adds 200. Its last weights are
    tested on 1000 episodes. Convolutions have no bias, since BatchNorm would subtract
    it (see `Conv4`).

    Args:
        way: classes per training episode.
        shot: support examples per class.
        query: queries per class.
        test_shots: shots of the test episodes.
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
    """Return accuracies of Snell et al. 2017 on Omniglot, with tolerances below them.

    The tolerance is how far re-implementations fall short of Table 1. It is used for
    Table 4 too.

    Args:
        table: number of the table, 1 or 4.
        accuracies: accuracies in percent, keyed by (way, shot).
    """
    tolerance = {(5, 1): 0.6, (5, 5): 0.35, (20, 1): 1.1, (20, 5): 0.4}
    return published_accuracies(
        f"Snell et al. 2017, Table {table}",
        {cell: (value, tolerance[cell]) for cell, value in accuracies.items()},
    )
