"""Training and test of the networks of a layer-transfer study."""

import hashlib
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.inputs import moments, read_parts
from experiments.layer_transfer.config import Config
from experiments.layer_transfer.members import Target, Transfer, transfers
from experiments.studies import keep, shared_mesh
from jaxfer import heads, models, nets, sharding, stats, study
from jaxfer.config import what_of
from jaxfer.data import Images
from jaxfer.data.feed import place
from jaxfer.keys import HEAD, key_of
from jaxfer.models import Examples, Model, Recipe
from jaxfer.transfer import Stage, Treatment, copied_layers, stages
from jaxfer.types import Net


class Trainer:
    """Keeps the images of a study on the devices, and trains its networks on them."""

    device_each = False

    def __init__(
        self, config: Config, workdir: Path, train: Images, test: Images
    ) -> None:
        """Check the counts, then decode the images and put them on the devices.

        Raises:
            ValueError: halves that do not fit the classes, or too few examples.
        """
        self.config, self.workdir = config, workdir
        self.mesh = config.mesh.make()
        self.image_shape = tuple(train.images.shape[1:])
        self.pretrained = config.net.start(self.image_shape)
        built = config.net.build(self.image_shape)
        self.backbone = nets.as_net(built, self.image_shape)
        self.pixels = nets.as_net(nets.Flatten())
        names, num_layers = train.class_names, len(self.backbone.layers)
        self.items = cache(lambda config: transfers(config, names, num_layers))
        self.rows = cache(lambda target: class_rows(train, target))
        for transfer in self.items(config):
            self.num_steps(transfer)
        self.train_set, self.test_set = read_parts(train, test, config.run)
        self.images = place(self.train_set, self.mesh, limit=config.run.limit)
        self.test_images = place(self.test_set, limit=config.run.limit)
        self.moments = cache(
            lambda target: moments(self.train_set, self.rows(target)[0])
        )
        self.source = cache(self._source)

    def num_steps(self, transfer: Transfer) -> int:
        """Return the number of training steps of a network.

        Raises:
            ValueError: too few examples, or too few outputs for the task.
        """
        target = transfer.target
        if (outputs := self.outputs(target)) < len(target.classes):
            raise ValueError(
                f"expected outputs of at least the {len(target.classes)} classes of "
                f"{target.name}, got {outputs}"
            )
        return models.steps_of(self.recipe(transfer), len(self.rows(target)[0]))[0]

    def member(self, transfer: Transfer) -> study.Member:
        """Return a network as a member of the study's queue."""
        config, target = self.config, transfer.target
        classes = hashlib.sha256(repr(target.classes).encode()).hexdigest()[:16]
        spec = {
            **what_of(config),
            "data": [self.train_set.fingerprint, self.test_set.fingerprint],
            "classes": classes,
            "treatment": transfer.kind,
            "n": transfer.n,
            "seed": target.seed,
        }
        needs = (transfer.source,) if transfer.source else ()
        work = self.num_steps(transfer) * config.batch
        work *= _share(self.backbone, transfer.treatment)
        return study.Member(transfer.name, spec, needs, work)

    def program(self, transfer: Transfer) -> Any:
        """Return a key; networks with equal keys share a compiled program."""
        n = len(self.rows(transfer.target)[0])
        return transfer.kind, transfer.n, n, self.outputs(transfer.target)

    def outputs(self, target: Target) -> int:
        """Return the number of outputs of the classifier of a task."""
        return self.config.outputs or len(target.classes)

    def recipe(self, transfer: Transfer) -> Recipe:
        """Return the training recipe of a network."""
        config = self.config
        length = transfer.treatment.length if transfer.treatment else 1
        return Recipe(
            config.optim,
            epochs=length * config.epochs,
            batch=config.batch,
            accumulate=config.accumulate,
            augment=config.augment,
            frozen_dropout=config.frozen_dropout,
            rates=config.net.rates(self.copied(transfer)),
            batch_norm=config.net.batch_norm or "batch",
        )

    def copied(self, transfer: Transfer) -> tuple[str, ...]:
        """Return the layers that a network copies from another one."""
        treatment = transfer.treatment
        return () if treatment is None else copied_layers(self.backbone, treatment)

    def train(self, transfers: Sequence[Transfer], folder: Path) -> list[study.Record]:
        """Train and save networks that share a program, and return their records."""
        config, first = self.config, transfers[0]
        net = self.backbone if first.treatment else self.pixels
        recipe = self.recipe(first)
        begun = [self._start(transfer, net) for transfer in transfers]
        plan: Sequence[Stage] = (Stage(),)
        if first.treatment is not None:
            plan = stages(net, first.treatment, self.num_steps(first))
        trained = models.train_population(
            net,
            self.images,
            [
                Examples(
                    *self.rows(transfer.target),
                    model.pixels,
                    key_of(transfer.name),
                    transfer.target.classes,
                )
                for transfer, (model, _) in zip(transfers, begun, strict=True)
            ],
            recipe,
            heads=[model.head for model, _ in begun],
            starts=[model for model, _ in begun],
            stages=plan,
            mesh=shared_mesh(config, self.mesh, len(transfers)),
            workdir=folder,
            cache=config.cache,
            options=config.run.for_member(),
        )
        return [
            self._record(transfer, done, taken, transfers)
            for transfer, done, (_, taken) in zip(
                transfers, trained, begun, strict=True
            )
        ]

    def _start(self, transfer: Transfer, net: Net) -> tuple[Model, tuple[str, ...]]:
        """Return the initial model of a network, and the paths that were copied."""
        key, target = key_of(transfer.name), transfer.target
        source = self.source(transfer.source) if transfer.source else self.pretrained
        pixels = source.pixels if source else self.moments(target)
        dim = models.embedding_dim(net, self.image_shape)
        outputs, head_key = self.outputs(target), jax.random.fold_in(key, HEAD)
        make = partial(heads.linear_head, head_key, dim, outputs)
        mesh = shared_mesh(self.config, self.mesh, 1)
        head = sharding.init_rows(make, outputs, mesh)
        fresh = models.init_model(net, self.image_shape, key, head=head, pixels=pixels)
        if transfer.treatment is None:
            return fresh, ()
        start, report = models.init_transfer(transfer.treatment, fresh, source)
        return start, report.taken

    def _source(self, name: str) -> Model:
        folder = study.member_folder(self.workdir, name)
        return models.load_model(folder, self.backbone)

    def _record(
        self,
        transfer: Transfer,
        trained: models.Trained,
        taken: Sequence[str],
        together: Sequence[Transfer],
    ) -> study.Record:
        model, training = keep(self.workdir, transfer.name, trained)
        rows, labels = class_rows(self.test_set, transfer.target)
        seen, seen_labels = (x[: len(rows)] for x in self.rows(transfer.target))
        scores = self._scores(model, self.test_images, rows, labels)
        known = self._scores(model, self.images, seen, seen_labels)
        return {
            **scores,
            "train_accuracy": known["accuracy"],
            "headline": f"accuracy {scores['accuracy']:.2f}%",
            **training,
            "taken": list(taken),
            "trained_with": [t.name for t in together],
        }

    def _scores(
        self, model: Model, images: Any, rows: np.ndarray, labels: np.ndarray
    ) -> dict[str, float]:
        assert model.head is not None  # noqa: S101
        z = models.embed(model, images.items, rows=rows)
        predicted = models.predict_labels(model.head, z.reshape(len(rows), -1))
        return stats.accuracies(predicted, labels, model.head.num_classes)


def class_rows(images: Images, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of images of a target's classes, and their task labels."""
    new = np.full(images.num_classes, -1, np.int32)
    chosen = set(target.classes)
    numbers = [i for i, name in enumerate(images.class_names) if name in chosen]
    new[numbers] = np.arange(len(numbers), dtype=np.int32)
    labels = new[images.labels]
    rows = np.flatnonzero(labels >= 0).astype(np.int32)
    return rows, labels[rows]


def _share(net: Net, treatment: Treatment | None) -> float:
    """Estimate the cost of a step of a treatment, as a share of a full step."""
    if treatment is None or not treatment.frozen or treatment.gradual_unfreezing:
        return 1.0
    return 1 - 0.9 * treatment.n / max(len(net.layers), 1)
