"""Models on disk: safetensors with a JSON header, no pickle."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxfer import nets
from jaxfer.models.model import Model, Pixels
from jaxfer.nets import AnyNet, as_net
from jaxfer.tensors import digest, read_tensors, write_tensors
from jaxfer.trees import flatten, unflatten
from jaxfer.types import Head, Net
from jaxfer.versions import version_of

FILE = "model.safetensors"
FORMAT = 1


def save_model(path: str | Path, model: Model) -> Path:
    """Write a model to one file, completely or not at all.

    Args:
        path: the path of the file; in a folder the file is `model.safetensors`.
        model: the model. If its network is not one of `jaxfer.nets`, the network must
            be passed to `load_model`.

    Returns:
        The path of the file.

    Raises:
        ValueError: a file that cannot be written.

    Example:
        >>> import tempfile
        >>> from jaxfer.nets import Flatten
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(folder, Model(Flatten().build(), {}, {})).name
        'model.safetensors'
    """
    path = Path(path)
    path = path / FILE if path.is_dir() or not path.suffix else path
    tensors, header = pack_model(model)
    try:
        write_tensors(path, tensors, {"jaxfer": header | {"sha256": digest(tensors)}})
    except OSError as e:
        raise ValueError(f"the model {path} cannot be written ({e.strerror})") from e
    return path


def pack_model(model: Model) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a model by name, and its header, as `save_model` writes them."""
    tensors = {
        # `np.ascontiguousarray` would turn scalars into vectors.
        name: np.asarray(x, order="C")
        for name, x in _tensors(model).items()
    }
    head = model.head
    return tensors, {
        "format": FORMAT,
        "net": _net_header(model.net),
        "layers": list(model.params),
        "stateful": list(model.state),
        "head": None
        if head is None
        else {"num_classes": head.num_classes, "unit": head.unit, "pool": head.pool},
        "pixels": {
            "size": model.pixels.size,
            "window": model.pixels.window,
            "order": model.pixels.order,
        },
        "class_names": list(model.class_names),
        "about": dict(model.about),
        "jaxfer": version_of("jaxfer"),
    }


def load_model(path: str | Path, net: AnyNet | None = None) -> Model:
    """Read a model from its file, or from the folder of the run that trained it.

    Reading creates and deletes nothing, and every array is verified.

    Args:
        path: a file of `save_model`, or a run's folder that holds `model.safetensors`.
        net: the network, if it is not one of `jaxfer.nets`: a `Net` or a Linen module.

    Raises:
        ValueError: no such file; the folder of a study (the message lists its members);
            a file that is damaged, of another format, or of another network.

    Example:
        >>> import tempfile
        >>> from jaxfer.nets import Flatten
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_model(folder, Model(Flatten().build(), {}, {}))
        ...     load_model(folder).net.spec
        Flatten(dim=None)
    """
    path = _find(Path(path))
    try:
        texts, tensors = read_tensors(path)
        if "jaxfer_classifier" in texts:
            raise ValueError("it is a classifier: read it with FewShotClassifier.load")
        header = json.loads(texts["jaxfer"])
        if header["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {header['format']}")
        if header["sha256"] != digest(tensors):
            raise ValueError("its arrays differ from those that were written")
        return unpack_model(header, tensors, net)
    except (KeyError, TypeError, json.JSONDecodeError) as e:
        raise ValueError(
            f"the model {path} is damaged or not a model of jaxfer ({e})"
        ) from e
    except ValueError as e:
        raise ValueError(f"the model {path} cannot be read: {e}") from e


def model_hash(model: Model) -> str:
    """The hash of what determines a model's embeddings, 16 hexadecimal digits.

    The head and the facts in `about` do not change it.

    Example:
        >>> from jaxfer.nets import Flatten
        >>> model = Model(Flatten().build(), {}, {})
        >>> model_hash(model) == model_hash(Model(Flatten(2).build(), {}, {}))
        False
    """
    pixels = model.pixels
    facts = [_net_header(model.net), pixels.size, pixels.window, pixels.order]
    bare = dataclasses.replace(model, head=None)
    arrays = {name: np.asarray(x) for name, x in _tensors(bare).items()}
    text = json.dumps(facts) + digest(arrays)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if (path / FILE).is_file():
        return path / FILE
    if not path.exists():
        raise ValueError(f"expected a model or a run's folder, got nothing at {path}")
    members = sorted(p.parent.name for p in path.glob(f"members/*/{FILE}"))
    if members:
        more = "" if len(members) <= 5 else f" and {len(members) - 5} more"
        raise ValueError(
            f"{path} is a study of several models: choose one of them, such as "
            f"{path / 'members' / members[0]} (the members are "
            f"{', '.join(members[:5])}{more})"
        )
    hint = ""
    if (path / "config.json").exists():
        hint = ": this run has not finished; run its command again to resume it"
    raise ValueError(f"expected {FILE} in {path}, got a folder without it{hint}")


def _tensors(model: Model) -> dict[str, Any]:
    tree: dict[str, Any] = {"params": model.params, "state": model.state}
    tree["pixels"] = {"mean": model.pixels.mean, "std": model.pixels.std}
    if model.head is not None:
        names = ("weight", "bias", "scale", "owner", "centre")
        arrays = {name: getattr(model.head, name, None) for name in names}
        tree["head"] = {k: x for k, x in arrays.items() if x is not None}
    return {k: x for k, x in flatten(tree).items() if not isinstance(x, Mapping)}


def unpack_model(
    header: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    net: AnyNet | None = None,
) -> Model:
    """The model with the arrays and the header that `pack_model` returned.

    Raises:
        ValueError: another network than in the header.
    """
    shape = tuple(header["about"].get("image_shape", ())) or None
    tree = unflatten({name: jnp.asarray(x) for name, x in tensors.items()})
    spec = header["net"]
    if net is None:
        if spec is None or spec["name"] not in nets.NAMES:
            raise ValueError(
                "it was made with a network that jaxfer does not know: pass it as net="
            )
        net = nets.by_name(spec["name"], **spec["fields"])
    net = as_net(net, shape)
    if spec is not None and _net_header(net) not in (None, spec):
        raise ValueError(f"expected {spec} as in the file, got {net.spec}")
    groups = {
        part: {name: tree.get(part, {}).get(name, {}) for name in header[names]}
        for part, names in (("params", "layers"), ("state", "stateful"))
    }
    head = header["head"] and Head(**tree["head"], **header["head"])
    how = header["pixels"]
    size = how["size"] and tuple(how["size"])
    pixels = Pixels(**tree["pixels"], **{**how, "size": size})
    return Model(
        net,
        groups["params"],
        groups["state"],
        head,
        pixels,
        tuple(header["class_names"]),
        header["about"],
    )


def _net_header(net: Net) -> dict[str, Any] | None:
    """An architecture as JSON; None for a network defined by its functions only."""
    spec = net.spec
    if not dataclasses.is_dataclass(spec) or isinstance(spec, type):
        return None
    fields = json.loads(json.dumps(dataclasses.asdict(spec)))
    return {"name": type(spec).__name__, "fields": fields}
