"""Prototypical networks (Snell et al. 2017): train on episodes, classify new classes.

    python -m experiments.prototypes --config configs/quickstart.py --workdir DIR

trains an embedding on episodes of the training classes, embeds the test classes once,
and classifies numbered episodes of them for every way and shot, beside a nearest
neighbour on raw pixels on the very same episodes. The same line resumes.
"""

import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm.auto import tqdm

from experiments import parts
from experiments.prototypes_config import Config, check_numbers
from experiments.prototypes_step import (
    embed_together,
    learning_rate,
    make_loss,
    make_net,
    prototype_logits,
)
from jaxfer import config as configs
from jaxfer import heads, loop, runlog, sharding, stats, steps
from jaxfer.data import Images, Resident, load
from jaxfer.data.resident import table_of
from jaxfer.episodes import check_episode
from jaxfer.types import Episode, Net, Params, State, TrainState

# The method whose BatchNorm statistics are those of the test episode.
TRANSDUCTIVE = "prototypes_transductive"


def load_parts(config: Config) -> dict[str, Images]:
    """Load the parts by split, and refuse what the config cannot have of them."""
    data, task, val, test = config.data, config.task, config.val, config.test
    # Pairs, since one split may serve twice.
    asked = [
        (data.train, (task.way, task.shot, task.query)),
        (data.val, (val.way, task.shot, val.query)),
        (data.retrain, (task.way, task.shot, task.query)),
        *((data.test, (w, s, test.query)) for w in test.ways for s in test.shots),
    ]
    asked = [(split, shape) for split, shape in asked if split]
    splits = list(dict.fromkeys(split for split, _ in asked))
    limit = data.limit * 1e9
    loaded = load(data.name, splits, data.dir, limit=limit, side=data.side)
    tables = {split: table_of(images) for split, images in loaded.items()}
    for split, (way, shot, query) in asked:
        check_episode(
            tables[split],
            loaded[split].class_names,
            way=way,
            shot=shot,
            n_query=query,
            where=loaded[split].name,
        )
    return loaded


def pixel_logits(episode: Episode) -> Array:
    """Logits of the nearest support image, pixel by pixel: the plainest baseline."""
    way, shot = episode.support.shape[:2]
    flat = episode.support.reshape(way * shot, -1)
    owner = jnp.repeat(jnp.arange(way), shot)
    head = heads.nearest_head(flat, owner, num_classes=way)
    return heads.head_logits(head, episode.query.reshape(*episode.query.shape[:2], -1))


def evaluate(
    config: Config,
    net: Net,
    trained: "Trained",
    embedded: Resident,
    images: Resident | Images,
) -> dict[str, np.ndarray]:
    """Per-episode accuracies in percent, for every way, shot and method."""
    split, test, accuracies = config.data.test, config.test, {}

    def transductive(episode: Episode) -> Array:
        together, _ = embed_together(net, trained.params, trained.state, episode)
        return prototype_logits(together, config.distance)

    methods = {
        "prototypes": (embedded, partial(prototype_logits, distance=config.distance)),
        "pixel_nearest_neighbour": (images, pixel_logits),
    }
    if test.transductive:
        methods[TRANSDUCTIVE] = (images, transductive)
    settings = [*itertools.product(test.ways, test.shots, methods)]
    for way, shot, method in tqdm(settings, "testing", unit="setting"):
        data, classify = methods[method]
        shape = dict(way=way, shot=shot, n_query=test.query)
        # Whole episodes of pixels or activations take memory, embeddings do not.
        block = 100 if method == "prototypes" else 10
        how = dict(per_step=block, workers=config.data.workers)
        measured = steps.evaluate_episodes(
            make_measure(config, split, classify, **shape),
            parts.feed(data, config.seed, split, **shape, **how),
            episodes=test.episodes,
            block=block,
        )
        name = f"{split}/{way}way_{shot}shot/{method}/accuracy"
        accuracies[name] = 100 * measured["accuracy"]
    return accuracies


def make_measure(
    config: Config,
    split: str,
    classify: Callable[[Episode], Array],
    **shape: int,
) -> Callable[..., dict[str, Array]]:
    """What measures the numbered episodes of a split, or a batch that is streamed."""

    return steps.make_episode_eval(
        lambda data, k: parts.take(data, config.seed, split, k, **shape), classify
    )


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train, test, and write the result and its figures.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    configs.check_one_process("spreads over the devices of one host")
    if (earlier := configs.earlier_result(workdir, config)) is not None:
        return earlier
    check_numbers(config)
    # By default all the devices that the episodes of a step can be dealt out to.
    share = math.gcd(config.episodes_per_step, jax.device_count())
    mesh = sharding.make_mesh(share if config.devices is None else config.devices)
    if config.episodes_per_step % mesh.shape["data"]:
        raise ValueError(
            f"found episodes_per_step = {config.episodes_per_step}, needed a multiple "
            f"of the {mesh.shape['data']} devices they are spread over (see --devices)"
        )
    loaded = load_parts(config)
    with configs.open_workdir(workdir, config):
        return _run(config, workdir, published, mesh, loaded)


