"""The networks of a layer-transfer study: what each is, and in which order they train.

A member is one treatment at one n for one target task. All that it draws hangs on its
name, so that it comes out the same in any study, in any order and after any stop.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax import Array

from experiments.layer_transfer_config import Config
from jaxfer.data import halve
from jaxfer.transfer import Treatment, treatments

# Logistic regression is no treatment of the net.
PIXELS = "pixels"


class Target(NamedTuple):
    """A task: a half of the classes of a split, met with a seed."""

    grid: str
    split: int
    half: str
    seed: int
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its own, within a study."""
        return f"{self.grid}-{self.split}{self.half}-seed{self.seed}"


class Member(NamedTuple):
    """One network of a study.

    Attributes:
        target: its task.
        other: the other half of the same split, where there is one.
        treatment: how it begins and what trains; None for logistic regression.
    """

    target: Target
    other: Target | None
    treatment: Treatment | None

    @property
    def kind(self) -> str:
        """The treatment's name."""
        return self.treatment.name if self.treatment else PIXELS

    @property
    def n(self) -> int:
        """Layers copied or frozen, 0 where that has no meaning."""
        return self.treatment.n if self.treatment else 0

    @property
    def name(self) -> str:
        """Its own, within a study."""
        at = f"-n{self.n}" if self.n else ""
        return f"{self.target.name}-{self.kind}{at}"

    @property
    def source(self) -> Target | None:
        """The task whose base network is copied from."""
        if self.treatment is None or self.treatment.source == "none":
            return None
        return self.target if self.treatment.source == "self" else self.other

    def key(self) -> Array:
        """Of all it draws: the fresh layers, the order of examples, dropout."""
        digest = hashlib.sha256(self.name.encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        return jax.random.key(seed, impl="threefry2x32")


def base_name(target: Target) -> str:
    """The name of a target's base network."""
    return f"{target.name}-base"


def members(
    config: Config, class_names: Sequence[str], num_layers: int
) -> list[Member]:
    """All networks of a study, each after the one it is copied from.

    Args:
        config: the study.
        class_names: of the data set.
        num_layers: of the net. Treatments that keep more layers than are left at an n
            are left out there.

    Raises:
        ValueError: halves that do not part the classes.
    """
    found = []
    for grid_name, grid in config.grids().items():
        kinds = [name for name in grid.treatments if name != PIXELS]
        fits = [t for t in treatments(kinds, config.layers) if _fits(t, num_layers)]
        if lost := sorted(set(kinds) - {t.name for t in fits}):
            raise ValueError(
                f"found {lost} in {grid_name}.treatments, needed an n that leaves so "
                f"many layers of {num_layers}: layers are {list(config.layers)}"
            )
        asked: list[Treatment | None] = [*fits]
        asked += [None] * (PIXELS in grid.treatments)
        for split, seed in itertools.product(grid.splits, grid.seeds):
            if grid.by == "whole":
                halves = {"W": tuple(class_names)}
            else:
                a, b = halve(class_names, grid.by, split)
                halves = {"A": a, "B": b}
            targets = [
                Target(grid_name, split, half, seed, classes)
                for half, classes in halves.items()
            ]
            others = [*reversed(targets)] if len(targets) > 1 else [None]
            found += [
                Member(target, other, treatment)
                for target, other in zip(targets, others, strict=True)
                for treatment in asked
            ]
    # Base networks first and what they are judged by, then all treatments of an n.
    return sorted(found, key=lambda m: (m.kind != "base", m.n))


def _fits(treatment: Treatment, num_layers: int) -> bool:
    return not treatment.keep or treatment.n + treatment.keep <= num_layers


def groups(
    queue: Sequence[Member], size: int, examples: Callable[[Target], int]
) -> list[list[Member]]:
    """Members that share a program, up to so many at once, in the order of the queue.

    Args:
        queue: of `members`.
        size: of a group, at most.
        examples: how many a target trains on.
    """
    alike: dict[tuple, list[Member]] = {}
    for member in queue:
        task = len(member.target.classes), examples(member.target)
        alike.setdefault((member.kind, member.n, *task), []).append(member)
    return [
        together[i : i + size]
        for together in alike.values()
        for i in range(0, len(together), size)
    ]
