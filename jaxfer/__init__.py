"""Transfer and few-shot learning in JAX.

The building blocks are here by name; the rooms they live in (`jaxfer.nets`,
`jaxfer.data`, `jaxfer.steps`, ...) hold the rest. Importing this package imports JAX
and nothing heavier: `nets`, `data` and what lies above them load on first use.
"""

import importlib
from typing import Any

from jaxfer.episodes import (
    ClassTable,
    check_episode,
    class_table,
    episode_key,
    gather,
    sample_episode,
)
from jaxfer.heads import (
    class_means,
    cosine_distance,
    head_logits,
    imprint_head,
    linear_head,
    matching_head,
    memory_means,
    nearest_head,
    normalize,
    prototype_head,
    remember,
    squared_euclidean,
    support_memory,
)
from jaxfer.losses import episode_accuracy, episode_nll, softmax_cross_entropy
from jaxfer.stats import Mean, Summary, over_seeds, paired, summarize
from jaxfer.trees import Graft, graft, match, merge, partition
from jaxfer.types import EVAL, TRAIN, Episode, Head, Memory, Mode, Net, TrainState

_ROOMS = (
    "checkpoint",
    "config",
    "data",
    "loop",
    "nets",
    "runlog",
    "sharding",
    "steps",
)

__all__ = [
    "EVAL",
    "TRAIN",
    "ClassTable",
    "Episode",
    "Graft",
    "Head",
    "Mean",
    "Memory",
    "Mode",
    "Net",
    "Summary",
    "TrainState",
    "check_episode",
    "class_means",
    "class_table",
    "cosine_distance",
    "episode_accuracy",
    "episode_key",
    "episode_nll",
    "gather",
    "graft",
    "head_logits",
    "imprint_head",
    "linear_head",
    "match",
    "matching_head",
    "memory_means",
    "merge",
    "nearest_head",
    "normalize",
    "over_seeds",
    "paired",
    "partition",
    "prototype_head",
    "remember",
    "sample_episode",
    "softmax_cross_entropy",
    "squared_euclidean",
    "summarize",
    "support_memory",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"jaxfer.{name}")
    raise AttributeError(f"module 'jaxfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
