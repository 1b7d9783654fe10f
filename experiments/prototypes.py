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

from experiments.prototypes_config import Config, check_numbers
from jaxfer import config as configs
from jaxfer import heads, loop, losses, nets, runlog, sharding, stats, steps
from jaxfer.data import Images, Resident, draw, fetch, load, resident, to_float
from jaxfer.episodes import check_episode, episode_key, sample_episode
from jaxfer.types import TRAIN, Episode, Net, Params, State, TrainState

# The method whose BatchNorm statistics are those of the test episode.
TRANSDUCTIVE = "prototypes_transductive"


def load_parts(config: Config) -> dict[str, Images]:
    """Load the parts by split, and refuse what the config cannot have of them."""
    data, task, val, test = config.data, config.task, config.val, config.test
    trained = [(task.way, task.shot, task.query)]
    shapes = {
        data.train: trained,
        data.val: [(val.way, task.shot, val.query)],
        data.retrain: trained,
        data.test: [(w, s, test.query) for w in test.ways for s in test.shots],
    }
    parts = load(data.name, [split for split in shapes if split], data.dir)
    for split, images in parts.items():
        table = resident(images).table
        for way, shot, query in shapes[split]:
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
        embedded, state = embed_together(net, params, state, episode)
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


def embed_together(
    net: Net, params: Params, state: State, episode: Episode
) -> tuple[Episode, State]:
    """Support and query in one pass, normalised by the statistics of both."""
    support, query, classes = episode
    both = [x.reshape(-1, *x.shape[2:]) for x in (support, query)]
    z, state = net.apply(params, state, jnp.concatenate(both), mode=TRAIN)
    z_support, z_query = jnp.split(z, [len(both[0])])
    embedded = Episode(
        z_support.reshape(*support.shape[:2], -1),
        z_query.reshape(*query.shape[:2], -1),
        classes,
    )
    return embedded, state


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
    config: Config, net: Net, trained: "Trained", embedded: Resident, images: Resident
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
        measure = make_measure(config, split, classify, way, shot, test.query)
        measured = steps.evaluate_episodes(
            measure,
            data,
            episodes=test.episodes,
            # Whole episodes of activations take memory where embeddings do not.
            block=10 if method == TRANSDUCTIVE else 100,
        )
        name = f"{split}/{way}way_{shot}shot/{method}/accuracy"
        accuracies[name] = 100 * measured["accuracy"]
    return accuracies


def make_measure(
    config: Config,
    split: str,
    classify: Callable[[Episode], Array],
    way: int,
    shot: int,
    query: int,
) -> Callable[..., dict[str, Array]]:
    """What measures the numbered episodes of a split (see `make_episode_eval`)."""
    draw_one = partial(draw, way=way, shot=shot, n_query=query)
    return steps.make_episode_eval(
        lambda data, k: draw_one(data, config.seed, split, k), classify
    )


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
    with configs.open_workdir(workdir, config):
        return _run(config, workdir, published, mesh, parts)


def _run(
    config: Config,
    workdir: Path,
    published: Sequence[Mapping[str, Any]],
    mesh: Any,
    parts: Mapping[str, Images],
) -> dict[str, Any]:
    net = make_net(config)
    trained = train(config, workdir, net, mesh, parts)

    test = parts[config.data.test]
    print(f"testing on {test.num_classes} classes of {test.name}")
    images = sharding.place(resident(test), mesh)
    embed = steps.make_embed(net, to_float)
    features = embed(trained.params, trained.state, images.items)
    embedded = images._replace(items=features)
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
        "dataset_fingerprint": {name: part.fingerprint for name, part in parts.items()},
        "seed": config.seed,
        "wall_s": trained.wall_s,
    }
    if test.simulated:
        result["data"] = "simulated"
    if config.test.transductive:
        result["transductive"] = [TRANSDUCTIVE]
    runlog.write_json(workdir / "result.json", result)
    if config.figures:
        figures = _figures()
        if figures is not None:
            classify = partial(prototype_logits, distance=config.distance)
            figures.draw(config, workdir, test.class_names, images, embedded, classify)
    return result


class Trained(NamedTuple):
    """What training ends with."""

    params: Params
    state: State
    phases: dict[str, dict[str, int]]
    rate: float | None
    wall_s: float


def train(
    config: Config, workdir: Path, net: Net, mesh: Any, parts: Mapping[str, Images]
) -> Trained:
    """Train from the newest checkpoint, or afresh; stop and train again as told."""
    data, per_step = config.data, config.episodes_per_step
    optimizer = optax.adam(partial(learning_rate, config))
    step = steps.compile_step(
        steps.make_train_step(make_loss(config, net, mesh), optimizer)
    )
    image_shape = parts[data.train].images.shape[1:]

    def start() -> TrainState:
        params, state = jax.jit(net.init, static_argnums=1)(
            jax.random.key(config.seed), image_shape
        )
        return sharding.place(steps.init_train_state(params, state, optimizer), mesh)

    with loop.Run(
        workdir,
        fingerprint=" ".join(parts[split].fingerprint for split in sorted(parts)),
        per_step=per_step,
        steps_per_call=config.steps_per_call,
        save_every=config.save_every,
        log_every=config.log_every,
    ) as run:
        phase = partial(
            run.phase, "train", step, start(), num_steps=config.episodes // per_step
        )
        train_data = sharding.place(resident(parts[data.train]), mesh)
        if data.val is None:
            ended = phase(train_data)
            final = ended.train_state
        else:
            best = loop.Best(config.val.every // per_step, config.val.patience)
            validate = make_validate(config, net, mesh, parts[data.val])
            ended = phase(train_data, evaluate=validate, best=best)
            final = None if data.retrain else run.best(start())
        phases = {"train": {"steps": ended.steps, "best_step": ended.best_step}}
        if data.retrain is not None:
            # As the released code: the best validation, counted from 0, plus patience.
            best_number = ended.best_step // best.every - 1
            again = run.phase(
                "retrain",
                step,
                start(),
                sharding.place(resident(parts[data.retrain]), mesh),
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
    data = sharding.place(resident(images), mesh)
    embed = steps.make_embed(net, to_float)
    classify = partial(prototype_logits, distance=config.distance)
    measure = make_measure(
        config, "val", classify, val.way, config.task.shot, val.query
    )

    def validate(train_state: TrainState) -> dict[str, float]:
        features = embed(train_state.trainable, train_state.state, data.items)
        number = int(train_state.step) * per_step // val.every - 1
        measured = steps.evaluate_episodes(
            measure,
            data._replace(items=features),
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