def _run(
    config: Config,
    workdir: Path,
    published: Sequence[Mapping[str, Any]],
    mesh: Any,
    loaded: Mapping[str, Images],
) -> dict[str, Any]:
    net = make_net(config)
    trained = train(config, workdir, net, mesh, loaded)

    test = loaded[config.data.test]
    print(f"testing on {test.num_classes} classes of {test.name}")
    images = parts.place(test, mesh, limit=config.data.limit)
    embedded = parts.make_embed(net, images)(trained.params, trained.state)
    accuracies = evaluate(config, net, trained, embedded, images)
    np.savez_compressed(workdir / "episodes.npz", **accuracies)

    metrics = {
        name: stats.summarize(values).metric(over="episodes", unit="%")
        for name, values in accuracies.items()
    }
    result = {
        "experiment": "prototypes",
        "config": configs.to_json(config),
        "metrics": metrics,
        "reference": runlog.compare(metrics, published),
        "phases": trained.phases,
        "throughput": {"episodes_per_s": trained.rate},
        **runlog.environment(mesh.devices.flat),
        "dataset_fingerprint": {
            split: part.fingerprint for split, part in loaded.items()
        },
        "seed": config.seed,
        "wall_s": trained.wall_s,
    }
    if test.simulated:
        result["data"] = "simulated"
    if config.test.transductive:
        result["transductive"] = [TRANSDUCTIVE]
    if config.figures:
        figures = _figures()
        if figures is not None:
            classify = partial(prototype_logits, distance=config.distance)
            figures.draw(config, workdir, test.class_names, images, embedded, classify)
    # Last: a run is finished where it stands.
    runlog.write_json(workdir / "result.json", result)
    return result


class Trained(NamedTuple):
    """What training ends with."""

    params: Params
    state: State
    phases: dict[str, dict[str, int]]
    rate: float | None
    wall_s: float


def train(
    config: Config, workdir: Path, net: Net, mesh: Any, loaded: Mapping[str, Images]
) -> Trained:
    """Train from the newest checkpoint, or afresh; stop and train again as told."""
    data, per_step = config.data, config.episodes_per_step
    optimizer = optax.adam(partial(learning_rate, config))
    step = steps.compile_step(
        steps.make_train_step(make_loss(config, net, mesh), optimizer)
    )
    image_shape = loaded[data.train].images.shape[1:]

    def train_feed(images: Images) -> Any:
        return parts.feed(
            parts.place(images, mesh, limit=data.limit),
            config.seed,
            "train",
            **config.task.shape(),
            workers=data.workers,
            per_step=per_step,
            share=(jax.process_index(), jax.process_count()),
            put=partial(sharding.from_host, mesh=mesh),
        )

    def start() -> TrainState:
        params, state = jax.jit(net.init, static_argnums=1)(
            jax.random.key(config.seed), image_shape
        )
        return sharding.place(steps.init_train_state(params, state, optimizer), mesh)

    with loop.Run(
        workdir,
        fingerprint=" ".join(loaded[split].fingerprint for split in sorted(loaded)),
        per_step=per_step,
        steps_per_call=config.steps_per_call,
        save_every=config.save_every,
        log_every=config.log_every,
    ) as run:
        phase = partial(
            run.phase, "train", step, start(), num_steps=config.episodes // per_step
        )
        if data.val is None:
            ended = phase(train_feed(loaded[data.train]))
            final = ended.train_state
        else:
            best = loop.Best(config.val.every // per_step, config.val.patience)
            validate = make_validate(config, net, mesh, loaded[data.val])
            ended = phase(train_feed(loaded[data.train]), evaluate=validate, best=best)
            final = None if data.retrain else run.best(start())
        phases = {"train": {"steps": ended.steps, "best_step": ended.best_step}}
        if data.retrain is not None:
            # As the released code: the best validation, counted from 0, plus patience.
            best_number = ended.best_step // best.every - 1
            again = run.phase(
                "retrain",
                step,
                start(),
                train_feed(loaded[data.retrain]),
                num_steps=(best_number + config.val.patience) * best.every,
            )
            phases["retrain"] = {"steps": again.steps}
            final = again.train_state
    return Trained(final.trainable, final.state, phases, run.rate, run.wall_s)


def make_validate(
    config: Config, net: Net, mesh: Any, images: Images
) -> Callable[[TrainState], dict[str, float]]:
    """What gives the validation loss and accuracy of a training state.

    The split is embedded once, on running statistics, and episodes are drawn of the
    embeddings: new ones each time, numbered on.
    """
    val, per_step = config.val, config.episodes_per_step
    embed = parts.make_embed(net, parts.place(images, mesh, limit=config.data.limit))
    measure = make_measure(
        config,
        "val",
        partial(prototype_logits, distance=config.distance),
        way=val.way,
        shot=config.task.shot,
        n_query=val.query,
    )

    def validate(train_state: TrainState) -> dict[str, float]:
        number = int(train_state.step) * per_step // val.every - 1
        measured = steps.evaluate_episodes(
            measure,
            embed(train_state.trainable, train_state.state),
            episodes=val.episodes,
            first=number * val.episodes,
        )
        return {f"val/{name}": float(x.mean()) for name, x in measured.items()}

    return validate


def _figures() -> Any:
    try:
        from experiments import figures
    except ImportError:
        print("no figures: matplotlib is not installed (the 'plot' extra)")
        return None
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    return configs.main("experiments.prototypes", Config, run, argv)


if __name__ == "__main__":
    # Config files import this module by name, and a class is one class only once.
    from experiments.prototypes import main as named_main

    sys.exit(named_main())
