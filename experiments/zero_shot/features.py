"""Features of images: of a bank, of a frozen network, or simulated from attributes."""

import dataclasses

import numpy as np

from experiments.inputs import Network, load_images
from experiments.zero_shot.config import Config, Simulated
from jaxfer import models
from jaxfer.data import (
    ClassAttributes,
    Images,
    load_attributes,
    random_class_split,
    read_images,
    scaled_attributes,
)
from jaxfer.models import Options

# The last training uses train and val together.
PARTS = ("train", "val", "trainval", "test")


def load_classes(config: Config) -> list[Images]:
    """Return the parts of the data set, not yet embedded; see `PARTS`.

    Simulated parts have the first noise level.

    Raises:
        ValueError: missing data, attributes or classes.
    """
    if config.simulated.noise:
        return [*simulated_parts(config, config.simulated.noise[0]).values()]
    data = config.data
    parts = load_images(data, PARTS, "class", data.rule())
    return [parts[name] for name in PARTS]


def simulated_parts(config: Config, noise: float) -> dict[str, Images]:
    """Return the parts of a data set that is simulated from attributes."""
    how = config.attributes
    every = load_attributes(how.source, how.path)
    data = simulate(every, config.simulated, noise)
    rule = config.data.rule() or random_class_split
    return {name: rule(data, name) for name in PARTS}


def simulate(attributes: ClassAttributes, how: Simulated, noise: float) -> Images:
    """Simulate features that are linear in the attributes of their class, with noise.

    `x = a_k M + class_noise e_k + noise e`, where a_k are the standardised attributes
    of class k, M is a random matrix that gives `a_k M` the standard deviation 1, and
    e_k and e are standard normal vectors of a class and of an image.

    Args:
        attributes: the attributes of all classes.
        how: the numbers of classes, images and dimensions.
        noise: the noise level of images.
    """
    names = attributes.class_names
    rng = np.random.default_rng([0, len(names), how.dim])
    known = scaled_attributes(attributes, "standard", names).values
    centres = known @ rng.standard_normal((known.shape[1], how.dim))
    if not (spread := centres.std()):
        raise ValueError(
            f"expected attributes that differ between classes to simulate features, "
            f"got {attributes}"
        )
    centres = centres / spread
    centres = centres + how.class_noise * rng.standard_normal(centres.shape)
    labels = np.repeat(np.arange(len(names), dtype=np.int32), how.per_class)
    x = rng.standard_normal((len(labels), how.dim), np.float32)
    x = noise * x + centres[labels]
    images = x[:, None, None].astype(np.float32)
    name = f"features simulated with noise {noise:g}"
    return Images(name, images, labels, names, simulated=True)


def embed_parts(
    parts: dict[str, Images], net: Network, options: Options
) -> dict[str, Images]:
    """Return the parts as features: unchanged if they are, else of a frozen network.

    Raises:
        ValueError: images without a pretrained network, or features with one.
    """
    shape = parts["train"].images.shape[1:]
    if (start := net.start(shape)) is None:
        if parts["train"].images.dtype == np.uint8:
            raise ValueError(
                "expected net.pretrained, a model that embeds the images of "
                f"{parts['train'].name}, or a bank of features, got none"
            )
        return read_images(parts)
    every = read_images(
        {name: parts[name] for name in ("trainval", "test")},
        limit=options.limit * 1e9,
        workers=options.workers,
    )
    known = {}
    for name, part in every.items():
        print(f"embedding {len(part.labels):,} images of {part.name}")
        z = models.embed_on_host(start, part, workers=options.workers)
        mark = f"{part.fingerprint} {models.model_hash(start)}"
        known[name] = dataclasses.replace(part, images=z[:, None, None], origin=mark)
    for name in ("train", "val"):
        classes = parts[name].class_names
        known[name] = known["trainval"].take_classes(classes, name=parts[name].name)
    return known
