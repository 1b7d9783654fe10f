"""The networks of an imprinting study, and the measurements that need no training.

All random numbers of a network depend on its name alone, so it is the same in any
study, in any order and after any interruption.
"""

import itertools
from typing import NamedTuple

from experiments.imprinting.config import Config

# The fine-tuned networks, one per initialisation of the novel classes, and the joint
# networks, one per kind of head.
STARTS = ("rand_ft", "imprinting_ft")
JOINTS = ("joint", "joint_cosine")
# A measurement of a base network with n novel examples, without training.
MEASURE = "measure"
# Prefix of the rows whose classifiers have novel classes alone (Table 3).
ALONE = "transfer_"


class Imprinted(NamedTuple):
    """One network of a study, or one measurement of a base network.

    Attributes:
        seed: seed of the classes, the examples and the network.
        row: 'base', 'measure', 'rand_ft', 'imprinting_ft', 'joint', 'joint_cosine', or,
            for a classifier of novel classes only, 'transfer_rand_ft' or
            'transfer_imprinting_ft'.
        n: novel examples per class; 0 for base networks.
        dim: dimensions of the embedding.
        loss: loss that trains it; 'linear' is the cross-entropy of a linear head.
    """

    seed: int
    row: str
    n: int
    dim: int
    loss: str

    @property
    def name(self) -> str:
        """A name that is unique within a study."""
        at = f"-n{self.n}" if self.n else ""
        return f"seed{self.seed}-{self.row}{at}-{self.loss}-d{self.dim}"

    @property
    def novel_only(self) -> bool:
        """Whether its classifier has novel classes alone."""
        return self.row.startswith(ALONE)

    @property
    def source(self) -> "Imprinted | None":
        """The base network it starts from; None for a network trained from scratch."""
        if self.row in ("base", *JOINTS):
            return None
        return self._replace(row="base", n=0)


def networks(config: Config) -> list[Imprinted]:
    """Return all networks and measurements of a study, base networks first."""
    bases = [Imprinted(s, "base", 0, config.dim, "softmax") for s in config.seeds]
    for seed in config.side_seeds:
        bases += [Imprinted(seed, "base", 0, dim, "softmax") for dim in config.dims]
        bases += [
            Imprinted(seed, "base", 0, config.dim, loss) for loss in config.losses
        ]
    found = [*bases]
    for base, n in itertools.product(bases, sorted(config.shots)):
        found.append(base._replace(row=MEASURE, n=n))
    for rows, kinds in (
        (config.tuned, STARTS),
        (config.transfer, [ALONE + start for start in STARTS]),
        (config.joint, JOINTS),
    ):
        for seed, n, kind in itertools.product(rows.seeds, rows.shots, kinds):
            loss = "linear" if kind == "joint" else "softmax"
            found.append(Imprinted(seed, kind, n, config.dim, loss))
    for seed, n, dim in itertools.product(
        config.side_seeds, config.side_shots, config.dims
    ):
        found.append(Imprinted(seed, "joint", n, dim, "linear"))
    return found
