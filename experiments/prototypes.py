"""Prototypical networks (Snell et al. 2017): train on episodes, classify new classes.

    python -m experiments.prototypes --config configs/quickstart.py --workdir DIR

trains an embedding on episodes of the training classes, embeds the test classes once,
and classifies numbered episodes of them for every way and shot, beside a nearest
neighbour on raw pixels on the very same episodes. The same line resumes.
"""

import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm.auto import tqdm

from jaxfer import config as configs
from jaxfer import heads, loop, losses, nets, runlog, sharding, stats, steps
from jaxfer.config import how
from jaxfer.data import Images, Resident, draw, fetch, load, resident, to_float
from jaxfer.episodes import check_episode, episode_key, sample_episode
from jaxfer.types import TRAIN, Episode, Net, Params, State, TrainState


@dataclass(frozen=True)
class Data:
    """Which classes train and which test."""

    name: str = "omniglot"
    train: str = "trainval"
    test: str = "test"
    dir: str | None = how(None)
    """Data directory; else $JAXFER_DATA, else where TFDS keeps its data."""


@dataclass(frozen=True)
class Embedding:
    """The network."""

    width: int = 64
    bn_scale_init: Literal["ones", "uniform"] = "uniform"
    """BatchNorm scales at first; the paper's framework drew them from U(0, 1)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters, statistics and distances stay float32."""


@dataclass(frozen=True)
class Task:
    """The shape of a training episode."""

    way: int = 60
    shot: int = 1
    query: int = 5


@dataclass(frozen=True)
class Evaluation:
    """Test episodes: every way with every shot."""

    ways: tuple[int, ...] = (5, 20)
    shots: tuple[int, ...] = (1, 5)
    query: int = 15
    episodes: int = 1000


@dataclass(frozen=True)
class Optim:
    """Adam, its rate halved at fixed intervals."""

    learning_rate: float = 1e-3
    halve_every: int = 2000
    """Episodes between halvings; 0 for a constant rate."""


@dataclass(frozen=True)
class Config:
    """A run: what it is, and how it is run."""

    data: Data = field(default_factory=Data)
    net: Embedding = field(default_factory=Embedding)
    task: Task = field(default_factory=Task)
    test: Evaluation = field(default_factory=Evaluation)
    optim: Optim = field(default_factory=Optim)
    distance: heads.Distance = "sqeuclidean"
    episodes: int = 2000
    """Training episodes."""
    episodes_per_step: int = 1
    """Episodes whose gradients are averaged to one update; the paper's is 1."""
    seed: int = 0
    """Of the first weights and of the episodes, in training and test."""

    steps_per_call: int = how(1)
    """Steps in one call of the device; more hides the host where steps are short."""
    devices: int | None = how(None)
    """Devices to spread the episodes of a step over; the most that divide them evenly,
    unless given."""
    save_every: int = how(500)
    """Steps between checkpoints."""
    log_every: int = how(50)
    """Steps averaged to one line of metrics.jsonl."""
    figures: bool = how(True)
    """Draw figures, where matplotlib is installed."""


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


class Parts(NamedTuple):
    """A run's data set: the classes it trains on and those it is tested on."""

    train: Images
    test: Images


def check_numbers(config: Config) -> None:
    """Refuse numbers that make no run."""
    values = configs.to_json(config)
    for name in (
        "episodes",
        "episodes_per_step",
        "steps_per_call",
        "save_every",
        "log_every",
        "test.episodes",
        "net.width",
    ):
        if values[name] < 1:
            raise ValueError(f"found {name} = {values[name]}, needed at least 1")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"found seed = {config.seed}, needed 0 to 2^32 - 1")
    if config.episodes % config.episodes_per_step:
        raise ValueError(
            f"found episodes = {config.episodes}, needed a multiple of "
            f"episodes_per_step = {config.episodes_per_step}"
        )


