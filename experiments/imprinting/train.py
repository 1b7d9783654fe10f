"""Training and measurement of the networks of an imprinting study."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.imprinting.classes import (
    TrainSet,
    base_pixels,
    split_classes,
    train_set,
)
from experiments.imprinting.config import PAIRS, Config
from experiments.imprinting.measure import Embedded, gallery_images, measure, score
from experiments.imprinting.members import MEASURE, Imprinted, networks
from experiments.imprinting.rows import imprinted, with_novel
from experiments.inputs import read_parts
from experiments.studies import keep, shared_mesh
from jaxfer import heads, models, nets, sharding, study
from jaxfer.compilation import jit
from jaxfer.config import what_of
from jaxfer.data import Images, random_crop
from jaxfer.data.augment import Crop
from jaxfer.data.feed import in_blocks, place
from jaxfer.data.sampling import Sampler
from jaxfer.episodes import check_episode, class_table
from jaxfer.keys import COPIES, HEAD, key_of
from jaxfer.memo import memoised
from jaxfer.models import Examples, Model, Pixels, Recipe
from jaxfer.types import EVAL, Head, Net, Params, State

GALLERY = "gallery.npz"
# Weight decay applies to the kernels of the network and not to the rows of a head.
_DECAY = (("net/**/kernel", True), ("**", False))


class Trainer:
    """Keeps the images of a study on the devices, and trains its networks on them."""

    device_each = False

    def __init__(
        self, config: Config, workdir: Path, train: Images, test: Images
    ) -> None:
        """Check the counts, then decode the images and put them on the devices.

        Raises:
            ValueError: an image smaller than the window, or too few examples.
        """
        shape, limit = tuple(train.images.shape[1:]), config.run.limit
        self.image_shape = (*config.augment.window(*shape[:2]), shape[2])
        self.config, self.workdir = config, workdir
        self.mesh = config.mesh.make()
        self.backbone = self.net(config.dim)
        self.split = cache(lambda seed: split_classes(config, train, test, seed))
        for network in networks(config):
            if network.row != MEASURE:
                self.recipe(network)
        self.train_set, self.test_set = read_parts(train, test, config.run)
        self.images = place(self.train_set, self.mesh, limit=limit)
        self.test_images = place(self.test_set, limit=limit)
        pretrained = config.net.start(self.image_shape, dim=config.dim)
        self.pixels = cache(
            lambda seed: (
                pretrained.pixels
                if pretrained
                else base_pixels(config, self.train_set, self.split(seed))
            )
        )
        self.base = cache(self._base)
        self.program = cache(self._program)
        self.embedded = memoised(1)(self._embedded)

    def net(self, dim: int) -> Net:
        """Return the network with an embedding of `dim` dimensions."""
        built = self.config.net.build(self.image_shape, dim=dim)
        return nets.as_net(built, self.image_shape)

    def items(self, config: Config) -> list[Imprinted]:
        """Return the networks of a config, each after the one it starts from."""
        return networks(config)

    def member(self, network: Imprinted) -> study.Member:
        """Return a network as a member of the study's queue.

        Raises:
            ValueError: too few examples.
        """
        config, split = self.config, self.split(network.seed)
        spec = {
            **what_of(config),
            "data": [self.train_set.fingerprint, self.test_set.fingerprint],
            "classes": hashlib.sha256(repr(split.names).encode()).hexdigest()[:16],
            **network._asdict(),
        }
        needs = (network.source.name,) if network.source else ()
        if network.row == MEASURE:
            return study.Member(network.name, spec, needs, float(len(split.test)))
        recipe = self.recipe(network)
        num_steps, _ = models.steps_of(recipe, len(split.train))
        work = float(num_steps * config.batch)
        return study.Member(network.name, spec, needs, work)

    def _program(self, network: Imprinted) -> Any:
        # Networks with equal keys share a compiled program. The queue asks for each
        # pair of networks, so the keys are cached.
        if network.row == MEASURE:
            return network
        examples = train_set(self.split(network.seed), network)
        return network.row, network.dim, network.loss, network.n, len(examples.rows)

    def recipe(self, network: Imprinted) -> Recipe:
        """Return the training recipe of a network.

        Raises:
            ValueError: fewer examples of base classes than a batch or its groups need.
        """
        config, split = self.config, self.split(network.seed)
        base = int((split.train < split.base).sum())
        if base < config.batch:
            raise ValueError(
                f"expected at least a batch of {config.batch} examples of base "
                f"classes, got {base}"
            )
        sampler = Sampler("class" if network.n else "epoch")
        if network.loss in PAIRS:
            sampler = Sampler("groups", config.group)
            examples = train_set(split, network)
            check_episode(
                class_table(examples.labels, num_classes=len(examples.names)),
                examples.names,
                way=config.batch // config.group,
                shot=config.group - 1,
                n_query=1,
                where=f"the base classes, for batches of {network.loss}",
            )
        epochs = config.epochs
        if network.source is not None:
            epochs = config.finetune_epochs
        elif network.row != "base":
            epochs += config.finetune_epochs
        optim = config.finetune if network.source else config.optim
        rates = () if network.source else config.net.rates(self.backbone.layers[:-1])
        return Recipe(
            optim,
            loss=network.loss if network.loss != "linear" else "softmax",  # type: ignore[arg-type]
            sampler=sampler,
            epochs=epochs,
            steps=config.transfer_steps if network.novel_only else None,
            per_epoch=base // config.batch,
            batch=config.batch,
            accumulate=config.accumulate,
            augment=config.augment,
            decay=_DECAY,
            rates=rates,
            margin=config.margin,
            batch_norm=config.net.batch_norm or "batch",
        )

    def train(self, group: Sequence[Imprinted], folder: Path) -> list[study.Record]:
        """Train or measure networks that share a program; return one record each."""
        if group[0].row == MEASURE:
            return [self._measured(network, folder) for network in group]
        recipe, config = self.recipe(group[0]), self.config
        examples = [train_set(self.split(n.seed), n) for n in group]
        sources = [self.base(n.source) if n.source else None for n in group]
        fresh = config.net.start(self.image_shape, dim=group[0].dim)
        begun = [*map(self._head, group, examples, sources)]
        every = 0
        if group[0].n:
            # Training on novel classes alone counts steps and not epochs.
            steps, per_epoch = models.steps_of(recipe, 1)
            every = max(1, steps // 10) if group[0].novel_only else per_epoch
        trained = models.train_population(
            self.net(group[0].dim),
            self.images,
            [*map(self._examples, group, examples)],
            recipe,
            heads=begun,
            starts=[source or fresh for source in sources],
            mesh=shared_mesh(config, self.mesh, len(group)),
            workdir=folder,
            evaluate=(lambda i, model: self._tested(group[i], model)[0])
            if every
            else None,
            eval_every=every,
            options=config.run.for_member(),
        )
        return [*map(self._record, group, trained)]

    def _examples(self, network: Imprinted, examples: TrainSet) -> Examples:
        return Examples(
            examples.rows,
            examples.labels,
            self.pixels(network.seed),
            key_of(network.name),
            examples.names,
            examples.counts,
        )

    def _head(
        self, network: Imprinted, examples: TrainSet, source: Model | None
    ) -> Head | None:
        """Return the initial classifier of a network; None for a loss without one."""
        config, split = self.config, self.split(network.seed)
        if network.loss in PAIRS:
            return None
        key = jax.random.fold_in(key_of(network.name), HEAD)
        classes = len(examples.names)
        make = partial(heads.cosine_head, scale=config.scale)
        if network.loss == "linear":
            make = heads.linear_head
        # A head that is joined with another one is made as a whole.
        mesh = shared_mesh(config, self.mesh, 1) if source is None else None
        head = sharding.init_rows(
            partial(make, key, network.dim, classes), classes, mesh
        )
        if network.loss == "linear":
            return head
        if config.scale_per_class:
            scales = jnp.full((classes,), config.scale, jnp.float32)
            head = dataclasses.replace(head, scale=scales)
        if source is None:
            return head
        assert source.head is not None  # noqa: S101
        alone = network.novel_only
        rows = head.weight[-len(split.few) :]
        head = with_novel(source.head, rows, alone=alone)
        if "imprinting" not in network.row:
            return head
        z = self._embed(source, split.few.reshape(-1))
        return imprinted(head, z, split.owners(network.n, 0 if alone else split.base))

    def _record(self, network: Imprinted, trained: models.Trained) -> study.Record:
        model, training = keep(self.workdir, network.name, trained)
        scores: dict[str, float] = {}
        row = network.row
        # Base networks of other losses are measured only by their embeddings.
        if row != "base" or network.loss == "softmax":
            scores, _ = self._tested(network, model)
            row = "base_classifier" if row == "base" else row
        parts = [part for part in ("base", "novel", "all") if part in scores]
        shown = ", ".join(f"{part} {scores[part]:.2f}%" for part in parts)
        return {
            "rows": {row: scores} if scores else {},
            "headline": f"accuracy {shown}" if shown else "trained",
            "epochs": [dict(line) for line in trained.history],
            **training,
        }

    def _tested(
        self, network: Imprinted, model: Model
    ) -> tuple[dict[str, float], list[float]]:
        """Return scores and recalls of a trained head on test images of its classes."""
        split = self.split(network.seed)
        labels, base = split.test, split.base
        rows = np.arange(len(labels), dtype=np.int32)
        if network.novel_only:
            rows = np.flatnonzero(labels >= base)
        elif not network.n:
            rows = np.flatnonzero(labels < base)
        assert model.head is not None  # noqa: S101
        z = models.embed(model, self.test_images.items, rows=rows)
        predicted = models.predict_labels(model.head, z)
        predicted = np.where(predicted < 0, -1, predicted + base * network.novel_only)
        return score(predicted, labels[rows], base, len(split.names))

    def _base(self, network: Imprinted) -> Model:
        folder = study.member_folder(self.workdir, network.name)
        return models.load_model(folder, self.net(network.dim))

    def _embedded(self, base: Imprinted) -> Embedded:
        """Return a base network's embeddings of test images and novel examples."""
        model, split = self.base(base), self.split(base.seed)
        few = split.few.reshape(-1)
        size, copies = (*split.few.shape, -1), None
        if base.loss == "softmax":
            key = jax.random.fold_in(key_of(base.name), COPIES)
            copies = jnp.stack(
                [
                    self._embed(model, few, jax.random.fold_in(key, i)).reshape(size)
                    for i in range(self.config.copies)
                ],
                axis=2,
            )
        return Embedded(
            models.embed(model, self.test_images.items),
            self._embed(model, few).reshape(size),
            copies,
        )

    def _embed(self, model: Model, rows: np.ndarray, key: Any = None) -> Array:
        """Return embeddings of training images, augmented at random if a key is given.

        Training images are on all devices of the study and test images on one device.
        The result is committed to no device, so that it can be combined with both.
        """
        if key is None:
            z = models.embed(model, self.images.items, rows=rows)
        else:
            crop = self.config.augment
            z = embed_moved(model, self.images.items, rows, crop, key)
        return jnp.asarray(jax.device_get(z))

    def _measured(self, network: Imprinted, folder: Path) -> study.Record:
        """Measure a base network on novel classes without training; save a gallery."""
        config, base = self.config, network.source
        assert base is not None  # noqa: S101
        split = self.split(network.seed)
        known = self.base(base).head if network.loss == "softmax" else None
        record, predicted = measure(network, split, known, self.embedded(base))
        train, test = self.train_set, self.test_set
        # The features of a bank are no pictures.
        pictures = train.images.dtype == np.uint8
        if predicted is not None and network.n == min(config.shots) and pictures:
            shown = gallery_images(split, network.seed, predicted, train, test)
            np.savez(folder / GALLERY, **shown)  # type: ignore[arg-type]
        return record


def embed_moved(
    model: Model, items: Any, rows: np.ndarray, crop: Crop, key: Array
) -> Array:
    """Return embeddings of randomly augmented images, each with a key by its row."""
    run = _moved(model.net, crop)
    params, state, pixels = model.params, model.state, model.pixels
    blocks = in_blocks(
        lambda x, at: run(params, state, pixels, x, jnp.asarray(at), key), items, rows
    )
    return jnp.concatenate([*blocks])


@memoised(16)
def _moved(net: Net, crop: Crop) -> Callable[..., Array]:
    def run(
        params: Params, state: State, pixels: Pixels, x: Array, at: Array, key: Array
    ) -> Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(at)
        moved = random_crop(keys, models.prepare(pixels, x), crop)
        return net.apply(params, state, moved, mode=EVAL)[0]

    return jit(run)
