"""Models to start from: freshly initialised, or with layers of another model."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from jaxfer.keys import INIT
from jaxfer.models.model import Model, Pixels, init_params
from jaxfer.nets import AnyNet, as_net
from jaxfer.transfer import Treatment, copied_layers
from jaxfer.trees import Graft, graft
from jaxfer.types import Head


def init_model(
    net: AnyNet,
    image_shape: tuple[int, ...],
    key: PRNGKeyArray,
    *,
    head: Head | None = None,
    pixels: Pixels | None = None,
    class_names: tuple[str, ...] = (),
) -> Model:
    """A model with freshly initialised parameters.

    Training from fresh parameters with the same key starts from the same parameters.

    Args:
        net: the backbone.
        image_shape: `[height, width, channels]`.
        key: the random key of the parameters.
        head: a classifier on its embeddings.
        pixels: preprocessing; default: pixels from 0 to 1.
        class_names: one name per class of the head.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> init_model(Conv4(width=8), (28, 28, 1), jax.random.key(0)).net.layers
        ('conv1', 'conv2', 'conv3', 'conv4')
    """
    built = as_net(net, image_shape)
    params, state = init_params(built, tuple(image_shape))(
        jax.random.fold_in(key, INIT)
    )
    about = {"image_shape": [*image_shape]}
    return Model(built, params, state, head, pixels or Pixels(), class_names, about)


def init_transfer(
    treatment: Treatment, fresh: Model, source: Model | None = None
) -> tuple[Model, Graft]:
    """The model a treatment starts from (Yosinski et al. 2014, section 2).

    Args:
        treatment: the treatment.
        fresh: a model initialised for this treatment and this n only (footnote 4 of the
            paper); its head and the layers that are not copied are kept.
        source: the base model that is copied from. The new model gets its
            preprocessing and, for 'base+', its head.

    Returns:
        The model, and the report of what was copied and what was kept.

    Raises:
        ValueError: no source where one is required, more layers than the net has, or a
            source whose layers do not match; the message lists all mismatches.

    Example:
        >>> from jaxfer.nets import AlexNetSmall
        >>> net = AlexNetSmall(width=2, dense=3)
        >>> one, other = (
        ...     init_model(net, (8, 8, 1), jax.random.key(i)) for i in (0, 1)
        ... )
        >>> _, report = init_transfer(Treatment("AnB", 1), one, other)
        >>> sorted(report.taken)
        ['conv1/Conv_0/bias', 'conv1/Conv_0/kernel']
    """
    copied = copied_layers(fresh.net, treatment)
    if copied and source is None:
        raise ValueError(f"expected a source for {treatment.name}, which copies layers")
    if source is None:
        return fresh, graft(fresh.params, fresh.params, ())[1]
    params, report = graft(fresh.params, source.params, copied)
    state, _ = graft(fresh.state, source.state, copied)
    params, state = jax.tree.map(jnp.asarray, (params, state))
    head = source.head if treatment.kind == "base+" else fresh.head
    moved = dataclasses.replace(
        fresh, params=params, state=state, head=head, pixels=source.pixels
    )
    return moved, report
