"""How to train: a recipe, its stages, and the examples of one model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import optax
from jaxtyping import Int, Integer

from jaxfer.data import Crop
from jaxfer.data.augment import Change
from jaxfer.data.sampling import Sampler
from jaxfer.models.model import Pixels
from jaxfer.optim import Optim
from jaxfer.transfer import freeze_modes
from jaxfer.trees import Rules
from jaxfer.types import AnyArray, Mode, Net

Loss = Literal["softmax", "proxy_nca", "nca", "lifted"]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, on labelled images or on episodes.

    Attributes:
        optim: an optimizer with its schedule by name, or any optax transformation with
            its own schedule.
        loss: 'softmax' is the cross-entropy of the head; 'proxy_nca' compares with the
            head's rows (Qi et al. 2018, Eq. 2); 'nca' (Eq. 1) and 'lifted' compare the
            examples of a batch and take no head. Episodes have their own loss.
        sampler: how batches of labelled images are sampled.
        epochs: passes over the examples; for episodes see `episodes`.
        steps: number of steps, in place of `epochs`.
        per_epoch: steps that count as an epoch; default: examples // batch.
        episodes: number of training episodes.
        batch: examples per step (default: 128), or episodes per step (default: 1).
        accumulate: micro-batches per step: each holds `batch / accumulate` examples and
            their gradients are averaged, which needs less memory.
        augment: random changes of training images, one or several in order.
        decay: rules that say which parameters have weight decay; default: kernels and
            the rows of heads.
        rates: rules with multipliers of the learning rate; default: 1 for all.
        margin: the margin of the lifted structured loss.
        frozen_dropout: whether dropout stays on in frozen layers, as in Yosinski et al.
            2014.
        batch_norm: the statistics that BatchNorm uses in layers that train: those of
            the batch, or the stored 'running' ones, which then do not change, as is
            usual for pretrained weights and small batches.
    """

    optim: Optim | optax.GradientTransformation = field(default_factory=Optim)
    loss: Loss = "softmax"
    sampler: Sampler = Sampler()
    epochs: int = 10
    steps: int | None = None
    per_epoch: int | None = None
    episodes: int = 2000
    batch: int | None = None
    accumulate: int = 1
    augment: Change | tuple[Change, ...] = Crop()
    decay: Rules | None = None
    rates: Rules = ()
    margin: float = 1.0
    frozen_dropout: bool = True
    batch_norm: Literal["batch", "running"] = "batch"

    def modes(self, net: Net, frozen: Sequence[str]) -> dict[str, Mode]:
        """The mode of each layer in training, see `jaxfer.freeze_modes`."""
        dropout = self.frozen_dropout
        return freeze_modes(net, frozen, dropout=dropout, batch_norm=self.batch_norm)

    @property
    def changes(self) -> tuple[Change, ...]:
        """The augmentations that change images, in order."""
        every = self.augment if isinstance(self.augment, tuple) else (self.augment,)
        return tuple(change for change in every if change)

    def with_window(self, pixels: Pixels) -> Pixels:
        """The preprocessing of the trained model: it takes the centre window."""
        sides = [x.side for x in self.changes if isinstance(x, Crop) and x.side]
        return dataclasses.replace(pixels, window=sides[-1]) if sides else pixels

    def input_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the network's input for images of a given shape.

        Args:
            image_shape: `[height, width, channels]`, or the shape of other features.

        Raises:
            ValueError: a window that is larger than the images.
        """
        if len(image_shape) != 3:
            return image_shape
        height, width, channels = image_shape
        for change in self.changes:
            if isinstance(change, Crop):
                height, width = change.window(height, width)
        return height, width, channels


class Examples(NamedTuple):
    """The examples of one model, among images that several models may share.

    Attributes:
        rows: `[n]`, positions among the shared images.
        labels: `[n]`, classes from 0.
        pixels: the preprocessing of the model.
        key: the random key of the whole training.
        class_names: one name per class, for the trained model.
        counts: `[classes]`, the number of examples of each class to use, from the first
            on; None for all. Models with different counts share a compiled program.
    """

    rows: Integer[AnyArray, " n"]
    labels: Integer[AnyArray, " n"]
    pixels: Pixels
    key: Any
    class_names: tuple[str, ...] = ()
    counts: Int[np.ndarray, " classes"] | None = None


def steps_of(recipe: Recipe, n: int) -> tuple[int, int]:
    """Steps of a whole training on labelled images, and steps per epoch.

    Args:
        recipe: how to train.
        n: the number of examples.

    Raises:
        ValueError: fewer examples than a batch.

    Example:
        >>> steps_of(Recipe(epochs=3, batch=10), 25)
        (6, 2)
    """
    batch = recipe.batch or 128
    per_epoch = recipe.per_epoch or n // batch
    if not per_epoch:
        raise ValueError(f"expected at least one batch of {batch} examples, got {n}")
    return recipe.steps or recipe.epochs * per_epoch, per_epoch