def load_parts(config: Config) -> Parts:
    """Load the data and refuse what the config cannot have of it."""
    data = load(
        config.data.name, [config.data.train, config.data.test], config.data.dir
    )
    parts = Parts(data[config.data.train], data[config.data.test])
    task, test = config.task, config.test
    trained = [(task.way, task.shot, task.query)]
    tested = [(way, shot, test.query) for way in test.ways for shot in test.shots]
    for images, shapes in zip(parts, (trained, tested), strict=True):
        table = resident(images).table
        for way, shot, query in shapes:
            check_episode(
                table,
                images.class_names,
                way=way,
                shot=shot,
                n_query=query,
                where=images.name,
            )
    return parts


def make_net(config: Config) -> Net:
    """The embedding."""
    return nets.conv4(
        width=config.net.width,
        bn_scale_init=config.net.bn_scale_init,
        dtype=jnp.dtype(config.net.precision),
    )


def learning_rate(config: Config, step: Array) -> Array:
    """The rate of a step: halved after every `halve_every` episodes."""
    every = config.optim.halve_every
    # In whole numbers: a rounded quotient would halve a step early or late.
    halvings = step * config.episodes_per_step // every if every else 0 * step
    return config.optim.learning_rate * 0.5 ** halvings.astype(jnp.float32)


def make_loss(config: Config, net: Net, mesh: Any) -> steps.Loss:
    """The mean loss of a step's episodes, BatchNorm statistics those of each episode.

    Support and query share one pass and so their statistics, as in the released code;
    running statistics are averaged over the episodes.
    """
    task, per_step = config.task, config.episodes_per_step

    def of_episode(params: Params, state: State, episode: Episode):
        support, query, _ = episode
        both = [x.reshape(-1, *x.shape[2:]) for x in (support, query)]
        z, state = net.apply(params, state, jnp.concatenate(both), mode=TRAIN)
        split = task.way * task.shot
        embedded = Episode(
            z[:split].reshape(*support.shape[:2], -1),
            z[split:].reshape(*query.shape[:2], -1),
            episode.classes,
        )
        logits = prototype_logits(embedded, config.distance)
        return losses.episode_nll(logits), (state, losses.episode_accuracy(logits))

    def loss(params: Params, state: State, step: Array, data: Resident):
        def rows(number: Array) -> Episode:
            key = episode_key(config.seed, "train", number)
            return sample_episode(
                key, data.table, way=task.way, shot=task.shot, n_query=task.query
            )

        drawn = jax.vmap(rows)(step * per_step + jnp.arange(per_step))
        drawn = sharding.spread(drawn, mesh)
        value, (states, accuracy) = jax.vmap(
            lambda rows: of_episode(params, state, fetch(data, rows))
        )(drawn)
        state = jax.tree.map(lambda x: x.mean(axis=0), states)
        return value.mean(), (state, {"accuracy": accuracy.mean()})

    return loss


def prototype_logits(episode: Episode, distance: heads.Distance) -> Array:
    """Logits `[way, n_query, way]` of embedded queries against prototypes."""
    memory = heads.support_memory(episode.support)
    return heads.head_logits(
        heads.prototype_head(memory, distance=distance), episode.query
    )


def pixel_logits(episode: Episode) -> Array:
    """Logits of the nearest support image, pixel by pixel: the plainest baseline."""
    way, shot = episode.support.shape[:2]
    flat = episode.support.reshape(way * shot, -1)
    owner = jnp.repeat(jnp.arange(way), shot)
    head = heads.nearest_head(flat, owner, num_classes=way)
    return heads.head_logits(head, episode.query.reshape(*episode.query.shape[:2], -1))


