"""Models with new classes, from a support set or in addition to their classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxfer.data import Images
from jaxfer.heads import (
    Distance,
    add_classes,
    class_sums,
    name_classes,
    prototype_head,
)
from jaxfer.methods import Temperature, divisor_of
from jaxfer.models.inference import embed
from jaxfer.models.model import AnyImages, Model, support_encoder


def with_prototypes(
    model: Model,
    support: Images,
    *,
    distance: Distance | None = None,
    temperature: Temperature | None = None,
) -> Model:
    """A model that classifies by the prototypes of labelled images.

    `c_k = mean of f(x) over class k`, `p(k | x) = softmax_k(-d(f(x), c_k) / T)` (Snell
    et al. 2017, Eqs. 1 and 2, where T is 1).

    Args:
        model: the model that embeds; its head, if any, is replaced.
        support: labelled images, one or more per class.
        distance: 'sqeuclidean' or 'cosine'; default: the one that the model was trained
            with, else 'sqeuclidean'.
        temperature: T, a number above 0 or 'sqrt_dim' (see `prototypes`); default: the
            one that the model learned or was trained with, else 1.

    Raises:
        ValueError: a class without images, or images that the model does not accept.

    Example:
        >>> import jax, numpy as np
        >>> from jaxfer import init_model
        >>> from jaxfer.data import from_arrays
        >>> support = from_arrays(np.eye(2)[:, None, :], np.array([0, 1]))
        >>> from jaxfer.nets import Flatten
        >>> model = init_model(Flatten(), (1, 2, 1), jax.random.key(0))
        >>> from jaxfer import predict
        >>> predict(with_prototypes(model, support), support).names
        ['0', '1']
    """
    z = embed(support_encoder(model), support)
    labels = jnp.asarray(support.labels)
    sums = class_sums(z.reshape(len(z), -1), labels, num_classes=support.num_classes)
    if empty := [
        name
        for name, count in zip(support.class_names, sums.count.tolist(), strict=True)
        if not count
    ]:
        raise ValueError(f"expected at least one image per class, got none for {empty}")
    trained = model.about.get("method", {})
    chosen: Any = distance or trained.get("distance", "sqeuclidean")
    divisor: Any = temperature
    learned, dim = None, sums.total.shape[1]
    if temperature is None:
        learned = model.params.get("method")
        divisor = trained.get("temperature", 1.0)
    divisor = divisor_of(divisor, dim, learned)
    head = prototype_head(sums, distance=chosen, temperature=divisor)
    return dataclasses.replace(model, head=head, class_names=support.class_names)


def with_classes(model: Model, examples: Mapping[str, AnyImages]) -> Model:
    """A model with additional classes, each from a few images.

    The new rows of its head are imprinted: for a cosine head the unit mean of the unit
    embeddings (Qi et al. 2018, section 3.2). The other rows stay bit-identical.

    Args:
        model: a model with a head and class names.
        examples: images of each new class, by class name.

    Raises:
        ValueError: a model without a head, the name of an existing class, or a class
            without images.

    Example:
        >>> import jax, numpy as np
        >>> from jaxfer import cosine_head
        >>> from jaxfer.nets import Flatten
        >>> head = cosine_head(jax.random.key(0), 16, 2)
        >>> model = Model(Flatten().build(), {}, {}, head, class_names=("a", "b"))
        >>> grey = np.full((3, 4, 4, 1), 90, np.uint8)
        >>> with_classes(model, {"grey": grey}).class_names
        ('a', 'b', 'grey')
    """
    if model.head is None:
        raise ValueError("expected a model with a head: `with_prototypes` makes one")
    names = model.class_names or tuple(map(str, range(model.head.num_classes)))
    room = len(names) + len(examples)
    named = add_classes(
        name_classes(model.head, names, capacity=room),
        {name: embed(model, images) for name, images in examples.items()},
    )
    return dataclasses.replace(model, head=named.head, class_names=named.classes)
