"""InceptionV1 and InceptionResNetV2 against the same networks in PyTorch."""

import pytest

from jaxfer.nets import InceptionV1

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


@pytest.mark.slow
@FORMS
def test_inception_v1_in_full(form, agreement):
    agreement(InceptionV1(form=form), GoogLeNet(form), "torchvision", (224, 161))