def evaluate(
    config: Config, embedded: Resident, images: Resident
) -> dict[str, np.ndarray]:
    """Per-episode accuracies in percent, for every way, shot and method."""
    split, test, accuracies = config.data.test, config.test, {}
    methods = {
        "prototypes": (embedded, partial(prototype_logits, distance=config.distance)),
        "pixel_nearest_neighbour": (images, pixel_logits),
    }
    settings = [*itertools.product(test.ways, test.shots, methods)]
    for way, shot, method in tqdm(settings, "testing", unit="setting"):
        data, classify = methods[method]
        one = partial(draw, way=way, shot=shot, n_query=test.query)
        accuracy = steps.make_episode_eval(
            lambda data, k, one=one: one(data, config.seed, split, k), classify
        )
        name = f"{split}/{way}way_{shot}shot/{method}/accuracy"
        accuracies[name] = loop.evaluate_episodes(
            accuracy, data, episodes=test.episodes
        )
    return accuracies


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train, test, and write the result and its figures.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    configs.check_workdir(workdir, config)
    if (workdir / "result.json").exists():
        print(f"{workdir} is finished; its result stands in {workdir / 'result.json'}")
        return runlog.read_json(workdir / "result.json")
    check_numbers(config)
    # By default all the devices that the episodes of a step can be dealt out to.
    share = math.gcd(config.episodes_per_step, jax.device_count())
    mesh = sharding.make_mesh(share if config.devices is None else config.devices)
    if config.episodes_per_step % mesh.shape["data"]:
        raise ValueError(
            f"found episodes_per_step = {config.episodes_per_step}, needed a multiple "
            f"of the {mesh.shape['data']} devices they are spread over (see --devices)"
        )
    parts = load_parts(config)
    configs.open_workdir(workdir, config)
    net = make_net(config)
    train_state, log = train(config, workdir, net, mesh, parts.train)

    print(f"testing on {parts.test.num_classes} classes of {parts.test.name}")
    images = sharding.place(resident(parts.test), mesh)
    embed = steps.make_embed(net, to_float)
    features = embed(train_state.trainable, train_state.state, images.items)
    embedded = images._replace(items=features)
    accuracies = evaluate(config, embedded, images)
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
        "throughput": {"episodes_per_s": log.rate()},
        **runlog.environment(mesh.devices.flat),
        "dataset_fingerprint": {
            config.data.train: parts.train.fingerprint,
            config.data.test: parts.test.fingerprint,
        },
        "seed": config.seed,
        "wall_s": log.elapsed(),
    }
    if parts.train.simulated:
        result["data"] = "simulated"
    runlog.write_json(workdir / "result.json", result)
    if config.figures:
        draw_figures(config, workdir, parts, images, embedded)
    return result


def train(
    config: Config, workdir: Path, net: Net, mesh: Any, images: Images
) -> tuple[TrainState, runlog.RunLog]:
    """Train from the newest checkpoint, or afresh."""
    params, state = jax.jit(net.init, static_argnums=1)(
        jax.random.key(config.seed), images.images.shape[1:]
    )
    optimizer = optax.adam(partial(learning_rate, config))
    train_state = steps.init_train_state(params, state, optimizer)
    step = steps.make_train_step(make_loss(config, net, mesh), optimizer)
    return loop.train(
        workdir,
        steps.compile_step(step),
        sharding.place(train_state, mesh),
        sharding.place(resident(images), mesh),
        fingerprint=images.fingerprint,
        num_steps=config.episodes // config.episodes_per_step,
        per_step=config.episodes_per_step,
        steps_per_call=config.steps_per_call,
        save_every=config.save_every,
        log_every=config.log_every,
    )


def draw_figures(
    config: Config, workdir: Path, parts: Parts, images: Resident, embedded: Resident
) -> None:
    """The learning curve, one test episode, and the embeddings of its classes."""
    try:
        from experiments import figures
    except ImportError:
        print("no figures: matplotlib is not installed (the 'plot' extra)")
        return
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    figures.learning_curve(folder / "learning_curve.png", runlog.read_metrics(workdir))
    test = config.test
    shape = dict(way=min(test.ways), shot=min(test.shots), n_query=test.query)
    seen = draw(images, config.seed, config.data.test, 0, **shape)
    known = draw(embedded, config.seed, config.data.test, 0, **shape)
    predicted = np.asarray(prototype_logits(known, config.distance).argmax(-1))
    names = [parts.test.class_names[c] for c in known.classes.tolist()]
    figures.episode(folder / "episode.png", seen, predicted, names)
    figures.embeddings(folder / "embeddings.png", known, names)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    return configs.main("experiments.prototypes", Config, run, argv)


if __name__ == "__main__":
    # Config files import this module by name, and a class is one class only once.
    from experiments.prototypes import main as named_main

    sys.exit(named_main())
