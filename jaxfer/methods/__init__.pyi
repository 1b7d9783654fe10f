from .densities import bregman, diagonal, gaussians
from .linear import logistic, ridge
from .method import Method, Temperature, divisor_of, flat_support, temperature_params
from .templates import matching, nearest, prototypes

__all__ = [
    "Method",
    "Temperature",
    "bregman",
    "diagonal",
    "divisor_of",
    "flat_support",
    "gaussians",
    "logistic",
    "matching",
    "nearest",
    "prototypes",
    "ridge",
    "temperature_params",
]
