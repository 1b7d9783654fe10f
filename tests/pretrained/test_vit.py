"""ViT against the same network in PyTorch."""

import pytest

from jaxfer.nets import ViT

pytestmark = pytest.mark.once

torch = pytest.importorskip("torch")
nn = torch.nn


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Dino(nn.Module):
    """ViT under the names of DINO and timm, with DINO's positions."""

    def __init__(self, patch, width, depth, heads, side):
        super().__init__()
        self.grid, self.patch = side // patch, patch
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, rows, columns):
        if rows == columns == self.grid:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].mT.unflatten(2, (self.grid, self.grid))
        grid = nn.functional.interpolate(
            grid,
            scale_factor=((rows + 0.1) / self.grid, (columns + 0.1) / self.grid),
            mode="bicubic",
            align_corners=False,
        )
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).mT], 1)

    def forward(self, x):
        x = self.patch_embed["proj"](x)
        rows, columns = x.shape[2:]
        x = x.flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions(rows, columns)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


def randomized(module, seed=0):
    """A module whose LayerNorms, biases, class token and positions are random."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.named_parameters():
        if value.ndim == 1 or name in ("cls_token", "pos_embed"):
            value.data.uniform_(-0.5, 0.5, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.data += 1
    return module


@pytest.mark.parametrize("library", ["timm", "dino"])
def test_a_small_vit_is_that_of_dino(library, agreement):
    fields = {"patch": 8, "width": 48, "depth": 2, "heads": 3, "side": 32}
    agreement(ViT(**fields), randomized(Dino(**fields)), library, (32, 56))


@pytest.mark.slow
def test_vit_s_16_is_that_of_dino(agreement):
    module = randomized(Dino(16, 384, 12, 6, 224))
    agreement(ViT(), module, "dino", (224, 160))
