"""The queue of a layer-transfer study at work: trains its networks and tests them."""

import dataclasses
import hashlib
import math
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import layer_transfer_cache as cache
from experiments import layer_transfer_result as results
from experiments import members as networks
from experiments.backbone import make_net, moments
from experiments.layer_transfer_config import Config
from experiments.layer_transfer_members import Member, Target, base_name, groups
from experiments.layer_transfer_step import (
    INIT,
    Program,
    Task,
    make_init,
    make_optimizer,
    make_piece,
    make_step,
    test_network,
)
from jaxfer import loop, sharding, steps
from jaxfer.data import Images
from jaxfer.transfer import begin, freeze_rules, stages
from jaxfer.trees import Rules, merge
from jaxfer.types import Params, State, TrainState

# What a network's folder holds while it trains.
_SCRATCH = ("checkpoints", "prefix")


class Study:
    """The images of a study on the devices, and the folder its networks lie in."""

    def __init__(
        self, config: Config, workdir: Path, train: Images, test: Images
    ) -> None:
        """Put the images on the devices."""
        self.config, self.folder = config, workdir / "members"
        self.devices = config.devices or 1
        self.train_set, self.test_set = train, test
        mesh = sharding.make_mesh(self.devices)
        self.images = sharding.place(np.asarray(train.images), mesh)
        self.test_images = jnp.asarray(np.asarray(test.images))

    def check(self, queue: Sequence[Member]) -> None:
        """Refuse members that cannot be trained, and networks of other data.

        Raises:
            ValueError: too few examples or outputs for a task, or a network that is
                done and was trained on other images or classes.
        """
        for member in queue:
            self._plan(member)
            networks.check_member(self.folder, member.name, self._data(member))

    def _data(self, member: Member) -> str:
        """What says on which images and classes a member is trained and tested."""
        names = member.target.classes
        return networks.data_of(self.train_set, self.test_set, names)

    def train(self, queue: Sequence[Member]) -> None:
        """Train the members that are not yet there, and say how it goes."""
        each = 1 if jax.default_backend() == "cpu" else 8
        size = self.config.population or each * self.devices
        done = sum(networks.is_done(self.folder, member.name) for member in queue)
        print(f"{len(queue)} networks, {done} of them done")
        began, before = time.monotonic(), done
        for group in groups(queue, size, lambda t: len(_rows(self.train_set, t)[0])):
            group = [m for m in group if not networks.is_done(self.folder, m.name)]
            if not group:
                continue
            self._train_group(group)
            done += len(group)
            left = (time.monotonic() - began) / (done - before) * (len(queue) - done)
            for member in group:
                print(results.row(self.folder, member, done, len(queue), left))
        # Of a kill between a network's result and this.
        for scratch in _SCRATCH:
            for path in self.folder.glob(f"*/{scratch}"):
                shutil.rmtree(path)

    def _train_group(self, group: Sequence[Member]) -> None:
        """Train members that share a program, and write down what they came to."""
        config, name = self.config, _group_name(group)
        folder = self.folder / name
        program, plan = self._plan(group[0])
        mesh = sharding.make_mesh(math.gcd(len(group), self.devices))
        program = dataclasses.replace(program, devices=mesh.size)
        tasks = [self._task(member) for member in group]
        begun = [self._begin(member, program.outputs) for member in group]
        optimizer = make_optimizer(program)
        states = [
            steps.init_train_state(
                params, state, optimizer, rules=freeze_rules(params, program.frozen)
            )
            for params, state, _ in begun
        ]
        train_state = _place(steps.stack_population(states), mesh)
        program, data = cache.feed(
            config,
            program,
            name,
            begun,
            tasks,
            sharding.place(self.images, mesh),
            folder / "prefix",
            still=len(plan) == 1,
        )
        if not callable(data):
            data = data[0], sharding.place_members(data[1], mesh)
        with loop.Run(
            folder,
            fingerprint=self._data(group[0]),
            per_step=config.batch * len(group),
            unit="image",
            steps_per_call=config.steps_per_call,
            save_every=config.save_every,
            # What comes of a network is written below.
            save_last=False,
            log_every=config.log_every,
        ) as going:
            for number, (until, frozen) in enumerate(plan):
                program = dataclasses.replace(program, frozen=frozen)
                if number:
                    rules = freeze_rules(begun[0][0], frozen)
                    train_state = _place(
                        _repartition(train_state, optimizer, rules), mesh
                    )
                phase = "train" if len(plan) == 1 else f"train{number + 1}"
                try:
                    ended = going.phase(
                        phase, make_step(program), train_state, data, num_steps=until
                    )
                except ValueError as e:
                    names = ", ".join(member.name for member in group)
                    raise ValueError(f"{names}: {e}") from e
                train_state = ended.train_state or train_state
            about = {
                "steps": program.num_steps,
                "examples_per_s": going.rate,
                "wall_s": going.wall_s / len(group),
                "cached": program.first is not None,
                "trained_with": [member.name for member in group],
            }
        # By way of the host, since they are tested one by one.
        parameters = merge(train_state.trainable, train_state.frozen)
        trained = jax.device_get((parameters, train_state.state))
        for i, (member, task) in enumerate(zip(group, tasks, strict=True)):
            params, state = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), trained)
            measured = self._measure(member, program, params, state, task)
            record = {**measured, **about, "taken": begun[i][2]}
            keep = member.kind in ("base", "random")
            arrays = None
            if keep:
                arrays = networks.net_arrays(params, state, task.centre, task.scale)
            record["data"] = self._data(member)
            networks.write_member(self.folder, member.name, record, arrays)
        for scratch in _SCRATCH:
            shutil.rmtree(folder / scratch, ignore_errors=True)

    def _plan(
        self, member: Member
    ) -> tuple[Program, list[tuple[int, tuple[str, ...]]]]:
        """The program a member begins with, and what is frozen until which step."""
        config, treatment = self.config, member.treatment
        n = len(_rows(self.train_set, member.target)[0])
        per_epoch = n // config.batch
        if not per_epoch:
            raise ValueError(
                f"found {n} examples of {member.target.name}, needed at least a batch, "
                f"{config.batch}"
            )
        outputs = config.outputs or len(member.target.classes)
        if outputs < len(member.target.classes):
            raise ValueError(
                f"found outputs = {outputs}, needed at least the "
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
            frozen_dropout=config.frozen_dropout,
        )
        return program, plan

    def _measure(
        self, member: Member, program: Program, params: Params, state: State, task: Task
    ) -> dict[str, float]:
        """Accuracies on the test images, and on as many of those it trained on."""
        piece = make_piece(self.config.net, program.outputs, program.linear, None)
        test = partial(test_network, piece, params, state, task)
        rows, labels = _rows(self.test_set, member.target)
        seen, seen_labels = (
            x[: len(rows)] for x in _rows(self.train_set, member.target)
        )
        return {
            "accuracy": test(self.test_images, rows, labels),
            "train_accuracy": test(self.images, seen, seen_labels),
        }

    def _task(self, member: Member) -> Task:
        """The examples of a member, normalised as those of its first layers were."""
        rows, labels = _rows(self.train_set, member.target)
        if member.source is None:
            centre, scale = moments(np.asarray(self.train_set.images), rows)
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
        return networks.read_net(self.folder / f"{base_name(target)}.npz")


def _group_name(group: Sequence[Member]) -> str:
    """A folder's name, another one for other members: a population may change."""
    if len(group) == 1:
        return group[0].name
    names = " ".join(member.name for member in group)
    return f"{group[0].name}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"


def _place(train_state: TrainState, mesh: Any) -> TrainState:
    """Each device with its share of the networks."""
    rest = sharding.place_members(tuple(train_state[1:]), mesh)
    return TrainState(sharding.place(train_state.step, mesh), *rest)


def _repartition(train_state: TrainState, optimizer: Any, rules: Rules) -> TrainState:
    return jax.vmap(
        lambda one: steps.repartition(one, optimizer, rules),
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
