"""A run of prototypical networks, from data to result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.prototypes import measure, train
from experiments.prototypes.classifiers import transductive_name
from experiments.prototypes.config import Config, check, why_not_longer
from experiments.studies import draw_figures, opening, write_result
from jaxfer import config as configs
from jaxfer import distributed, models, nets, runlog, sharding, stats, versions
from jaxfer import workdir as workdirs
from jaxfer.data import Images
from jaxfer.data.feed import place_episodes
from jaxfer.tensors import digest


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train, test, and write the result, the model and the figures.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    earlier = distributed.on_first(lambda: _earlier(config, workdir))
    if earlier is not None:
        return earlier
    mesh = make_mesh(config)
    loaded = train.load_splits(config)
    with workdirs.open_workdir(workdir, config, refusal=why_not_longer(config)):
        shape = train.input_shape(config, loaded[config.data.train])
        net = nets.as_net(config.net.build(shape), shape)
        parts = [*loaded.values()]
        print(opening(config, workdir, net, shape, parts, devices=mesh.size))
        return _run(config, workdir, published, mesh, loaded)


def _earlier(config: Config, workdir: Path) -> dict[str, Any] | None:
    """Return the result of a finished run; check the config of another one."""
    refusal = why_not_longer(config)
    earlier = workdirs.earlier_result(workdir, config, refusal=refusal)
    if earlier is None:
        check(config)
        make_mesh(config)
    return earlier


def make_mesh(config: Config) -> Any:
    """Return the devices of a run, which share the episodes of a step.

    Raises:
        ValueError: episodes that they do not divide evenly, or devices of some of
            several processes only.
    """
    per_step, processes = config.episodes_per_step, distributed.count()
    mesh = config.mesh.make(per_step)
    if per_step % mesh.shape["data"]:
        raise ValueError(
            f"expected episodes_per_step to be a multiple of the {mesh.shape['data']} "
            f"devices of mesh.data, got {per_step}"
        )
    if sharding.share_of(mesh)[1] < processes:
        raise ValueError(
            f"expected all {jax.device_count()} devices of {processes} processes, got "
            f"{mesh.size}: set episodes_per_step to a multiple of them"
        )
    return mesh


def _run(
    config: Config,
    workdir: Path,
    published: Sequence[Mapping[str, Any]],
    mesh: Any,
    loaded: Mapping[str, Images],
) -> dict[str, Any]:
    ended = train.train(config, workdir, mesh, loaded)
    distributed.on_first(lambda: workdirs.replace_run(workdir, config))
    test = loaded[config.data.test]
    print(f"testing on {test.num_classes} classes of {test.name}")
    embedded = models.embed_classes(ended.model, test)
    # Processes test different episodes, each on a device of its own.
    images = place_episodes(test, sharding.make_mesh(1), limit=config.run.limit)
    accuracies = measure.evaluate(
        config, ended.model, embedded, images, loaded[config.data.train]
    )

    def report() -> dict[str, Any]:
        """Write the files of a run that is trained and tested; return its result."""
        np.savez_compressed(workdir / "episodes.npz", **accuracies)  # type: ignore[arg-type]
        metrics = {
            name: stats.summarize(values).metric(over="episodes", unit="%")
            for name, values in accuracies.items()
        }
        about = {
            **ended.model.about,
            "metrics": {k: m["mean"] for k, m in metrics.items()},
        }
        models.save_model(workdir / models.FILE, models.with_about(ended.model, about))
        result = {
            "experiment": "prototypes",
            "config": configs.to_json(config),
            "metrics": metrics,
            "episodes_sha256": digest(accuracies),
            "reference": runlog.compare(metrics, published),
            "phases": ended.phases,
            "throughput": {"episodes_per_s": ended.trained.rate},
            "compilations": ended.compilations,
            **versions.environment(mesh.devices.flat),
            "processes": distributed.count(),
            "dataset_fingerprint": {
                split: part.fingerprint for split, part in loaded.items()
            },
            "classes": {
                split: list(part.class_names) for split, part in loaded.items()
            },
            "seed": config.seed,
            "wall_s": ended.trained.wall_s,
        }
        if test.simulated:
            result["data"] = "simulated"
        if config.test.transductive:
            result["transductive"] = [transductive_name(config)]
        if config.figures:
            # The features of a bank are no pictures.
            if test.images.dtype == np.uint8:
                example = measure.example(config, ended.model, embedded, images)
                np.savez_compressed(workdir / measure.EXAMPLE, **example)  # type: ignore[arg-type]
            draw_figures(workdir, result)
        write_result(config, workdir, result, step=ended.trained.steps)
        return runlog.plain(result)

    return distributed.on_first(report)
