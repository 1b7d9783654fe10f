"""The devices and the versions of packages that a result was made with."""

import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any


def environment(devices: Iterable[Any]) -> dict[str, Any]:
    """The devices and package versions a result was made with.

    Args:
        devices: the JAX devices of the run.
    """
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "devices": [device.device_kind for device in devices],
        "versions": {
            "jaxfer": version_of("jaxfer"),
            "python": platform.python_version(),
            **{name: version_of(name) for name in packages},
        },
    }


def version_of(package: str) -> str | None:
    """The version of an installed package; None if it is not installed.

    It is None for jaxfer itself if it runs from a source tree.

    Example:
        >>> version_of("no-such-package")
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
