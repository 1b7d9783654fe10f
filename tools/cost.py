"""What runs of prototypical networks cost beside their accuracies.

A training pass counts three times the floating point operations of a forward pass: the
gradients by inputs and by weights take as many each.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.inputs import Network
from jaxfer import nets
from jaxfer.tables import markdown
from jaxfer.types import TRAIN

_PASSES = 3


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return one row per run: its training, its cost, and the best accuracies.

    Args:
        results: kept results of runs that were tested on the same tasks.
    """
    rows, tasks = [], [*_best(results[0])]
    for result in results:
        config, images, best = result["config"], images_seen(result), _best(result)
        rows.append(
            [
                f"{config['base.epochs']}",
                f"{config['episodes']:,}",
                f"{images / 1e6:.2f}",
                f"{images * _PASSES * forward_flops(result) / 1e15:.2f}",
                f"{result['wall_s'] / 60:.0f}",
                ", ".join(x.upper() if x == "cpu" else x for x in result["devices"]),
                config["data.test"],
                *(f"{best[task]:.2f}" for task in tasks),
            ]
        )
    facts = ["base epochs", "episodes", "million images", "PFLOP", "minutes"]
    return markdown([*facts, "device", "part", *tasks], rows)


def _best(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the highest accuracy of the classifiers of a run, by task."""
    found: dict[str, float] = {}
    for name, metric in result["metrics"].items():
        way, shot = re.findall(r"\d+", name.split("/")[1])
        task = f"{way}-way {shot}-shot"
        found[task] = max(found.get(task, 0.0), metric["mean"])
    return found


def images_seen(result: Mapping[str, Any]) -> int:
    """Return the number of images that all training steps embedded."""
    config, base = result["config"], result["phases"].get("base", {"steps": 0})
    per_episode = config["task.way"] * (config["task.shot"] + config["task.query"])
    return base["steps"] * config["base.batch"] + config["episodes"] * per_episode


def forward_flops(result: Mapping[str, Any]) -> float:
    """Return the operations of a forward pass of one image, as XLA counts them."""
    options = {
        name.removeprefix("net."): value
        for name, value in result["config"].items()
        if name.startswith("net.")
    }
    return _forward_flops(tuple(options.items()), tuple(result["image_shape"]))


@functools.cache
def _forward_flops(options: tuple[tuple[str, Any], ...], shape: tuple[int, ...]) -> Any:
    net, batch = nets.as_net(Network(**dict(options)).build(shape), shape), 8
    params, state = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    x = jax.ShapeDtypeStruct((batch, *shape), "float32")
    lowered = jax.jit(lambda *args: net.apply(*args, mode=TRAIN)[0]).lower(
        params, state, x
    )
    found = lowered.cost_analysis() or {}
    return found.get("flops", math.nan) / batch
