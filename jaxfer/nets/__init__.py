"""Networks, each a function that gives a Net: the only home of flax."""

from jaxfer.nets.chain import chain
from jaxfer.nets.conv4 import conv4
from jaxfer.nets.eight import eight_layers
from jaxfer.nets.inception import inception_v1
from jaxfer.nets.linear import linear
from jaxfer.nets.resnet import resnet20

__all__ = ["chain", "conv4", "eight_layers", "inception_v1", "linear", "resnet20"]
