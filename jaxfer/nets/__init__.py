"""Networks, each a function that gives a Net: the only home of flax."""

from jaxfer.nets.chain import chain
from jaxfer.nets.conv4 import conv4

__all__ = ["chain", "conv4"]
