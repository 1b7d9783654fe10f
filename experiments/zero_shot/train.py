"""Training and test of the two maps of a zero-shot study."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.inputs import moments
from experiments.studies import keep
from experiments.zero_shot.config import Config
from experiments.zero_shot.features import PARTS, embed_parts, simulated_parts
from experiments.zero_shot.members import Mapped, mapped
from jaxfer import methods, models, nets, sharding, stats, study
from jaxfer.config import what_of
from jaxfer.data import Images, load_attributes, scaled_attributes
from jaxfer.data.resident import table_of
from jaxfer.episodes import check_episode
from jaxfer.methods import Method
from jaxfer.models import EpisodeShape, Model, Pixels, Recipe
from jaxfer.stopping import Best
from jaxfer.types import Episode

# The classifier of features that attributes are compared with.
FEW = "prototypes"


class Trainer:
    """Keeps the features and attributes of a study, and trains its maps on them."""

    device_each = True

    def __init__(self, config: Config, workdir: Path, *parts: Images) -> None:
        """Check classes and attributes, then embed the images.

        Raises:
            ValueError: classes without attributes, or too few for the episodes.
        """
        self.config, self.workdir = config, workdir
        self.items = cache(mapped)
        self.devices = [*config.mesh.make().devices.flat]
        self.busy, self.lock = Counter[Any](), threading.Lock()
        self.loaded: dict[str, Images] = dict(zip(PARTS, parts, strict=True))
        names = [*self.loaded["trainval"].class_names, *self.loaded["test"].class_names]
        how = config.attributes
        known = load_attributes(how.source, how.path, names)
        known = scaled_attributes(known, how.scale, self.loaded["train"].class_names)
        self.attributes = {
            name: known.of(part.class_names) for name, part in self.loaded.items()
        }
        self.shapes = {
            "train": EpisodeShape(config.way, 0, config.query),
            "trainval": EpisodeShape(config.way, 0, config.query),
            "val": EpisodeShape(self.loaded["val"].num_classes, 0, config.query),
        }
        few = [self._few_shape(shot) for shot in config.shots]
        for name, shape in [*self.shapes.items(), *(("test", one) for one in few)]:
            part = self.loaded[name]
            sizes, table = shape.sizes(), table_of(part)
            check_episode(table, part.class_names, where=part.name, **sizes)
        self.image_shape = tuple(self.loaded["train"].images.shape[1:])
        self.backbone = nets.as_net(config.net.build(self.image_shape))
        if not config.simulated.noise:
            self.loaded = embed_parts(self.loaded, config.net, config.run)
        self.features = cache(self._features)
        self.pixels = cache(self._pixels)
        self.method = cache(self._method)
        self.map = nets.Flatten(config.dim).build()

    def member(self, item: Mapped) -> study.Member:
        """Return the maps of a seed as a member of the study's queue."""
        parts = self.features(item.noise)
        spec = {
            **what_of(self.config),
            "data": [parts[name].fingerprint for name in ("trainval", "test")],
            "attributes": _hash(self.attributes),
            "seed": item.seed,
            "noise": item.noise,
        }
        return study.Member(item.name, spec, (), float(self.config.episodes))

    def program(self, item: Mapped) -> Any:
        """Return a key; every member has its own program."""
        return item.name

    def train(self, items: Sequence[Mapped], folder: Path) -> list[study.Record]:
        """Train and test the maps of a seed, and return their record."""
        with self._device() as device, jax.default_device(device):
            mesh = sharding.make_mesh(1, devices=[device])
            return [self._train(item, folder, mesh) for item in items]

    @contextmanager
    def _device(self) -> Iterator[Any]:
        """Yield the device on which the fewest members train."""
        with self.lock:
            device = min(self.devices, key=self.busy.__getitem__)
            self.busy[device] += 1
        try:
            yield device
        finally:
            with self.lock:
                self.busy[device] -= 1

    def _train(self, item: Mapped, folder: Path, mesh: Any) -> study.Record:
        config, parts = self.config, self.features(item.noise)
        best = Best(config.val.every, config.val.patience)

        def train(name: str, phase: str, **how: Any) -> models.Trained:
            return models.train_episodes(
                self.map,
                parts[name],
                self.shapes[name],
                Recipe(config.optim, episodes=config.episodes),
                seed=item.seed,
                split=name,
                method=self.method(name),
                pixels=self.pixels(item.noise),
                phase=phase,
                mesh=mesh,
                workdir=run,
                options=options,
                **how,
            )

        options = config.run.for_member()
        with models.open_run(
            folder,
            fingerprint=parts["trainval"].fingerprint,
            per_step=1,
            unit="episode",
            options=options,
        ) as run:
            validate = self._validate(item, parts["val"])
            trained = train("train", "train", evaluate=validate, select=best)
            first = trained
            if config.retrain:
                trained = train("trainval", "retrain", num_steps=first.best_step)
            trained = trained._replace(compilations=run.compilations)
        model, record = keep(self.workdir, item.name, trained)
        scores = self._scores(model, parts["test"])
        return {
            **scores,
            "few_shot": self._few_shot(item, parts["test"]),
            "headline": f"accuracy {scores['accuracy']:.2f}%",
            **record,
            "best_step": first.best_step,
        }

    def _validate(
        self, item: Mapped, images: Images
    ) -> Callable[[Model], dict[str, float]]:
        """Return a function that measures a model on episodes of validation classes."""
        val = self.config.val

        def validate(model: Model) -> dict[str, float]:
            number = model.about["steps"] // val.every - 1
            found = models.measure_episodes(
                model,
                images,
                self.shapes["val"],
                seed=item.seed,
                split="val",
                episodes=val.episodes,
                first=number * val.episodes,
                method=self.method("val"),
            )
            return {f"val/{name}": float(x.mean()) for name, x in found.items()}

        return validate

    def _scores(self, model: Model, test: Images) -> dict[str, float]:
        """Return accuracies over all test images, classified by attributes alone."""
        z = models.embed(model, test).reshape(1, len(test.labels), -1)
        episode = Episode(z[:, :0], z, np.arange(test.num_classes))
        logits = self.method("test").logits(model.params["method"], episode)
        predicted = np.asarray(logits.argmax(-1))[0]
        return stats.accuracies(predicted, test.labels, test.num_classes)

    def _few_shot(self, item: Mapped, test: Images) -> dict[str, float]:
        """Return accuracies of prototypes of the features, by shot."""
        model = Model(nets.Flatten().build(), {}, {}, pixels=self.pixels(item.noise))
        embedded = models.embed_classes(model, test)
        found = {}
        for shot in self.config.shots:
            measured = models.measure_episodes(
                model,
                embedded,
                self._few_shape(shot),
                seed=item.seed,
                split="test",
                episodes=self.config.test_episodes,
                block=10,
            )
            found[str(shot)] = 100 * float(measured["accuracy"].mean())
        return found

    def _few_shape(self, shot: int) -> EpisodeShape:
        return EpisodeShape(self.loaded["test"].num_classes, shot, self.config.query)

    def _features(self, noise: float | None) -> dict[str, Images]:
        # What was loaded has the first level.
        if noise in (None, *self.config.simulated.noise[:1]):
            return self.loaded
        return simulated_parts(self.config, noise)

    def _pixels(self, noise: float | None) -> Pixels:
        if self.config.features == "raw":
            return Pixels(std=np.float32(1))
        train = self.features(noise)["train"]
        return moments(train, np.arange(len(train.labels)))

    def _method(self, name: str) -> Method:
        config = self.config
        return methods.zero_shot(
            self.attributes[name].values,
            unit=config.unit,
            bias=config.bias,
            temperature=config.temperature,
            learn_temperature=config.learn_temperature,
        )


def _hash(attributes: dict[str, Any]) -> str:
    """Return a hash of the attributes of all parts."""
    digest = hashlib.sha256()
    for name in PARTS:
        digest.update(repr(attributes[name].class_names).encode())
        digest.update(np.ascontiguousarray(attributes[name].values))
    return digest.hexdigest()[:16]
