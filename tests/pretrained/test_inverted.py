"""EfficientNet-Lite and MobileNetV2 against the same networks in PyTorch."""

import pytest

from jaxfer.nets import EfficientNetLite

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
