"""Named parameters: rules on paths, partition, merge and graft.

Parameters are nested dictionaries; the path of a leaf is its keys joined by "/". A rule
is a (pattern, value) pair, and one list of rules is the one mechanism for freezing,
transfer, learning-rate multipliers, weight decay and sharding: the first rule that
matches a path decides, every path must be matched, and every rule must be of use.

A pattern is matched component by component, so `conv1` never matches `conv10`. `*`
stands for any characters within a component, `**` for any number of components, and a
pattern that names a group matches all that is below it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfer.types import Params

Rules = Sequence[tuple[str, Any]]


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a nested dictionary by path.

    Example:
        >>> flatten({"conv1": {"bias": 0, "kernel": 1}})
        {'conv1/bias': 0, 'conv1/kernel': 1}
    """
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{path}": leaf for path, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary whose leaves lie at the given paths.

    Example:
        >>> unflatten({"conv1/bias": 0, "conv1/kernel": 1})
        {'conv1': {'bias': 0, 'kernel': 1}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *groups, name = path.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = leaf
    return tree


def match(rules: Rules, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with each leaf replaced by the value of the first rule that matches it.

    Args:
        rules: (pattern, value) pairs, the module's docstring says how they match.
        tree: a nested dictionary.

    Raises:
        ValueError: a path no rule matches, or a rule that decides for no path.

    Example:
        >>> params = {"conv1": {"bias": 0, "kernel": 1}, "conv10": {"bias": 2}}
        >>> match([("conv1", "frozen"), ("**", "trained")], params)["conv10"]
        {'bias': 'trained'}
    """
    patterns = [(_compile(pattern), value) for pattern, value in rules]
    used, matched, unmatched = set(), {}, []
    for path in flatten(tree):
        for i, (regex, value) in enumerate(patterns):
            if regex.fullmatch(path):
                used.add(i)
                matched[path] = value
                break
        else:
            unmatched.append(path)
    if unmatched:
        raise ValueError(
            f"no rule matches {unmatched}: the patterns are "
            f"{[pattern for pattern, _ in rules]}; every parameter needs one"
        )
    unused = [pattern for i, (pattern, _) in enumerate(rules) if i not in used]
    if unused:
        raise ValueError(
            f"the rules {unused} decide for no parameter (none matches, or an earlier "
            f"rule always does): the parameters are {list(matched)}"
        )
    return unflatten(matched)


def partition(params: Params, rules: Rules) -> tuple[Params, Params]:
    """Split parameters into those that train and those that are frozen.

    Only the first half is to be differentiated, so a frozen parameter has no gradient,
    no optimizer state and no weight decay, and cannot move.

    Args:
        params: a nested dictionary.
        rules: (pattern, bool) pairs; True trains.

    Returns:
        `(trainable, frozen)`, nested dictionaries that `merge` puts together again.

    Raises:
        ValueError: as `match`.

    Example:
        >>> partition({"a": {"w": 1}, "b": {"w": 2}}, [("a", False), ("**", True)])
        ({'b': {'w': 2}}, {'a': {'w': 1}})
    """
    trains = flatten(match(rules, params))
    flat = flatten(params)
    trainable = {path: leaf for path, leaf in flat.items() if trains[path]}
    frozen = {path: leaf for path, leaf in flat.items() if not trains[path]}
    return unflatten(trainable), unflatten(frozen)


def merge(trainable: Params, frozen: Params) -> Params:
    """The parameters whose two halves `partition` gave.

    Raises:
        ValueError: a path that is in both halves.

    Example:
        >>> merge({"b": {"w": 2}}, {"a": {"w": 1}})
        {'a': {'w': 1}, 'b': {'w': 2}}
    """
    one, other = flatten(trainable), flatten(frozen)
    if both := sorted(one.keys() & other.keys()):
        raise ValueError(f"{both} are in both halves, a parameter is in one only")
    return unflatten(dict(sorted({**one, **other}.items())))


class Graft(NamedTuple):
    """What `graft` did: the paths copied, and those that kept their own values."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]


def graft(
    target: Params, source: Params, layers: Iterable[str]
) -> tuple[Params, Graft]:
    """Copy whole layers of another network (Yosinski et al. 2014, section 2).

    Works on parameters and on running statistics alike.

    Args:
        target: the tree whose layers are replaced.
        source: the tree they are taken from.
        layers: names of top-level groups.

    Returns:
        The new tree, and the report of what was taken and what was kept.

    Raises:
        ValueError: a layer that one tree lacks, or whose paths or shapes differ; all
            mismatches are listed.

    Example:
        >>> graft({"a": {"w": 1}, "b": {"w": 2}}, {"a": {"w": 9}}, ["a"])[0]
        {'a': {'w': 9}, 'b': {'w': 2}}
    """
    layers = tuple(layers)
    ours = flatten({name: target[name] for name in layers if name in target})
    theirs = flatten({name: source[name] for name in layers if name in source})
    wrong = [
        f"{layer}: not a layer of the {which}, which has {list(tree)}"
        for which, tree in (("source", source), ("target", target))
        for layer in layers
        if layer not in tree
    ]
    for path in sorted(ours.keys() ^ theirs.keys()):
        has, lacks = ("source", "target") if path in theirs else ("target", "source")
        wrong.append(f"{path}: in the {has}, not in the {lacks}")
    wrong += [
        f"{path}: {np.shape(theirs[path])} in the source, "
        f"{np.shape(ours[path])} in the target"
        for path in sorted(ours.keys() & theirs.keys())
        if np.shape(ours[path]) != np.shape(theirs[path])
    ]
    if wrong:
        raise ValueError("the layers do not match: " + "; ".join(wrong))
    kept = tuple(path for path in flatten(target) if path not in theirs)
    grafted = {**target, **{layer: source[layer] for layer in layers}}
    return grafted, Graft(tuple(theirs), kept)


def _compile(pattern: str) -> re.Pattern[str]:
    parts = []
    for component in pattern.split("/"):
        if component == "**":
            parts.append("(?:[^/]+/)*")
        else:
            within = "[^/]*".join(re.escape(text) for text in component.split("*"))
            parts.append(within + "/")
    # Every component, the last one too, ends in "/" above: a path of which the
    # pattern is a leading part goes on after it, one that it matches whole does not.
    body = "".join(parts)
    if pattern.split("/")[-1] == "**":
        return re.compile(body + "[^/]+")
    return re.compile(body[:-1] + "(?:/.*)?")
