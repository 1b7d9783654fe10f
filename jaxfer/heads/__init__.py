"""Heads: prototypes, imprinted weights, proxies, matching, nearest neighbour, linear.

All of them are rows of templates in the space of embeddings, so they share one `Head`
and one `head_logits`. Functions take one episode (or one batch of one classifier); use
`jax.vmap` for many.
"""

from jaxfer.heads.bregman import (
    bregman_divergence,
    mixture_log_density,
    with_priors,
)
from jaxfer.heads.convert import as_cosine, as_linear, as_prototypes
from jaxfer.heads.discriminant import lda_head, ridge_head
from jaxfer.heads.imprinting import imprint, imprint_head, proxy_head
from jaxfer.heads.logits import head_logits
from jaxfer.heads.named import (
    NamedHead,
    add_classes,
    extend_classes,
    name_classes,
    new_named_head,
    remove_classes,
    with_trained_head,
)
from jaxfer.heads.predictions import Predictions, class_logits, predict_classes
from jaxfer.heads.rows import append_rows
from jaxfer.heads.sums import (
    check_embeddings,
    class_means,
    class_sums,
    sums_means,
    support_sums,
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
    "Distance",
    "NamedHead",
    "Predictions",
    "add_classes",
    "append_rows",
    "as_cosine",
    "as_linear",
    "as_prototypes",
    "bregman_divergence",
    "check_embeddings",
    "class_logits",
    "class_means",
    "class_sums",
    "cosine_distance",
    "cosine_head",
    "extend_classes",
    "head_logits",
    "imprint",
    "imprint_head",
    "lda_head",
    "linear_head",
    "matching_head",
    "mixture_log_density",
    "name_classes",
    "nearest_head",
    "new_named_head",
    "normalize",
    "predict_classes",
    "prototype_head",
    "proxy_head",
    "remove_classes",
    "ridge_head",
    "squared_euclidean",
    "sums_means",
    "support_sums",
    "with_priors",
    "with_trained_head",
]
