from .alexnet import AlexNetSmall
from .chain import chain
from .conv4 import Conv4
from .flatten import Flatten
from .inception import InceptionV1
from .resnet import ResNet20
from .specs import NAMES, AnyNet, Spec, as_net, by_name, num_params, spec_of

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
    "num_params",
    "spec_of",
]
