"""The queue of an imprinting study at work: trains its networks and measures rows."""

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import members as networks
from experiments.backbone import pieces
from experiments.imprinting_classes import draw_classes, examples
from experiments.imprinting_config import Config, check_streamed
from experiments.imprinting_measure import Embedded, gallery, measure
from experiments.imprinting_members import Member
from experiments.imprinting_result import Scores, score
from experiments.imprinting_rows import imprinted, predict, with_novel
from experiments.imprinting_step import (
    HEAD,
    HEADED,
    INIT,
    Program,
    Task,
    head_params,
    make_batches,
    make_head,
    make_init,
    make_optimizer,
    make_piece,
    make_step,
)
from jaxfer import heads, loop, runlog, steps
from jaxfer.data import Images, View
from jaxfer.episodes import check_episode
from jaxfer.types import Head, Params, State, TrainState


class Study:
    """The images of a study and the folder its networks lie in."""

    def __init__(
        self, config: Config, workdir: Path, train: Images, test: Images
    ) -> None:
        """Put the images on the device, unless they are to be streamed."""
        config.augment.window(*train.images.shape[1:3])
        self.config, self.folder = config, workdir / "members"
        self.train_set, self.test_set = train, test
        self.images, self.test_images = (
            x if isinstance(x, View) else jnp.asarray(x)
            for x in (train.images, test.images)
        )
        if isinstance(self.images, View):
            check_streamed(config)
        self.classes = cache(lambda seed: draw_classes(config, train, test, seed))
        self.program = cache(self._program)
        self.base = self.classes(config.seeds[0]).base

    def check(self, queue: Sequence[Member]) -> None:
        """Refuse members that cannot be trained, and networks of other data.

        Raises:
            ValueError: too few examples, or a network that is done and was trained on
                other images or classes.
        """
        for member in queue:
            self.program(member)
            networks.check_member(self.folder, member.name, self._data(member))

    def train(self, queue: Sequence[Member]) -> None:
        """Train the members that are not yet there, and say how it goes."""
        left = [m for m in queue if not networks.is_done(self.folder, m.name)]
        total, done = len(queue), len(queue) - len(left)
        print(f"{total} networks, {done} of them done")
        began, work = time.monotonic(), [self.program(m).num_steps for m in left]
        for i, member in enumerate(left):
            self._train(member)
            record = runlog.read_json(self.folder / f"{member.name}.json")
            rest = (time.monotonic() - began) * sum(work[i + 1 :]) / sum(work[: i + 1])
            print(
                f"[{done + i + 1}/{total}] {member.name}: {record['headline']}, about "
                f"{rest / 60:.0f} min to go"
            )

    def _data(self, member: Member) -> str:
        """What says on which images and classes a member is trained and tested."""
        names = self.classes(member.seed).names
        return networks.data_of(self.train_set, self.test_set, names)

    def _program(self, member: Member) -> Program:
        config = self.config
        rows, _, table = examples(self.classes(member.seed), member)
        num_classes = len(table.counts)
        base = int((self.classes(member.seed).train < self.base).sum())
        per_epoch = base // config.batch
        if not per_epoch:
            raise ValueError(
                f"found {base} examples of base classes, needed at least a batch, "
                f"{config.batch}"
            )
        epochs = config.epochs
        if member.source is not None:
            epochs = config.finetune_epochs
        elif member.row != "base":
            epochs += config.finetune_epochs
        pairs = member.loss in ("nca", "lifted")
        if pairs:
            check_episode(
                table,
                self.classes(member.seed).names[:num_classes],
                way=config.batch // config.group,
                shot=config.group - 1,
                n_query=1,
                where=f"the base classes, for batches of {member.loss}",
            )
        return Program(
            config.net,
            member.dim,
            member.loss,
            num_classes,
            config.margin,
            config.finetune if member.source else config.optim,
            config.augment,
            config.batch,
            "groups" if pairs else "class" if member.n else "epoch",
            config.group,
            n=len(rows),
            per_epoch=per_epoch,
            num_steps=(
                config.transfer_steps if member.novel_only else epochs * per_epoch
            ),
            streamed=isinstance(self.images, View),
        )

    def _task(self, member: Member) -> Task:
        classes = self.classes(member.seed)
        rows, labels, table = examples(classes, member)
        return Task(
            jnp.asarray(rows),
            jnp.asarray(labels),
            jax.tree.map(jnp.asarray, table),
            jnp.asarray(classes.centre),
            jnp.asarray(classes.scale),
            member.key(),
        )

    def _begin(self, member: Member, task: Task, classes: int) -> tuple[Params, State]:
        """The parameters and statistics a member begins with."""
        config, key = self.config, jax.random.fold_in(member.key(), HEAD)
        if member.loss == "linear":
            head = heads.linear_head(key, member.dim, classes)
        else:
            head = heads.cosine_head(key, member.dim, classes, scale=config.scale)
        if config.scale_per_class and head.unit:
            scales = jnp.full((classes,), config.scale, jnp.float32)
            head = dataclasses.replace(head, scale=scales)
        if member.source is None:
            _, *size, channels = self.images.shape
            shape = (*config.augment.window(*size), channels)
            init = make_init(config.net, member.dim, shape)
            params, state = init(jax.random.fold_in(member.key(), INIT))
        else:
            before = networks.read_net(self.folder / f"{member.source.name}.npz")
            before = jax.tree.map(jnp.asarray, before)
            params, state = before["params"]["net"], before["state"]
            # A layer without statistics has no arrays of them.
            state = {name: state.get(name, {}) for name in params}
            known = make_head(before["params"]["head"], member.loss)
            head = self._extended(known, head, member, params, state, task)
        trained = {"net": params}
        if member.loss in HEADED:
            trained["head"] = head_params(head, member.loss)
        return trained, state

    def _extended(
        self,
        known: Head,
        drawn: Head,
        member: Member,
        params: Params,
        state: State,
        task: Task,
    ) -> Head:
        """A trained head with rows for novel classes, drawn or imprinted."""
        head = with_novel(known, drawn, alone=member.novel_only)
        if "imprinting" not in member.row:
            return head
        few = self.classes(member.seed).few[:, : member.n]
        z = self._embed(member, params, state, task, self.images, few.reshape(-1))
        first = 0 if member.novel_only else self.base
        labels = first + jnp.repeat(jnp.arange(len(few), dtype=jnp.int32), member.n)
        return imprinted(head, z, labels)

    def _embed(
        self,
        member: Member,
        params: Params,
        state: State,
        task: Task,
        images: Array | View,
        rows: np.ndarray,
        *,
        moved: bool = False,
    ) -> Array:
        config = self.config
        piece = make_piece(config.net, member.dim, config.augment, moved=moved)
        workers = config.data.workers
        blocks = pieces(piece, params, state, task, images, rows, workers)
        return jnp.concatenate([*blocks])

    def _train(self, member: Member) -> None:
        """Train a member, measure it, and write down what it came to."""
        config, folder = self.config, self.folder / member.name
        program, task = self.program(member), self._task(member)
        params, state = self._begin(member, task, program.num_classes)
        train_state = steps.init_train_state(params, state, make_optimizer(program))
        data: Any = (task, self.images)
        if program.streamed:
            data = make_batches(program, task, self.images, config.data.workers)

        tested: dict[int, tuple[Scores, list[float]]] = {}

        def evaluate(train_state: TrainState) -> Mapping[str, float]:
            found = self._tested(member, task, train_state)
            tested[int(train_state.step)] = found
            return found[0]

        # Novel classes alone have no epochs to speak of.
        every = program.num_steps // 10 if member.novel_only else program.per_epoch
        with loop.Run(
            folder,
            fingerprint=self._data(member),
            per_step=config.batch,
            unit="image",
            steps_per_call=config.steps_per_call,
            save_every=config.save_every,
            # What comes of a network is written below.
            save_last=False,
            log_every=config.log_every,
        ) as going:
            try:
                ended = going.phase(
                    "train",
                    make_step(program),
                    train_state,
                    data,
                    num_steps=program.num_steps,
                    evaluate=evaluate if member.n else None,
                    eval_every=max(every, 1) if member.n else 0,
                )
            except ValueError as e:
                raise ValueError(f"{member.name}: {e}") from e
            train_state = ended.train_state
            assert train_state is not None  # noqa: S101
            about = {
                "steps": program.num_steps,
                "examples_per_s": going.rate,
                "wall_s": going.wall_s,
                "data": self._data(member),
            }
        shown: dict[str, np.ndarray] = {}
        if member.n:
            # Not tested yet where the last step is none of an evaluation.
            last = tested.get(program.num_steps)
            scores, recall = last or self._tested(member, task, train_state)
            record = {"rows": {member.row: {member.n: scores}}, "recall": recall}
            record["headline"] = ", ".join(f"{k} {v:.2f}" for k, v in scores.items())
        else:
            record, shown = self._measured(member, task, train_state)
        record["epochs"] = [
            {name: value for name, value in line.items() if name != "wall_s"}
            for line in runlog.read_metrics(folder)
            if "novel" in line
        ]
        arrays = None
        if not member.n:
            arrays = networks.net_arrays(
                train_state.trainable, train_state.state, task.centre, task.scale
            )
            arrays |= {f"gallery/{name}": x for name, x in shown.items()}
        networks.write_member(self.folder, member.name, {**record, **about}, arrays)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def _tested(
        self, member: Member, task: Task, train_state: TrainState
    ) -> tuple[Scores, list[float]]:
        """The scores of a trained head on the test images."""
        params = train_state.trainable
        head = make_head(params["head"], member.loss)
        classes = self.classes(member.seed)
        labels = classes.test
        rows = np.arange(len(labels), dtype=np.int32)
        if member.novel_only:
            rows = np.flatnonzero(labels >= self.base).astype(np.int32)
        z = self._embed(
            member, params["net"], train_state.state, task, self.test_images, rows
        )
        first = self.base if member.novel_only else 0
        predicted = predict(head, z) + first
        return score(predicted, labels[rows], classes.base, classes.names)

    def _measured(
        self, member: Member, task: Task, train_state: TrainState
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a base network makes of novel classes without training; a gallery."""
        classes, trained = self.classes(member.seed), train_state.trainable
        (novel, most), few = classes.few.shape, classes.few.reshape(-1)

        def embed(images: Any, rows: np.ndarray, copy: int | None = None) -> Array:
            moved, own = copy is not None, task
            if copy is not None:
                own = task._replace(key=jax.random.fold_in(task.key, copy))
            params, state = trained["net"], train_state.state
            return self._embed(member, params, state, own, images, rows, moved=moved)

        every = np.arange(len(classes.test), dtype=np.int32)
        known = None
        copies: list[Array] = []
        if member.loss == "softmax":
            known = make_head(trained["head"], member.loss)
            copies = [embed(self.images, few, i) for i in range(self.config.copies)]
        embedded = Embedded(
            test=embed(self.test_images, every),
            few=embed(self.images, few).reshape(novel, most, -1),
            copies=[z.reshape(novel, most, -1) for z in copies],
        )
        shots = self.config.shots
        record, imprinted = measure(member, classes, known, embedded, shots)
        if imprinted is None:
            return record, {}
        train, test = self.train_set, self.test_set
        return record, gallery(classes, member.seed, imprinted, train, test)
