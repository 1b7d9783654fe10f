"""Layer transfer (Yosinski et al. 2014): which layers of a network carry over?

    python -m experiments.layer_transfer --config configs/glyphs_layer_transfer.py

trains base networks on halves of the classes, copies the first n layers of each to
networks for its own half (selffer) and for the other (transfer), frozen and fine-tuned,
and measures on test images what that costs, paired by target task. The same line goes
on after any stop: networks that are done are not trained again.
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import layer_transfer_cache as cache
from experiments import layer_transfer_result as results
from experiments.layer_transfer_config import Config, check
from experiments.layer_transfer_members import (
    Member,
    Target,
    base_name,
    groups,
    members,
)
from experiments.layer_transfer_step import (
    INIT,
    Program,
    Task,
    make_init,
    make_net,
    make_optimizer,
    make_piece,
    make_step,
    test_network,
)
from jaxfer import config as configs
from jaxfer import loop, runlog, sharding, steps
from jaxfer.data import Images, load, shrunk
from jaxfer.transfer import begin, check_layers, freeze_rules, stages
from jaxfer.trees import flatten, merge
from jaxfer.types import Params, State, TrainState


def load_parts(config: Config) -> tuple[Images, Images]:
    """The training and the test images of all classes."""
    data = config.data
    parts = load(data.name, [data.train, data.test], data.dir, by="example")
    train, test = (
        parts[split] if data.side is None else shrunk(parts[split], data.side)
        for split in (data.train, data.test)
    )
    size = (train.images.nbytes + test.images.nbytes) / 1e9
    if size > data.limit:
        raise ValueError(
            f"found {size:.3g} GB of pixels in {train.name} and {test.name}, needed at "
            f"most data.limit = {data.limit:g}: this experiment keeps images on the "
            "device (see also data.side)"
        )
    if data.classes is not None:
        chosen = train.class_names[: data.classes]
        train, test = (x.take_classes(chosen, name=x.name) for x in (train, test))
    return train.in_memory(), test.in_memory()


def run(
    config: Config, workdir: Path, published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Train every network that is not yet there, and write the result and its figures.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
        ValueError: data or a folder that do not fit the config.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"found {jax.process_count()} processes, needed one: this experiment "
            "spreads over the devices of one host"
        )
    configs.check_workdir(workdir, config)
    if (workdir / "result.json").exists():
        print(f"{workdir} is finished; its result stands in {workdir / 'result.json'}")
        return runlog.read_json(workdir / "result.json")
    check(config)
    train, test = load_parts(config)
    net = make_net(config.net, 2)
    queue = members(config, train.class_names, len(net.layers))
    for member in queue:
        if member.treatment is not None:
            check_layers(net, member.treatment)
    with configs.open_workdir(workdir, config):
        Study(config, workdir, train, test).train(queue)
        result = results.make_result(config, workdir, queue, train, test, published)
        print(results.table(result))
        if config.figures:
            results.draw(workdir, result)
        # Last: a study is finished where it stands.
        runlog.write_json(workdir / "result.json", result)
    return result


class Study:
    """The images of a study on the devices, and the folder its networks lie in."""

    def __init__(
        self, config: Config, workdir: Path, train: Images, test: Images
    ) -> None:
        """Put the images on the devices."""
        self.config, self.folder = config, workdir / "members"
        self.devices = config.devices or 1
        mesh = sharding.make_mesh(self.devices)
        self.train_set, self.test_set = train, test
        self.images = sharding.place(np.asarray(train.images), mesh)
        self.test_images = sharding.place(np.asarray(test.images), mesh)
        self.mesh = mesh

    def train(self, queue: Sequence[Member]) -> None:
        """Train the members that are not yet there, and say how it goes."""
        each = 1 if jax.default_backend() == "cpu" else 8
        size = self.config.population or each * self.devices
        if size % self.devices:
            raise ValueError(
                f"found population = {size}, needed a multiple of the {self.devices} "
                "devices"
            )
        done = sum(results.is_done(self.folder, member) for member in queue)
        print(f"{len(queue)} networks, {done} of them done")
        began, before = time.monotonic(), done
        for group in groups(queue, size):
            group = [m for m in group if not results.is_done(self.folder, m)]
            if not group:
                continue
            self._train_group(group)
            done += len(group)
            left = (time.monotonic() - began) / (done - before) * (len(queue) - done)
            for member in group:
                print(results.row(self.folder, member, done, len(queue), left))

    def _train_group(self, group: Sequence[Member]) -> None:
        """Train members that share a program, and write down what they came to."""
        one, folder = group[0], self.folder / group[0].name
        tasks = [self._task(member) for member in group]
        program, plan = self._plan(one, len(tasks[0].labels))
        begun = [self._begin(member, program.outputs) for member in group]
        optimizer = make_optimizer(program)
        rules = freeze_rules(program.frozen)
        train_state = self._spread(
            [
                steps.init_train_state(params, state, optimizer, rules=rules)
                for params, state, _ in begun
            ]
        )
        data: cache.Feed = (self.images, cache.stack(tasks))
        if len(plan) == 1:
            program, data = cache.feed(
                self.config,
                program,
                one.name,
                begun,
                tasks,
                self.images,
                folder / "prefix",
            )
        if not callable(data):
            data = data[0], sharding.place_members(data[1], self.mesh)
        names = " ".join(member.name for member in group)
        with loop.Run(
            folder,
            fingerprint=f"{self.train_set.fingerprint} {names}",
            per_step=self.config.batch * len(group),
            unit="image",
            steps_per_call=self.config.steps_per_call,
            save_every=self.config.save_every,
            log_every=self.config.log_every,
        ) as going:
            for number, (until, frozen) in enumerate(plan):
                program = dataclasses.replace(program, frozen=frozen)
                if number:
                    train_state = _repartition(train_state, optimizer, frozen)
                ended = going.phase(
                    f"train{number + 1}" if len(plan) > 1 else "train",
                    make_step(program),
                    train_state,
                    data,
                    num_steps=until,
                )
                train_state = ended.train_state or train_state
            rate, wall_s = going.rate, going.wall_s
        (seen,) = [
            value
            for name, value in runlog.read_metrics(folder)[-1].items()
            if name.endswith("/accuracy")
        ]
        for i, (member, task) in enumerate(zip(group, tasks, strict=True)):
            params, state = jax.tree.map(
                lambda x, i=i: x[i],
                (merge(train_state.trainable, train_state.frozen), train_state.state),
            )
            record = {
                "accuracy": self._test(member, program, params, state, task),
                "train_accuracy": 100 * seen,
                "steps": program.num_steps,
                "examples_per_s": rate,
                "wall_s": wall_s / len(group),
                "cached": program.first is not None,
                "taken": begun[i][2],
                "trained_with": [m.name for m in group],
            }
            keep = member.kind in ("base", "random")
            arrays = _net_arrays(params, state, task) if keep else None
            results.write_member(self.folder, member, record, arrays)
        for scratch in ("checkpoints", "prefix"):
            shutil.rmtree(folder / scratch, ignore_errors=True)

    def _spread(self, states: Sequence[TrainState]) -> TrainState:
        """One state of many networks, each device with its share of them."""
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *[s[1:] for s in states])
        number = sharding.place(states[0].step, self.mesh)
        return TrainState(number, *sharding.place_members(stacked, self.mesh))

    def _plan(
        self, member: Member, n: int
    ) -> tuple[Program, list[tuple[int, tuple[str, ...]]]]:
        """The program a member begins with, and what is frozen until which step."""
        config, treatment = self.config, member.treatment
        per_epoch = n // config.batch
        if not per_epoch:
            raise ValueError(
                f"found {n} examples of {member.target.name}, needed at least a batch, "
                f"{config.batch}"
            )
        outputs = config.net.outputs or len(member.target.classes)
        if outputs < len(member.target.classes):
            raise ValueError(
                f"found net.outputs = {outputs}, needed at least the "
                f"{len(member.target.classes)} classes of {member.target.name}"
            )
        plan: list[tuple[int, tuple[str, ...]]]
        if treatment is None:
            num_steps = config.epochs * per_epoch
            plan = [(num_steps, ())]
        else:
            num_steps = treatment.length * config.epochs * per_epoch
            plan = stages(make_net(config.net, outputs), treatment, num_steps)
        program = Program(
            config.net,
            config.optim,
            config.augment,
            config.batch,
            outputs,
            linear=treatment is None,
            n=n,
            num_steps=num_steps,
            frozen=plan[0][1],
            devices=self.devices,
        )
        return program, plan

    def _test(
        self, member: Member, program: Program, params: Params, state: State, task: Task
    ) -> float:
        rows, labels = _rows(self.test_set, member.target)
        piece = make_piece(self.config.net, program.outputs, program.linear, None)
        return test_network(piece, params, state, task, self.test_images, rows, labels)

    def _task(self, member: Member) -> Task:
        """The examples of a member, normalised as those of its first layers were."""
        rows, labels = _rows(self.train_set, member.target)
        if member.source is None:
            pixels = np.asarray(self.train_set.images)[rows]
            centre = pixels.mean(axis=0, dtype=np.float64).astype(np.float32)
            scale = np.float32(1 / max(pixels.std(dtype=np.float64), 1e-6))
        else:
            source = self._source(member.source)
            centre, scale = source["centre"], source["scale"]
        return Task(
            jnp.asarray(rows),
            jnp.asarray(labels),
            jnp.asarray(centre),
            jnp.asarray(scale),
            member.key(),
        )

    def _begin(self, member: Member, outputs: int) -> cache.Begun:
        """The parameters and statistics a member begins with, and what it copied."""
        config, linear = self.config, member.treatment is None
        init = make_init(config.net, outputs, linear, self.images.shape[1:])
        fresh = init(jax.random.fold_in(member.key(), INIT))
        if member.treatment is None:
            return *fresh, ()
        source = None
        if member.source is not None:
            arrays = self._source(member.source)
            params, state = arrays["params"], arrays["state"]
            # A network without statistics has no arrays of them.
            source = params, {name: state.get(name, {}) for name in fresh[1]}
        net = make_net(config.net, outputs)
        params, state, report = begin(net, member.treatment, fresh, source)
        params, state = jax.tree.map(jnp.asarray, (params, state))
        return params, state, report.taken

    def _source(self, target: Target) -> dict[str, Any]:
        return results.read_net(self.folder / f"{base_name(target)}.npz")


def _repartition(
    train_state: TrainState, optimizer: Any, frozen: tuple[str, ...]
) -> TrainState:
    return jax.vmap(
        lambda s: steps.repartition(s, optimizer, freeze_rules(frozen)),
        in_axes=(steps.POPULATION,),
        out_axes=steps.POPULATION,
    )(train_state)


def _rows(images: Images, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Which images are of a target's classes, and their labels within it."""
    new = np.full(images.num_classes, -1, np.int32)
    chosen = set(target.classes)
    numbers = [i for i, name in enumerate(images.class_names) if name in chosen]
    new[numbers] = np.arange(len(numbers), dtype=np.int32)
    labels = new[images.labels]
    rows = np.flatnonzero(labels >= 0).astype(np.int32)
    return rows, labels[rows]


def _net_arrays(params: Params, state: State, task: Task) -> dict[str, Array]:
    tree = {"params": params, "state": state, "centre": task.centre}
    return flatten({**tree, "scale": task.scale})


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    return configs.main("experiments.layer_transfer", Config, run, argv)


if __name__ == "__main__":
    # Config files import this module by name, and a class is one class only once.
    from experiments.layer_transfer import main as named_main

    sys.exit(named_main())
