"""Code that both studies share: how they run, and the common part of a result."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from experiments.inputs import load_parts
from jaxfer import models, nets, runlog, sharding, study, versions
from jaxfer import workdir as workdirs
from jaxfer.claims import findings_table
from jaxfer.data import Images
from jaxfer.models import Model, Trained
from jaxfer.types import Net


class Training(Protocol):
    """Interface of the object that trains the networks of a study.

    Attributes:
        backbone: the network that all members share.
        image_shape: shape of its input, `[height, width, channels]`.
        device_each: whether every member trains on a device of its own.
    """

    backbone: Net
    image_shape: tuple[int, ...]
    device_each: bool

    def items(self, config: Any, /) -> Sequence[Any]:
        """Return the named networks of a config, each after those it needs."""
        ...

    def member(self, item: Any, /) -> study.Member:
        """Return a network as a member of the queue."""
        ...

    def program(self, item: Any, /) -> Any:
        """Return a key; networks with equal keys share a compiled program."""
        ...

    def train(self, items: Sequence[Any], folder: Path, /) -> list[study.Record]:
        """Train networks that share a program, and return one record per network."""
        ...


def run_study(
    config: Any,
    workdir: Path,
    *,
    check: Callable[[Any], None],
    trainer: Callable[..., Training],
    result: Callable[[Any, Sequence[Any], dict[str, study.Record], Any], dict],
    load: Callable[[Any], Sequence[Images]] = lambda config: load_parts(config.data),
) -> dict[str, Any]:
    """Train the missing networks of a study, write its result and draw its figures.

    Args:
        config: the requested config; it may add members to an existing study.
        workdir: the folder of the study.
        check: raises ValueError for an invalid config.
        trainer: makes the object that trains networks from the config, the folder, and
            the loaded parts of the data set.
        result: returns the content of result.json, given the config and networks of the
            whole study, the records of finished networks, and the trainer.
        load: returns the parts of the data set, given the config; default: those for
            training and for testing.

    Returns:
        The content of result.json. If no network is missing, the earlier result is
        returned.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    if (earlier := workdirs.earlier_result(workdir, config, grows=True)) is not None:
        return earlier
    check(config)
    parts = load(config)
    networks = trainer(config, workdir, *parts)
    net = networks.backbone, networks.image_shape
    print(opening(config, workdir, *net, parts, devices=config.mesh.make().size))
    whole, queue, records = train_study(config, workdir, networks)
    with study.report_lock(workdir):
        content = result(whole, queue, records, networks)
        if config.figures:
            draw_figures(workdir, content)
        write_result(config, workdir, content, step=len(queue))
    return content


def write_result(
    config: Any, workdir: Path, content: Mapping[str, Any], *, step: int
) -> None:
    """Write tables.md, events, and last result.json, which says that a run is finished.

    Args:
        config: the config of the run.
        workdir: the folder of the run.
        content: the content of result.json.
        step: the step at which TensorBoard shows metrics and figures.
    """
    if config.run.tensorboard:
        figures = sorted((workdir / "figures").glob("*.png"))
        runlog.write_events(workdir, step, content["metrics"], figures)
    write_tables(workdir, content)
    runlog.write_result(workdir, content)


