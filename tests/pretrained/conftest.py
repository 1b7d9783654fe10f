"""Checks of a network against the same network in PyTorch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from jaxfer import EVAL, Mode
from jaxfer.pretrained import from_state_dict

# With batch statistics, and without dropout, which no two libraries share.
TRAINING = Mode("batch")


def randomize(module: Any, seed: int = 0) -> None:
    """Give a PyTorch module's BatchNorms random weights and statistics."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for name, low, high in (
                *(("weight", 0.5, 1.5), ("bias", -0.3, 0.3)),
                *(("running_mean", -0.3, 0.3), ("running_var", 0.5, 1.5)),
            ):
                value = getattr(layer, name)
                value.data.uniform_(low, high, generator=generator)


def relative(found: Any, expected: Any) -> float:
    """The largest difference, in units of the largest expected value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture
def agreement() -> Callable[..., dict[str, float]]:
    """Checks of embeddings: evaluation in float32 and training in float64.

    The relative errors may be 1e-5 and 1e-8, and are returned. The PyTorch module
    returns embeddings; its classifier is named as in its library.
    """
    torch = pytest.importorskip("torch")

    def measure(
        spec: Any, module: Any, library: str, sides: tuple[int, ...], batch: int = 2
    ) -> dict[str, float]:
        randomize(module)
        names = {n.library: n for n in spec.names()}[library]
        arrays = {name: x.detach().numpy() for name, x in module.state_dict().items()}
        errors = {}
        for side in sides:
            shape = (side, side, 3)
            x = np.random.default_rng(side).normal(size=(batch, *shape))
            net = spec.build()
            params, state, _ = from_state_dict(net, arrays, shape, names)
            run = jax.jit(lambda p, s, x, net=net: net.apply(p, s, x, mode=EVAL)[0])
            module.float().eval()
            with torch.no_grad():
                own = module(torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32))
            found = run(params, state, x.astype(np.float32))
            errors[f"evaluation {side}"] = relative(found, own)
        module.double().train()
        for layer in module.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.eval()
        with torch.no_grad():
            own = module(torch.tensor(x.transpose(0, 3, 1, 2)))
        with jax.enable_x64(True):
            net = dataclasses.replace(spec, precision="float64").build()
            wide = {name: np.asarray(x, np.float64) for name, x in arrays.items()}
            params, state, _ = from_state_dict(net, wide, shape, names)
            found = jax.jit(lambda p, s, x: net.apply(p, s, x, mode=TRAINING)[0])(
                params, state, x
            )
        errors["training"] = relative(found, own)
        for name, error in errors.items():
            assert error <= (1e-8 if name == "training" else 1e-5), errors
        return errors

    return measure
