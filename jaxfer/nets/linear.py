"""Logistic regression on pixels, as a network of no layer."""

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Classifier
from jaxfer.types import Net


def linear(num_classes: int) -> Net:
    """A classifier on pixels: what a network has to be better than.

    Args:
        num_classes: outputs.

    Returns:
        The net, whose `layers` are none.

    Example:
        >>> linear(10).layers
        ()
    """
    return chain([("fc", Classifier(num_classes))], classifier=True)
