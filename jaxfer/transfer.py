"""Layer transfer (Yosinski et al. 2014): which layers are copied, and which train.

A treatment says, for a target task B, which network its first layers are copied from,
how many they are, and whether they are frozen. It works on any `Net`: n counts the
names of `Net.layers`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jaxfer.trees import Rules
from jaxfer.types import Mode, Net, Params

Source = Literal["self", "other", "none"]
# For each kind: where its layers are copied from, whether they are frozen, and the
# factor of its training length.
_KINDS: dict[str, tuple[Source, bool, int]] = {
    "base": ("none", False, 1),
    "base3": ("none", False, 3),
    "base+": ("self", False, 1),
    "BnB": ("self", True, 1),
    "BnB+": ("self", False, 1),
    "AnB": ("other", True, 1),
    "AnB+": ("other", False, 1),
    "random": ("none", True, 1),
}
WHOLE = ("base", "base3", "base+")
# Replaces the name of a layer where all layers are cached and only the head runs.
ALL_CACHED = "head"


@dataclass(frozen=True)
class Treatment:
    """How a network for a target task starts, and which part of it trains.

    Attributes:
        kind: 'base' trains from scratch, 'base3' three times as long; 'base+' continues
            from the whole base network with the schedule restarted, the control for
            training twice; 'BnB' and 'AnB' freeze n layers copied from the target's own
            base network and from the other task's, 'BnB+' and 'AnB+' fine-tune them;
            'random' freezes n layers at their random initial values.
        n: layers that are copied (or, for 'random', frozen), from the input.
        extra_copied: for a frozen treatment, the number of further layers that are
            copied and trained, a variant in the released code but not in the paper.
        gradual_unfreezing: for a frozen treatment, whether the frozen layers begin to
            train one by one, the last one first, at even intervals.

    Raises:
        ValueError: an unknown kind, or a combination that has no meaning.

    Example:
        >>> Treatment("AnB", 3, extra_copied=1).name
        'AnB-keep1'
    """

    kind: str
    n: int = 0
    extra_copied: int = 0
    gradual_unfreezing: bool = False

    def __post_init__(self) -> None:
        """Refuse combinations that have no meaning."""
        if self.kind not in _KINDS:
            raise ValueError(
                f"expected a treatment among {[*_KINDS]}, with the suffix -keep1 or "
                f"-thaw only after those that freeze, got {self.kind!r}"
            )
        if (self.extra_copied or self.gradual_unfreezing) and not self.frozen:
            raise ValueError(
                "expected extra_copied and gradual_unfreezing only with a kind that "
                f"freezes layers, got {self.name}, which is not frozen"
            )
        if self.extra_copied and self.source == "none":
            raise ValueError(
                f"expected BnB or AnB, got {self.name}, which copies nothing"
            )
        if self.extra_copied < 0 or (self.n < 1) != (self.kind in WHOLE):
            least = "0" if self.kind in WHOLE else "at least 1"
            raise ValueError(
                f"expected n of {least} for {self.kind} and extra_copied of at least "
                f"0, got n = {self.n} and extra_copied = {self.extra_copied}"
            )

    @property
    def source(self) -> Source:
        """The network to copy from: B's ('self'), A's ('other'), or none ('none')."""
        return _KINDS[self.kind][0]

    @property
    def frozen(self) -> bool:
        """Whether the first n layers do not train."""
        return _KINDS[self.kind][1]

    @property
    def length(self) -> int:
        """The factor of its training length; 1 for most kinds."""
        return _KINDS[self.kind][2]

    @property
    def name(self) -> str:
        """The kind with its options, without n."""
        more = f"-keep{self.extra_copied}" if self.extra_copied else ""
        return f"{self.kind}{more}{'-thaw' if self.gradual_unfreezing else ''}"


class Stage(NamedTuple):
    """A part of a training with one set of frozen layers.

    Freezing is one stage; gradual unfreezing is several, with the optimizer's state
    carried over.

    Attributes:
        frozen: names of the layers that do not train.
        until: the step at which the stage ends; None for the end of the training.
    """

    frozen: tuple[str, ...] = ()
    until: int | None = None


def treatments(names: Sequence[str], layers: Sequence[int]) -> list[Treatment]:
    """The treatments with the given names, at each n if they depend on n.

    Args:
        names: values of `Treatment.name`, such as "AnB+" or "BnB-keep2".
        layers: the values of n.

    Raises:
        ValueError: a name that is not a treatment.

    Example:
        >>> [(t.name, t.n) for t in treatments(["base", "AnB"], [1, 3])]
        [('base', 0), ('AnB', 1), ('AnB', 3)]
    """
    found = []
    for name in names:
        parts = re.fullmatch(r"(\w+\+?)(?:-keep(\d))?(-thaw)?", name)
        kind = parts[1] if parts else name
        extra = int(parts[2] or 0) if parts else 0
        at = [0] if kind in WHOLE else layers
        found += [Treatment(kind, n, extra, bool(parts and parts[3])) for n in at]
    return found


def copied_layers(net: Net, treatment: Treatment) -> tuple[str, ...]:
    """The layers that a treatment copies from another network.

    Args:
        net: the network whose layers are copied.
        treatment: the treatment.

    Raises:
        ValueError: more layers than the net has.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> copied_layers(Conv4().build(), Treatment("AnB", 2))
        ('conv1', 'conv2')
    """
    count = treatment.n + treatment.extra_copied
    if count > len(net.layers):
        raise ValueError(
            f"expected at most the {len(net.layers)} layers of the net, "
            f"{list(net.layers)}, got {count} for {treatment.name}"
        )
    if treatment.source == "none":
        return ()
    return net.layers if treatment.kind == "base+" else net.layers[:count]


def stages(net: Net, treatment: Treatment, num_steps: int) -> tuple[Stage, ...]:
    """The stages of a treatment: until which step which layers are frozen.

    All treatments except gradual unfreezing have one stage. Gradual unfreezing has
    n + 1 stages of equal length; each begins with one frozen layer fewer than the one
    before, and the last of the n layers is unfrozen first.

    Args:
        net: the network.
        treatment: the treatment.
        num_steps: the number of steps of the whole training.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> thaw = Treatment("AnB", 2, gradual_unfreezing=True)
        >>> [stage.until for stage in stages(Conv4().build(), thaw, 300)]
        [100, 200, 300]
    """
    frozen = net.layers[: treatment.n] if treatment.frozen else ()
    if not treatment.gradual_unfreezing:
        return (Stage(frozen),)
    count = len(frozen) + 1
    return tuple(
        Stage(frozen[: len(frozen) - i], num_steps * (i + 1) // count)
        for i in range(count)
    )


def freeze_rules(net: Net, params: Params, frozen: Sequence[str]) -> Rules:
    """The rules for `partition` under which some layers of a model do not train.

    They are for the parameters `{"net": params, "head": ...}` of a training.

    Args:
        net: the network.
        params: its parameters by layer; a layer without parameters needs no rule.
        frozen: the names of the frozen layers.

    Raises:
        ValueError: a name that is not a layer of the net.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> freeze_rules(Conv4().build(), {"conv1": {"kernel": 0}}, ["conv1"])
        [('net/conv1', False), ('**', True)]
    """
    check_frozen(net, frozen)
    rules: list[tuple[str, Any]] = [
        (f"net/{name}", False) for name in frozen if params.get(name)
    ]
    return [*rules, ("**", True)]


def check_frozen(net: Net, frozen: Sequence[str]) -> None:
    """Refuse names that are not layers of a net.

    Raises:
        ValueError: a name that is not a layer; the message lists the layers.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> check_frozen(Conv4().build(), ["conv1"])
    """
    if isinstance(frozen, str):
        raise ValueError(f"expected a list of layers, got the string {frozen!r}")
    if unknown := [name for name in frozen if name not in net.layers]:
        raise ValueError(f"expected layers among {list(net.layers)}, got {unknown}")


def freeze_modes(
    net: Net,
    frozen: Sequence[str],
    *,
    dropout: bool = True,
    batch_norm: Literal["batch", "running"] = "batch",
) -> dict[str, Mode]:
    """The mode of each layer in training: frozen layers use their stored statistics.

    Args:
        net: the network.
        frozen: the names of the frozen layers.
        dropout: whether dropout stays on in frozen layers; Yosinski et al. 2014 left it
            on.
        batch_norm: the statistics that BatchNorm uses in layers that train.

    Example:
        >>> from jaxfer.nets import Conv4
        >>> modes = freeze_modes(Conv4().build(), ["conv1"], dropout=False)
        >>> modes["conv1"].batch_norm, modes["conv2"].batch_norm
        ('running', 'batch')
    """
    check_frozen(net, frozen)
    still = Mode("running", dropout=dropout)
    trained = Mode(batch_norm, dropout=True)
    return {name: still if name in frozen else trained for name in net.layers}


class Prefix(NamedTuple):
    """Where a network is split: the last layer cached, and the first one that runs."""

    last: str
    first: str


def cached_prefix(
    net: Net, frozen: Sequence[str], *, dropout: bool = True, augmented: bool = False
) -> Prefix:
    """The leading layers whose output can be cached for training.

    Frozen layers from the input on give the same output every time, up to the first one
    that uses random numbers.

    Args:
        net: the network.
        frozen: names of the layers that do not train.
        dropout: whether dropout stays on in frozen layers.
        augmented: whether images are changed at random before they reach the net.

    Returns:
        The last cached layer, and the layer that training begins at, which is
        `ALL_CACHED` where all layers are cached.

    Raises:
        ValueError: no layer whose output stays the same.

    Example:
        >>> from jaxfer.nets import AlexNetSmall
        >>> net = AlexNetSmall().build()
        >>> cached_prefix(net, net.layers)
        Prefix(last='conv5', first='fc6')
    """
    check_frozen(net, frozen)
    if augmented:
        raise ValueError(
            "cannot cache activations of augmented images: disable augmentation"
        )
    still = 0
    while still < len(net.layers) and net.layers[still] in frozen:
        if dropout and net.layers[still] in net.stochastic:
            break
        still += 1
    if not still:
        raise ValueError(
            f"cannot cache activations: the first layer, {net.layers[:1]}, is not "
            "frozen or has dropout"
        )
    first = (*net.layers, ALL_CACHED)[still]
    return Prefix(net.layers[still - 1], first)
