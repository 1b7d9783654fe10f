from .context import matching_fce
from .densities import bregman, diagonal, gaussians
from .linear import anil, fine_tuning, logistic, maml, ridge
from .method import (
    Adaptation,
    Divisor,
    Method,
    Temperature,
    divisor_of,
    flat_support,
    with_support_encoder,
)
from .templates import matching, nearest, prototypes
from .zero_shot import zero_shot

__all__ = [
    "Adaptation",
    "Divisor",
    "Method",
    "Temperature",
    "anil",
    "bregman",
    "diagonal",
    "divisor_of",
    "fine_tuning",
    "flat_support",
    "gaussians",
    "logistic",
    "maml",
    "matching",
    "matching_fce",
    "nearest",
    "prototypes",
    "ridge",
    "with_support_encoder",
    "zero_shot",
]
