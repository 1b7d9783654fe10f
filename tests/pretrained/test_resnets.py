"""ResNet and ResNet12 against the same networks in PyTorch."""

import pytest

from jaxfer.nets import ResNet, ResNet12

pytestmark = pytest.mark.once

torch = pytest.importorskip("torch")
nn = torch.nn


class _Residual(nn.Module):
    """Convolutions (width, side, stride) with BatchNorm beside a shortcut."""

    def __init__(self, inputs, units, activate, shortcut):
        super().__init__()
        self.activate, self.count, stride, before = activate, len(units), 1, inputs
        for i, (width, side, step) in enumerate(units, 1):
            conv = nn.Conv2d(before, width, side, step, side // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(width))
            stride, before = stride * step, width
        self.downsample = nn.Identity()
        if shortcut:
            conv = nn.Conv2d(inputs, before, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(before))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = self.activate(y) if i < self.count else y
        return self.activate(y + self.downsample(x))


def _resnet(blocks, *, bottleneck):
    relu, channels = nn.ReLU(), 64
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, 64, 7, 2, 3, bias=False))
    net.add_module("bn1", nn.BatchNorm2d(64))
    net.add_module("relu", relu)
    net.add_module("maxpool", nn.MaxPool2d(3, 2, 1))
    for stage, count in enumerate(blocks):
        width, layer = 64 * 2**stage, nn.Sequential()
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            units = [(width, 3, stride), (width, 3, 1)]
            if bottleneck:
                units = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            shortcut = i == 0 and (bottleneck or stage > 0)
            layer.append(_Residual(channels, units, relu, shortcut))
            channels = units[-1][0]
        net.add_module(f"layer{stage + 1}", layer)
    net.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    return net


def _resnet12(*widths):
    net, before = nn.Sequential(), 3
    for i, width in enumerate(widths, 1):
        block = _Residual(before, [(width, 3, 1)] * 3, nn.LeakyReLU(0.1), True)
        net.add_module(f"layer{i}", nn.Sequential(block))
        net.add_module(f"pool{i}", nn.MaxPool2d(2))
        before = width
    net.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    return net


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (18, (2, 2, 2, 2)),
        pytest.param(34, (3, 4, 6, 3), marks=pytest.mark.slow),
        pytest.param(50, (3, 4, 6, 3), marks=pytest.mark.slow),
    ],
)
def test_resnet_is_that_of_torchvision(depth, blocks, agreement):
    module = _resnet(blocks, bottleneck=depth == 50)
    agreement(ResNet(depth), module, "torchvision", (64, 97))


def test_resnet12_is_that_of_rfs(agreement):
    agreement(ResNet12(), _resnet12(64, 160, 320, 640), "rfs", (32, 45))
