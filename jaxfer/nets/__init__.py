"""Networks, each a frozen dataclass with `build() -> Net`; only this package uses flax.

A network has no classifier: it maps images to embeddings, and a head classifies them.
"""

from jaxfer.nets.alexnet import AlexNetSmall
from jaxfer.nets.chain import chain
from jaxfer.nets.conv4 import Conv4
from jaxfer.nets.flatten import Flatten
from jaxfer.nets.inception import InceptionV1
from jaxfer.nets.resnet import ResNet20
from jaxfer.nets.specs import NAMES, AnyNet, Spec, as_net, by_name, spec_of

__all__ = [
    "NAMES",
    "AlexNetSmall",
    "AnyNet",
    "Conv4",
    "Flatten",
    "InceptionV1",
    "ResNet20",
    "Spec",
    "as_net",
    "by_name",
    "chain",
    "spec_of",
]
