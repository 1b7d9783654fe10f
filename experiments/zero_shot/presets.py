"""Presets of zero-shot studies with images."""

from typing import Any

from experiments.zero_shot.config import Attributes, Config, Data, Stopping
from jaxfer.optim import Optim


def with_images(data: str, attributes: Any) -> Config:
    """Return the protocol of Snell et al. 2017 for images that a network embeds.

    Episodes have 50 classes and 10 queries per class. The maps end in 256 dimensions
    and not in 1,024, and the learning rate is ten times that of the paper, at which
    training takes thousands of episodes.

    Args:
        data: name of the data set.
        attributes: source of the attributes.
    """
    return Config(
        data=Data(data),
        attributes=Attributes(attributes),
        dim=256,
        optim=Optim("adam", 1e-3, weight_decay=1e-5),
        val=Stopping(every=50),
    )
