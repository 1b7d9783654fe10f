"""Heads: prototypes, imprinted weights, proxies, matching, nearest neighbour, linear.

All are rows of templates on an embedding, so one `Head` and one `head_logits` serve
them all. Functions take one episode (or one batch of one classifier); `jax.vmap` gives
many.
"""

from jaxfer.heads.classes import (
    Classes,
    add_classes,
    classes_of,
    extend_classes,
    new_classes,
    predicted_names,
    remove_classes,
    trained_classes,
)
from jaxfer.heads.convert import as_cosine, as_linear, as_prototypes
from jaxfer.heads.imprinting import imprint, imprint_head, proxy_head
from jaxfer.heads.logits import head_logits
from jaxfer.heads.memory import (
    check_embeddings,
    class_means,
    memory_means,
    remember,
    support_memory,
)
from jaxfer.heads.templates import (
    Distance,
    cosine_head,
    linear_head,
    matching_head,
    nearest_head,
    prototype_head,
)
from jaxfer.heads.vectors import cosine_distance, normalize, squared_euclidean

__all__ = [
    "Classes",
    "Distance",
    "add_classes",
    "as_cosine",
    "as_linear",
    "as_prototypes",
    "check_embeddings",
    "class_means",
    "classes_of",
    "cosine_distance",
    "cosine_head",
    "extend_classes",
    "head_logits",
    "imprint",
    "imprint_head",
    "linear_head",
    "matching_head",
    "memory_means",
    "nearest_head",
    "new_classes",
    "normalize",
    "predicted_names",
    "prototype_head",
    "proxy_head",
    "remember",
    "remove_classes",
    "squared_euclidean",
    "support_memory",
    "trained_classes",
]
