"""InceptionV1 and InceptionResNetV2 against the same networks in PyTorch."""

import numpy as np
import pytest

from jaxfer.nets import InceptionResNetV2, InceptionV1
from jaxfer.pretrained import from_state_dict

pytestmark = pytest.mark.once

torch = pytest.importorskip("torch")
nn = torch.nn
# Several threads wait for each other on maps as small as these.
torch.set_num_threads(1)


class Unit(nn.Module):
    """A convolution, BatchNorm and ReLU; with `same`, zeros as in TensorFlow."""

    def __init__(self, wide, width, sides=(1, 1), stride=1, padding=(0, 0), same=False):
        super().__init__()
        self.conv = nn.Conv2d(wide, width, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)
        self.same = same

    def forward(self, x):
        if self.same:
            x = same_padded(x, self.conv.kernel_size[0], self.conv.stride[0], 0.0)
        return torch.relu(self.bn(self.conv(x)))


def same_padded(x, side, stride, value):
    zeros = []
    for size in (x.shape[3], x.shape[2]):
        missing = max((-(-size // stride) - 1) * stride + side - size, 0)
        zeros += [missing // 2, missing - missing // 2]
    return nn.functional.pad(x, zeros, value=value)


class SamePool(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, x):
        x = same_padded(x, self.side, 2, -torch.inf)
        return nn.functional.max_pool2d(x, self.side, 2)


class Side(nn.Module):
    """Branches side by side, under names that begin with `first`."""

    def __init__(self, first, *branches):
        super().__init__()
        self.names = [f"branch{first + i}" for i in range(len(branches))]
        for name, branch in zip(self.names, branches, strict=True):
            setattr(self, name, branch)

    def forward(self, x):
        return torch.cat([getattr(self, name)(x) for name in self.names], 1)


def same(wide, width, side):
    return Unit(wide, width, (side, side), padding=(side // 2, side // 2))


class GoogLeNet(nn.Module):
    """InceptionV1 under the names of torchvision."""

    def __init__(self, form, width=64):
        super().__init__()
        slim = form == "slim"

        def pool(side):
            return SamePool(side) if slim else nn.MaxPool2d(side, 2, ceil_mode=True)

        def block(wide, *widths):
            a, b, bb, c, cc, d = (n * width // 64 for n in widths)
            wide = wide * width // 64
            return Side(
                1,
                Unit(wide, a),
                nn.Sequential(Unit(wide, b), same(b, bb, 3)),
                nn.Sequential(Unit(wide, c), same(c, cc, 3)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), Unit(wide, d)),
            )

        padding = 0 if slim else 3
        self.conv1 = Unit(3, width, (7, 7), 2, (padding, padding), slim)
        self.maxpool1 = pool(3)
        self.conv2 = Unit(width, width)
        self.conv3 = same(width, 3 * width, 3)
        self.maxpool2 = pool(3)
        self.inception3a = block(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = block(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = pool(3)
        self.inception4a = block(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = block(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = block(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = block(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = block(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = pool(2)
        self.inception5a = block(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = block(832, 384, 192, 384, 48, 128, 128)

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return x.mean((2, 3))


FORMS = pytest.mark.parametrize("form", ["slim", "torchvision"])


@FORMS
def test_inception_v1_is_that_of_torchvision_and_of_slim(form, agreement):
    sides = {"slim": (100,), "torchvision": (66, 97)}[form]
    module = GoogLeNet(form, width=16)
    agreement(InceptionV1(width=16, form=form), module, "torchvision", sides)


def test_auxiliary_classifiers_of_torchvision_have_no_use():
    spec = InceptionV1(width=16, form="torchvision")
    found = GoogLeNet("torchvision", 16).state_dict()
    arrays = {name: x.numpy() for name, x in found.items()}
    arrays["fc.weight"], arrays["fc.bias"] = np.ones((7, 256)), np.zeros(7)
    extra = {"aux1.conv.conv.weight": np.ones((1, 1, 1, 1)), "aux2.fc2.bias": [0.0]}
    (names,) = spec.names()
    _, _, head = from_state_dict(spec.build(), arrays | extra, (32, 32, 3), names)
    assert head is not None and head.num_classes == 7


@pytest.mark.slow
@FORMS
def test_inception_v1_in_full(form, agreement):
    agreement(InceptionV1(form=form), GoogLeNet(form), "torchvision", (224, 161))


class Block(nn.Module):
    """A block of InceptionResNetV2 with a shortcut."""

    def __init__(self, wide, scale, relu, *branches):
        super().__init__()
        self.side = [f"branch{i}" for i in range(len(branches))]
        for name, branch in zip(self.side, branches, strict=True):
            setattr(self, name, branch)
        units = [b[-1] if isinstance(b, nn.Sequential) else b for b in branches]
        joined = sum(unit.conv.out_channels for unit in units)
        self.conv2d = nn.Conv2d(joined, wide, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x):
        y = torch.cat([getattr(self, name)(x) for name in self.side], 1)
        y = x + self.scale * self.conv2d(y)
        return torch.relu(y) if self.relu else y


def block35():
    return Block(
        *(320, 0.17, True),
        Unit(320, 32),
        nn.Sequential(Unit(320, 32), same(32, 32, 3)),
        nn.Sequential(Unit(320, 32), same(32, 48, 3), same(48, 64, 3)),
    )


def block17():
    wide, high = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    long = nn.Sequential(Unit(1088, 128), Unit(128, 160, *wide), Unit(160, 192, *high))
    return Block(1088, 0.10, True, Unit(1088, 192), long)


def block8(scale=0.20, relu=True):
    wide, high = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
    long = nn.Sequential(Unit(2080, 192), Unit(192, 224, *wide), Unit(224, 256, *high))
    return Block(2080, scale, relu, Unit(2080, 192), long)


def halving(wide, width):
    return Unit(wide, width, (3, 3), 2)


class TimmInceptionResNetV2(nn.Module):
    """InceptionResNetV2 under the names of timm."""

    def __init__(self, repeats):
        super().__init__()
        self.conv2d_1a = halving(3, 32)
        self.conv2d_2a = Unit(32, 32, (3, 3))
        self.conv2d_2b = same(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = Unit(64, 80)
        self.conv2d_4a = Unit(80, 192, (3, 3))
        self.maxpool_5a = nn.MaxPool2d(3, 2)
        mean = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mixed_5b = Side(
            0,
            Unit(192, 96),
            nn.Sequential(Unit(192, 48), same(48, 64, 5)),
            nn.Sequential(Unit(192, 64), same(64, 96, 3), same(96, 96, 3)),
            nn.Sequential(mean, Unit(192, 64)),
        )
        self.repeat = nn.Sequential(*[block35() for _ in range(repeats[0])])
        self.mixed_6a = Side(
            0,
            halving(320, 384),
            nn.Sequential(Unit(320, 256), same(256, 256, 3), halving(256, 384)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_1 = nn.Sequential(*[block17() for _ in range(repeats[1])])
        self.mixed_7a = Side(
            0,
            nn.Sequential(Unit(1088, 256), halving(256, 384)),
            nn.Sequential(Unit(1088, 256), halving(256, 288)),
            nn.Sequential(Unit(1088, 256), same(256, 288, 3), halving(288, 320)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = nn.Sequential(*[block8() for _ in range(repeats[2])])
        self.block8 = block8(1.0, relu=False)
        self.conv2d_7b = Unit(2080, 1536)

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return x.mean((2, 3))


def test_inception_resnet_v2_is_that_of_timm(agreement):
    repeats = (1, 1, 1)
    spec = InceptionResNetV2(repeats=repeats)
    agreement(spec, TimmInceptionResNetV2(repeats), "timm", (75, 108))


@pytest.mark.slow
def test_inception_resnet_v2_in_full(agreement):
    module = TimmInceptionResNetV2((10, 20, 9))
    agreement(InceptionResNetV2(), module, "timm", (299, 160))
