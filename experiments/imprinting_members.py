"""The networks of an imprinting study: what each is, and in which order they train.

All that a network draws hangs on its name, so that it comes out the same in any study,
in any order and after any stop.
"""

import hashlib
import itertools
from typing import NamedTuple

import jax
from jax import Array

from experiments.imprinting_config import Config

# Fine-tuned networks by where the novel rows start from, and joint ones by their head.
STARTS = ("rand_ft", "imprinting_ft")
JOINTS = ("joint", "joint_cosine")


class Member(NamedTuple):
    """One network of a study.

    Attributes:
        seed: of classes, examples and the network itself.
        row: 'base', 'rand_ft', 'imprinting_ft', 'joint' or 'joint_cosine'; the middle
            two also after 'transfer_', for novel classes alone.
        n: novel examples a class that it trains on, 0 for base networks.
        dim: of the embedding.
        loss: that trains it.
    """

    seed: int
    row: str
    n: int
    dim: int
    loss: str

    @property
    def name(self) -> str:
        """Its own, within a study."""
        at = f"-n{self.n}" if self.n else ""
        return f"seed{self.seed}-{self.row}{at}-{self.loss}-d{self.dim}"

    @property
    def novel_only(self) -> bool:
        """Whether it is for novel classes alone."""
        return self.row.startswith("transfer_")

    @property
    def source(self) -> "Member | None":
        """The base network it starts from, None for one that starts afresh."""
        if self.row in ("base", *JOINTS):
            return None
        return self._replace(row="base", n=0)

    def key(self) -> Array:
        """Of all it draws: fresh parameters, the order of examples, dropout."""
        digest = hashlib.sha256(self.name.encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        return jax.random.key(seed, impl="threefry2x32")


def members(config: Config) -> list[Member]:
    """All networks of a study, each after the one it starts from."""
    found = [Member(seed, "base", 0, config.dim, "softmax") for seed in config.seeds]
    for seed in config.side_seeds:
        found += [Member(seed, "base", 0, dim, "softmax") for dim in config.dims]
        found += [Member(seed, "base", 0, config.dim, loss) for loss in config.losses]
    for rows, kinds in (
        (config.tuned, STARTS),
        (config.transfer, [f"transfer_{start}" for start in STARTS]),
        (config.joint, JOINTS),
    ):
        for seed, n, kind in itertools.product(rows.seeds, rows.shots, kinds):
            loss = "linear" if kind == "joint" else "softmax"
            found.append(Member(seed, kind, n, config.dim, loss))
    for seed, n, dim in itertools.product(
        config.side_seeds, config.side_shots, config.dims
    ):
        found.append(Member(seed, "joint", n, dim, "linear"))
    return found
