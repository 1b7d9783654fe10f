from .context import matching_fce
from .densities import bregman, diagonal, gaussians
from .linear import anil, logistic, ridge
from .method import Divisor, Method, Temperature, divisor_of, flat_support
from .templates import matching, nearest, prototypes
from .zero_shot import zero_shot

__all__ = [
    "Divisor",
    "Method",
    "Temperature",
    "anil",
    "bregman",
    "diagonal",
    "divisor_of",
    "flat_support",
    "gaussians",
    "logistic",
    "matching",
    "matching_fce",
    "nearest",
    "prototypes",
    "ridge",
    "zero_shot",
]
