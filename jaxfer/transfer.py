"""Layer transfer as data (Yosinski et al. 2014): what is copied, and what trains.

A treatment says, for a target task B, which network its first layers are copied from,
how many they are, and whether they are frozen. It works on any `Net`: n counts the
names of `Net.layers`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxfer.stats import Summary, Values, paired
from jaxfer.trees import Graft, Rules, flatten, graft
from jaxfer.types import TRAIN, Mode, Net, Params, State

Source = Literal["self", "other", "none"]
# Of each kind: where its layers are copied from, whether they are frozen, and how many
# times as long it trains.
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


@dataclass(frozen=True)
class Treatment:
    """How a network for a target task begins, and which part of it trains.

    Attributes:
        kind: 'base' trains anew, 'base3' three times as long; 'base+' goes on from the
            whole base network with the schedule restarted, the control for training
            twice; 'BnB' and 'AnB' freeze n layers copied from the target's own base
            network and from the other's, 'BnB+' and 'AnB+' train them on; 'random'
            freezes n layers as they were drawn.
        n: layers that are copied (or, if 'random', frozen), from the input.
        keep: of a frozen treatment, how many more layers are copied and train on, the
            variant of the released code that the paper does not show.
        thaw: of a frozen treatment, whether the frozen layers begin to train one by
            one, the last of them first, at even intervals.

    Raises:
        ValueError: an unknown kind, or a combination that has no meaning.

    Example:
        >>> Treatment("AnB", 3, keep=1).name
        'AnB-keep1'
    """

    kind: str
    n: int = 0
    keep: int = 0
    thaw: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.kind not in _KINDS:
            raise ValueError(
                f"found treatment {self.kind!r}, needed one of {[*_KINDS]}"
            )
        if (self.keep or self.thaw) and not self.frozen:
            raise ValueError(f"{self.name} has nothing frozen, needed BnB or AnB")
        if self.keep and self.source == "none":
            raise ValueError(f"{self.name} has nothing copied, needed BnB or AnB")
        has_n = self.n == 0 if self.kind in WHOLE else self.n > 0
        if self.keep < 0 or not has_n:
            raise ValueError(
                f"found n = {self.n} and keep = {self.keep} of {self.kind}, needed n "
                f"of at least 1 (0 for {', '.join(WHOLE)}) and keep of at least 0"
            )

    @property
    def source(self) -> Source:
        """Whose layers are copied: 'self' for B's, 'other' for A's, 'none'."""
        return _KINDS[self.kind][0]

    @property
    def frozen(self) -> bool:
        """Whether the first n layers do not train."""
        return _KINDS[self.kind][1]

    @property
    def length(self) -> int:
        """How many times as long as the others it trains."""
        return _KINDS[self.kind][2]

    @property
    def name(self) -> str:
        """The kind with its options, without n."""
        keep = f"-keep{self.keep}" if self.keep else ""
        return f"{self.kind}{keep}{'-thaw' if self.thaw else ''}"


def treatments(names: Sequence[str], layers: Sequence[int]) -> list[Treatment]:
    """Treatments by name, those that have an n at each of some n.

    Args:
        names: as `Treatment.name` has them, such as "AnB+" or "BnB-keep2".
        layers: the values of n.

    Raises:
        ValueError: a name that is none.

    Example:
        >>> [(t.name, t.n) for t in treatments(["base", "AnB"], [1, 3])]
        [('base', 0), ('AnB', 1), ('AnB', 3)]
    """
    found = []
    for name in names:
        parts = re.fullmatch(r"(\w+\+?)(?:-keep(\d))?(-thaw)?", name)
        kind = parts[1] if parts else name
        keep = int(parts[2] or 0) if parts else 0
        thaw = bool(parts and parts[3])
        at = [0] if kind in WHOLE else layers
        found += [Treatment(kind, n, keep, thaw) for n in at]
    return found


def check_layers(net: Net, treatment: Treatment) -> None:
    """Refuse an n that is outside of a net's layers.

    Raises:
        ValueError: with the layers it has.

    Example:
        >>> from jaxfer.nets import conv4
        >>> check_layers(conv4(), Treatment("AnB", 4))
    """
    most = len(net.layers)
    if treatment.n + treatment.keep > most:
        keep = f" and {treatment.keep} more" if treatment.keep else ""
        raise ValueError(
            f"found n = {treatment.n}{keep} for {treatment.name}, needed at most the "
            f"{most} layers of the net, {list(net.layers)}"
        )


def begin(
    net: Net,
    treatment: Treatment,
    fresh: tuple[Params, State],
    source: tuple[Params, State] | None = None,
) -> tuple[Params, State, Graft]:
    """The parameters and statistics a treatment begins with.

    Args:
        net: of both.
        treatment: what is copied.
        fresh: newly drawn ones, for this treatment and this n alone (footnote 4 of the
            paper), whose layers are replaced.
        source: those of the base network that is copied from.

    Returns:
        Parameters, statistics, and the report of what was taken and what was kept.

    Raises:
        ValueError: no source where one is needed, an n outside of the net's layers, or
            a source whose layers do not match; all mismatches are listed.

    Example:
        >>> from jaxfer.nets import eight_layers
        >>> net = eight_layers(5, width=2, dense=3)
        >>> one, other = (net.init(jax.random.key(i), (8, 8, 1)) for i in (0, 1))
        >>> _, _, report = begin(net, Treatment("AnB", 1), one, other)
        >>> report.taken
        ('conv1/Conv_0/kernel', 'conv1/Conv_0/bias')
    """
    check_layers(net, treatment)
    params, state = fresh
    if treatment.source == "none":
        copied = ()
    elif treatment.kind == "base+":
        copied = tuple(params)
    else:
        copied = net.layers[: treatment.n + treatment.keep]
    if copied and source is None:
        raise ValueError(f"{treatment.name} copies {list(copied)}, needed a source")
    from_params, from_state = source or fresh
    params, report = graft(params, from_params, copied)
    state, _ = graft(state, from_state, copied)
    return params, state, report


def stages(
    net: Net, treatment: Treatment, num_steps: int
) -> list[tuple[int, tuple[str, ...]]]:
    """The partitions of a treatment one after another: until which step what is frozen.

    All but gradual unfreezing have one. That one trains the n layers, the last one
    first, at n even intervals after the first.

    Args:
        net: whose layers they are.
        treatment: what is frozen at first.
        num_steps: of the whole training.

    Returns:
        (step it ends at, names of the layers frozen till then), in order.

    Example:
        >>> from jaxfer.nets import conv4
        >>> stages(conv4(), Treatment("AnB", 2, thaw=True), 300)
        [(100, ('conv1', 'conv2')), (200, ('conv1',)), (300, ())]
    """
    frozen = net.layers[: treatment.n] if treatment.frozen else ()
    if not treatment.thaw:
        return [(num_steps, frozen)]
    count = len(frozen) + 1
    return [
        (num_steps * (i + 1) // count, frozen[: len(frozen) - i]) for i in range(count)
    ]


def freeze_rules(params: Params, frozen: Sequence[str]) -> Rules:
    """The rules for `partition` under which some layers do not train.

    Args:
        params: of the network; a layer that has none needs no rule.
        frozen: names of layers.

    Example:
        >>> freeze_rules({"conv1": {"bias": 0}, "fc": {"bias": 1}}, ["conv1"])
        [('conv1', False), ('**', True)]
    """
    rules: list[tuple[str, Any]] = [
        (name, False) for name in frozen if flatten(params.get(name, {}))
    ]
    return [*rules, ("**", True)]


def freeze_modes(
    net: Net, params: Params, frozen: Sequence[str], *, dropout: bool = True
) -> dict[str, Mode]:
    """How each layer runs in training: the frozen ones on their stored statistics.

    Args:
        net: whose layers they are.
        params: of the network, which name its classifier.
        frozen: names of layers.
        dropout: whether dropout in frozen layers drops; Yosinski et al. 2014 left it
            on.

    Example:
        >>> from jaxfer.nets import conv4
        >>> modes = freeze_modes(conv4(), {}, ["conv1"], dropout=False)
        >>> modes["conv1"].batch_norm, modes["conv2"].batch_norm
        ('running', 'batch')
    """
    still = Mode("running", dropout=dropout)
    names = dict.fromkeys([*net.layers, *params])
    return {name: still if name in frozen else TRAIN for name in names}


class Prefix(NamedTuple):
    """Where a network is cut: the last layer that is cached, the first that runs."""

    last: str
    first: str


def cached_prefix(
    net: Net,
    params: Params,
    state: State,
    image_shape: tuple[int, ...],
    modes: Mapping[str, Mode],
    frozen: Sequence[str],
    *,
    augmented: bool = False,
) -> Prefix:
    """The layers whose output can be computed once and trained on.

    Frozen layers up to the first that draws at random give the same output every time.

    Args:
        net: the network.
        params: its parameters.
        state: its statistics.
        image_shape: `[height, width, channels]`.
        modes: of the layers, by name, as they run in training.
        frozen: names of the layers that do not train, from the input.
        augmented: whether images are changed at random before they reach the net.

    Returns:
        The last of them, and the layer (or classifier) that training begins at.

    Raises:
        ValueError: a prefix whose output changes: images that are augmented, a frozen
            layer that runs on the statistics of its batch, or a first layer that drops
            at random or is not frozen.

    Example:
        >>> from jaxfer.nets import eight_layers
        >>> net = eight_layers(5, width=2, dense=3)
        >>> params, state = net.init(jax.random.key(0), (8, 8, 1))
        >>> modes = freeze_modes(net, params, net.layers)
        >>> cached_prefix(net, params, state, (8, 8, 1), modes, net.layers)
        Prefix(last='conv5', first='fc6')
    """
    if augmented:
        raise ValueError(
            "a prefix cannot be cached of augmented images: found augmentation on, and "
            "every epoch sees others; needed it off"
        )
    last, why = None, "nothing is frozen"
    x = jax.ShapeDtypeStruct((2, *image_shape), "float32")
    for name in frozen:
        if modes[name].batch_norm == "batch" and state.get(name):
            raise ValueError(
                f"a prefix cannot be cached through {name}, which runs on the "
                "statistics of its batch: every batch gives others; needed 'running'"
            )
        # First without drawing, which tells an input that does not fit.
        y = _after(net, params, state, x, name)
        if _draws(net, params, state, x, name, modes[name]):
            why = f"{name} drops at random"
            break
        last, x = name, y
    if last is None:
        raise ValueError(f"found no prefix to cache: {why}; needed a frozen layer")
    # Parameters may stand in any order, but only the classifier is no layer.
    names = [*net.layers, *(name for name in modes if name not in net.layers)]
    return Prefix(last, names[names.index(last) + 1])


def _after(net: Net, params: Params, state: State, x: Any, name: str):
    return jax.eval_shape(
        lambda x: net.apply(params, state, x, first=name, last=name)[0], x
    )


def _draws(
    net: Net, params: Params, state: State, x: Any, name: str, mode: Mode
) -> bool:
    """Whether a layer that runs without drawing cannot run so without a key."""
    if not mode.dropout:
        return False
    run = partial(net.apply, params, state, mode=mode, first=name, last=name)
    try:
        jax.eval_shape(lambda x: run(x=x)[0], x)
    except ValueError:
        return True
    return False


class Decoupling(NamedTuple):
    """What a frozen transfer loses, and why, in units of its accuracies.

    Attributes:
        co_adaptation: base - BnB, lost where layers that had co-adapted are parted.
        specificity: BnB - AnB, lost since the layers are of another task.
        excess: specificity - co_adaptation.
    """

    co_adaptation: Summary
    specificity: Summary
    excess: Summary

    @property
    def dominant(self) -> str | None:
        """The larger loss, where the interval of their difference leaves out 0."""
        mean, half, _ = self.excess
        if half is None or abs(mean) <= half:
            return None
        return "specificity" if mean > 0 else "co_adaptation"


def decouple(base: Values, bnb: Values, anb: Values) -> Decoupling:
    """The two losses of frozen transfer at one n, paired by target.

    Yosinski et al. 2014, section 4.1: base - AnB = (base - BnB) + (BnB - AnB).

    Args:
        base: accuracies of the base networks, one a target.
        bnb: of the selffers, for the same targets.
        anb: of the transfers, for the same targets.

    Raises:
        ValueError: lists of different lengths.

    Example:
        >>> lost = decouple([60.0, 62.0, 61.0], [59.0, 61.1, 60.1], [55.0, 56.9, 56.2])
        >>> print(lost.co_adaptation, "and", lost.specificity, lost.dominant)
        0.93 ± 0.14 and 4.03 ± 0.38 specificity
    """
    of_each = [np.asarray(x, np.float64) for x in (base, bnb, anb)]
    broken, specific = (paired(*of_each[i : i + 2]) for i in (0, 1))
    # (BnB - AnB) - (base - BnB), target by target.
    return Decoupling(broken, specific, paired(2 * of_each[1], of_each[0] + of_each[2]))
