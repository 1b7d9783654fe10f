"""The vision transformer of DINO and timm."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Precision, with_embedding
from jaxfer.nets.names import Names
from jaxfer.nets.positions import resized_positions
from jaxfer.types import Mode, Net

_EPSILON = 1e-6
_RATIO = 4
# The names of a block's modules in DINO and timm, by their names here.
_BLOCK = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


@dataclass(frozen=True)
class ViT:
    """Patches and a class token, which pass through blocks of attention and an MLP.

    Dosovitskiy et al. 2021, Section 3.1, in the size ViT-S/16 and the form of DINO
    (Caron et al. 2021): LayerNorm with epsilon 1e-6 before each part of a block, GELU,
    and the class token after a last LayerNorm as the embedding. Images of another size
    than `side` resize the position embeddings, as in DINO.

    Attributes:
        patch: height and width of a patch.
        width: dimensions of a token, and of the embedding.
        depth: number of blocks.
        heads: number of attention heads in a block.
        side: height and width of the images that the position embeddings belong to.
        dim: dimensions of a linear layer `embedding` on top; None for none.
        precision: the dtype of activations; parameters stay float32.

    Raises:
        ValueError: a width that is no multiple of the heads, or a side that is no
            multiple of the patch.

    Example:
        >>> import jax
        >>> net = ViT().build()
        >>> draw = lambda key: net.init(key, (224, 224, 3))
        >>> params, _ = jax.eval_shape(draw, jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(params))
        21665664
        >>> net.layers[:2], net.layers[-2:]
        (('embed', 'block1'), ('block12', 'norm'))
    """

    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    side: int = 224
    dim: int | None = None
    precision: Precision = "float32"

    def build(self) -> Net:
        """The network, with layers embed, block1 to blockN and norm."""
        if self.width % self.heads:
            raise ValueError(
                f"expected a width that is a multiple of the {self.heads} heads, got "
                f"{self.width}"
            )
        if self.side % self.patch:
            raise ValueError(
                f"expected a side that is a multiple of the patch {self.patch}, got "
                f"{self.side}"
            )
        dtype = jnp.dtype(self.precision)
        blocks: list[tuple[str, nn.Module]] = [
            ("embed", _Embed(self.patch, self.width, self.side // self.patch, dtype)),
            *((f"block{i + 1}", _Block(self.heads, dtype)) for i in range(self.depth)),
            ("norm", _Norm(dtype)),
        ]
        return chain(with_embedding(blocks, self.dim), spec=self)

    def names(self) -> tuple[Names, ...]:
        """The names of its weights in timm and in DINO, which are the same."""
        found = {
            "embed/cls_token": "cls_token",
            "embed/pos_embed": "pos_embed",
            "embed/patch": "patch_embed.proj",
            "norm/norm": "norm",
        }
        for i in range(self.depth):
            found |= {f"block{i + 1}/{k}": f"blocks.{i}.{v}" for k, v in _BLOCK.items()}
        return tuple(Names(library, found, "head") for library in ("timm", "dino"))


class _Embed(nn.Module):
    """Tokens of the patches after a class token, plus their positions."""

    patch: int
    width: int
    grid: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], mode: Mode) -> Float[Array, "n t d"]:
        del mode
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"expected images with sides that are multiples of the patch of "
                f"{self.patch} pixels, got {x.shape[1]} x {x.shape[2]}"
            )
        init = nn.initializers.truncated_normal(0.02)
        shape = (1, 1 + self.grid**2, self.width)
        token = self.param("cls_token", init, (1, 1, self.width), jnp.float32)
        positions = self.param("pos_embed", init, shape, jnp.float32)
        sides = (self.patch, self.patch)
        patches = nn.Conv(
            self.width,
            sides,
            strides=sides,
            padding="VALID",
            dtype=self.dtype,
            name="patch",
        )(x)
        n, rows, columns, _ = patches.shape
        grid = positions[0, 1:].reshape(self.grid, self.grid, -1)
        grid = resized_positions(grid, rows, columns).reshape(1, -1, self.width)
        positions = jnp.concatenate([positions[:, :1], grid], axis=1)
        tokens = [
            jnp.broadcast_to(token.astype(self.dtype), (n, 1, self.width)),
            patches.reshape(n, rows * columns, self.width),
        ]
        tokens = jnp.concatenate(tokens, axis=1)
        return tokens + jnp.broadcast_to(positions.astype(self.dtype), tokens.shape)


class _Block(nn.Module):
    """Self-attention and an MLP, each after LayerNorm and beside a shortcut."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], mode: Mode) -> Float[Array, "n t d"]:
        del mode
        n, tokens, width = x.shape

        def dense(x: Array, width: int, name: str) -> Array:
            return nn.Dense(width, dtype=self.dtype, name=name)(x)

        y = _layer_norm(x, self.dtype, "norm1")
        y = dense(y, 3 * width, "qkv").reshape(n, tokens, 3, self.heads, -1)
        y = _attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        x = x + dense(y.reshape(x.shape), width, "proj")
        y = _layer_norm(x, self.dtype, "norm2")
        y = nn.gelu(dense(y, _RATIO * width, "fc1"), approximate=False)
        return x + dense(y, width, "fc2")


class _Norm(nn.Module):
    """The class token after LayerNorm."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], mode: Mode) -> Float[Array, "n d"]:
        del mode
        return _layer_norm(x[:, 0], self.dtype, "norm")


def _attention(
    query: Float[Array, "n t h d"],
    key: Float[Array, "n t h d"],
    value: Float[Array, "n t h d"],
) -> Float[Array, "n t h d"]:
    """Return `softmax(q k^T / sqrt(d)) v`, with the softmax in float32 or float64.

    The softmax of `jax.nn.dot_product_attention` is in float32 for any inputs.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("nqhd,nkhd->nhqk", query, key, preferred_element_type=wide)
    weights = nn.softmax(scores / query.shape[-1] ** 0.5).astype(value.dtype)
    return jnp.einsum("nhqk,nkhd->nqhd", weights, value)


def _layer_norm(x: Array, dtype: DTypeLike, name: str) -> Array:
    # The variance as PyTorch computes it, which is more exact than E[x^2] - E[x]^2.
    norm = nn.LayerNorm(_EPSILON, dtype=dtype, use_fast_variance=False, name=name)
    return norm(x)
