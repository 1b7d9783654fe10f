"""Options of how experiments run: their devices, and what studies share."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import jax

from jaxfer import sharding
from jaxfer.config import how
from jaxfer.models import Options
from jaxfer.ranges import Count, Range, check_ranges

# Devices along an axis of a mesh.
Devices = Annotated[int, Range(1, 1_000_000, also=-1)]


@dataclass(frozen=True)
class Mesh:
    """The devices of a run; -1 means all that are left."""

    data: Devices | None = None
    """Devices that share the episodes of a step, the images of a batch, the networks of
    a population or the seeds of a zero-shot study: at least 1, or -1. Default: in
    prototypes, as many as divide the episodes of a step; in studies, 1."""
    model: Devices = 1
    """Devices that share the rows of a head in the training of one network on images:
    at least 1, or -1. The number of classes has to be a multiple of it."""

    def make(self, divided: int = 1) -> Any:
        """Return the mesh.

        Args:
            divided: the number that the default of `data` divides.

        Raises:
            ValueError: more devices than there are.
        """
        every = jax.device_count()
        model = every // max(self.data or 1, 1) if self.model == -1 else self.model
        left = max(every // model, 1)
        data = left if self.data == -1 else self.data or math.gcd(divided, left)
        return sharding.make_mesh(data, model)

    def check(self) -> None:
        """Refuse numbers that are not allowed.

        Raises:
            ValueError: a number below 1 other than -1, or -1 for both.
        """
        check_ranges(self, "mesh.")
        if self.data == self.model == -1:
            raise ValueError("expected -1 for one of mesh.data and mesh.model, got two")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study runs; its results do not depend on these options."""

    population: Count | None = how(None)
    """Networks trained at once by one compiled program, at least 1; default: one per
    CPU device and eight per device of another kind."""
    threads: Count | None = how(None)
    """Populations trained in parallel, each in its own thread, at least 1; default: two
    on a single CPU device, one per device in zero-shot studies, otherwise one."""
    mesh: Mesh = how(Mesh())
    run: Options = how(Options(save_every=1000, log_every=50, tensorboard=False))
    figures: bool = how(True)
    """Draw figures if matplotlib is installed."""
    redo: bool = how(False)
    """Train members with damaged records again."""


def check_study(config: Any) -> None:
    """Check the options that studies share, and all ranges.

    Args:
        config: the config of a study.

    Raises:
        ValueError: an invalid option; the message states what is allowed.
    """
    check_ranges(config)
    config.mesh.check()
    if config.mesh.model != 1 and config.population != 1:
        raise ValueError(
            f"expected population = 1 with mesh.model = {config.mesh.model}, got "
            f"{config.population}"
        )
    if config.batch % config.accumulate:
        raise ValueError(
            f"expected accumulate to divide batch = {config.batch}, got "
            f"{config.accumulate}"
        )