def tables_of(result: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the tables of a result as Markdown, by title."""
    report = importlib.import_module(f"experiments.{result['experiment']}.report")
    return report.tables(result)


def write_tables(workdir: Path, content: Mapping[str, Any]) -> Path:
    """Write tables.md, with the tables and findings of a result; return its path."""
    parts = [f"{title}:\n\n{x}\n" for title, x in tables_of(content).items()]
    if content.get("findings"):
        parts.append(f"Findings:\n\n{findings_table(content['findings'])}\n")
    path = workdir / "tables.md"
    path.write_text("\n".join(parts))
    return path


def shared_mesh(config: Any, mesh: Any, members: int) -> Any:
    """Return a mesh whose size divides the number of networks, or the batch of one.

    Args:
        config: the config of the study.
        mesh: all devices of the study.
        members: number of networks that train at once.
    """
    batch = config.batch // config.accumulate
    data, model = mesh.shape["data"], mesh.shape["model"]
    shared = int(np.gcd(members if members > 1 else batch, data))
    return mesh if shared == data else sharding.make_mesh(shared, model)


def keep(workdir: Path, name: str, trained: Trained) -> tuple[Model, study.Record]:
    """Save the model of a member; return it and the training part of its record."""
    model = trained.model
    assert model is not None  # noqa: S101
    model = models.with_about(model, {**model.about, "member": name})
    models.save_model(study.member_folder(workdir, name) / models.FILE, model)
    return model, {
        "steps": trained.steps,
        "examples_per_s": trained.rate,
        "wall_s": trained.wall_s,
        "compile_s": trained.compile_s,
        "compilations": trained.compilations,
    }


def opening(
    config: Any,
    workdir: Path,
    net: Net,
    image_shape: tuple[int, ...],
    parts: Sequence[Images],
    *,
    devices: int,
) -> str:
    """Return the line that a run begins with: network, data, devices, folder."""
    size = nets.num_params(net, image_shape)
    data = "; ".join(
        f"{part.name}: {len(part.labels):,} images of {part.num_classes:,} classes"
        for part in parts
    )
    device, *_ = jax.devices()
    pixels = "x".join(map(str, parts[0].images.shape[1:]))
    name = config.net.pretrained or config.net.name
    return (
        f"{name} with {size:,} parameters | {data}, {pixels} pixels | "
        f"{devices} x {device.device_kind} | {workdir}"
    )


def train_study(
    config: Any, workdir: Path, trainer: Training
) -> tuple[Any, Sequence[Any], dict[str, study.Record]]:
    """Train the missing networks of a study.

    Returns:
        The config and networks of the whole study, earlier ones included, and the
        records of the finished networks. Records are missing for networks that were
        not requested yet, or that another process has not finished.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: the folder holds a study of other options or data, or some members
            cannot be trained.
    """
    asked = {item.name: item for item in trainer.items(config)}
    members = {name: trainer.member(item) for name, item in asked.items()}
    workdirs.make_workdir(workdir)
    with study.report_lock(workdir):
        whole = workdirs.join_workdir(workdir, config)
    on_cpu, devices = jax.default_backend() == "cpu", config.mesh.make().size
    threads = devices if trainer.device_each else 1
    if on_cpu and devices == 1:
        threads = 2
    study.run_members(
        workdir,
        [*members.values()],
        lambda group, folder: trainer.train([asked[m.name] for m in group], folder),
        program=lambda member: trainer.program(asked[member.name]),
        at_once=config.population or (1 if on_cpu else 8) * devices,
        threads=config.threads or threads,
        redo=config.redo,
    )
    every = trainer.items(whole)
    found = study.recorded(
        workdir, [members.get(item.name) or trainer.member(item) for item in every]
    )
    if lacking := len(every) - len(found):
        print(f"{lacking} members of this study are not done: the result omits them")
    return whole, every, found


def draw_figures(workdir: Path, result: Mapping[str, Any]) -> list[Path]:
    """Draw the figures of a result, and return the paths of their files.

    Without matplotlib, this prints a note and returns no paths.
    """
    try:
        plots = importlib.import_module("experiments.plots")
        module = importlib.import_module(f"experiments.{result['experiment']}.figures")
    except ImportError as e:
        if e.name != "matplotlib":
            raise
        print("no figures: matplotlib is not installed (install the 'plot' extra)")
        return []
    with plots.style():
        return plots.write(workdir / "figures", module.draw(workdir, result))


def about(
    records: Mapping[str, study.Record],
    parts: Mapping[str, Images],
    *,
    devices: int,
) -> dict[str, Any]:
    """Return the part of a result that describes networks, data and machine.

    Args:
        records: the records of the networks.
        parts: the parts of the data set by name.
        devices: number of devices.
    """
    rates = [r["examples_per_s"] for r in records.values() if r.get("examples_per_s")]
    return {
        "throughput": {"examples_per_s": float(np.median(rates)) if rates else None},
        "compilations": sum(r.get("compilations", 0) for r in records.values()),
        **versions.environment(jax.devices()[:devices]),
        "processes": jax.process_count(),
        "dataset_fingerprint": {name: x.fingerprint for name, x in parts.items()},
        "parts": {
            name: {"images": len(part.labels), "classes": part.num_classes}
            for name, part in parts.items()
        },
        "wall_s": sum(r.get("wall_s", 0.0) for r in records.values()),
        **({"data": "simulated"} if any(x.simulated for x in parts.values()) else {}),
    }


def tidy(properties: Mapping[str, Any], scores: Mapping[str, float]) -> list[dict]:
    """Return one row per score of a network.

    Example:
        >>> tidy({"n": 1}, {"accuracy": 50.0})
        [{'n': 1, 'metric': 'accuracy', 'value': 50.0}]
    """
    return [
        {**properties, "metric": name, "value": value} for name, value in scores.items()
    ]
