"""EfficientNet-Lite and MobileNetV2 against the same networks in PyTorch."""

import pytest

from jaxfer.nets import EfficientNetLite, MobileNetV2

pytestmark = pytest.mark.once

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_efficientnet_lite_is_that_of_the_package(variant, agreement):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    side = (224, 240, 260)[variant]
    for size in (side, 97):
        module = package.EfficientNet.from_name(
            f"efficientnet-lite{variant}", image_size=size, drop_connect_rate=0
        )
        module._fc = torch.nn.Identity()
        spec = EfficientNetLite(variant)
        agreement(spec, module, "efficientnet_lite_pytorch", (size,))


def unit(width, out, side=1, stride=1, groups=1):
    """Convolution, BatchNorm and ReLU6, as torchvision names them: 0, 1 and 2."""
    conv = torch.nn.Conv2d(
        width, out, side, stride, side // 2, groups=groups, bias=False
    )
    return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(out), torch.nn.ReLU6())


class Block(torch.nn.Module):
    def __init__(self, width, out, stride, expand):
        super().__init__()
        inner = width * expand
        first = [unit(width, inner)] if expand > 1 else []
        self.conv = torch.nn.Sequential(
            *first,
            unit(inner, inner, 3, stride, groups=inner),
            torch.nn.Conv2d(inner, out, 1, bias=False),
            torch.nn.BatchNorm2d(out),
        )
        self.shortcut = stride == 1 and width == out

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class Mobile(torch.nn.Module):
    """Sandler et al. 2018, Table 2, by torchvision's names."""

    def __init__(self):
        super().__init__()
        layers, width = [unit(3, 32, 3, 2)], 32
        for expand, out, repeats, stride in (
            *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
            *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
        ):
            for i in range(repeats):
                layers.append(Block(width, out, 1 if i else stride, expand))
                width = out
        self.features = torch.nn.Sequential(*layers, unit(320, 1280))

    def forward(self, x):
        return self.features(x).mean((2, 3))


def test_mobilenet_v2_is_that_of_torchvision(agreement):
    print(agreement(MobileNetV2(), Mobile(), "torchvision", (96, 65)))
