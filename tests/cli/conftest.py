"""A small model, and a classifier of photographs that uses it."""

import jax
import pytest

from jaxfer import init_model, save_model
from jaxfer.cli.main import main
from jaxfer.nets import Conv4


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model whose colours survive, so that the photographs are easy."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return save_model(path, init_model(Conv4(width=8), (16, 16, 3), jax.random.key(0)))


@pytest.fixture(scope="session")
def fitted(model, photographs, tmp_path_factory):
    to = tmp_path_factory.mktemp("fit") / "birds.safetensors"
    words = ["fit", photographs, "--model", model, "--to", to, "--unknown", 0.1]
    assert main([*map(str, words)]) == 0
    return to
