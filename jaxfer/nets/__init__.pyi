from .alexnet import AlexNetSmall
from .chain import chain
from .conv4 import Conv4
from .efficientnet import EfficientNetLite
from .flatten import Flatten
from .inception import InceptionV1
from .inception_resnet import InceptionResNetV2
from .mobilenet import MobileNetV2
from .names import Names
from .resnet import ResNet
from .resnet12 import ResNet12
from .resnet20 import ResNet20
from .specs import NAMES, AnyNet, Spec, as_net, by_name, num_params, spec_of
from .vit import ViT

__all__ = [
    "NAMES",
    "AlexNetSmall",
    "AnyNet",
    "Conv4",
    "EfficientNetLite",
    "Flatten",
    "InceptionResNetV2",
    "InceptionV1",
    "MobileNetV2",
    "Names",
    "ResNet",
    "ResNet12",
    "ResNet20",
    "Spec",
    "ViT",
    "as_net",
    "by_name",
    "chain",
    "num_params",
    "spec_of",
]
