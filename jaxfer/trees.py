"""Named parameters: rules on paths, partition, merge and graft.

Parameters are nested dictionaries of arrays; the path of a leaf is its keys joined by
"/". A rule is a (pattern, value) pair. Lists of rules describe freezing, transfer,
learning rates, weight decay and sharding: the first rule that matches a path decides,
every path must be matched, and every rule must be used.

A pattern is matched component by component, so `conv1` never matches `conv10`. `*`
stands for any characters within a component, `**` for any number of components, and a
pattern that names a group matches all that is below it.

A layer without parameters is an empty dictionary. It keeps its place in every tree and
needs no rule.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfer.types import Params

Rules = Sequence[tuple[str, Any]]


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a nested dictionary by path; an empty dictionary is a leaf, {}.

    Raises:
        ValueError: a dataclass such as `Head` among the leaves, or a key that is not a
            nonempty string without "/".

    Example:
        >>> flatten({"conv1": {"bias": 0, "kernel": 1}, "pool": {}})
        {'conv1/bias': 0, 'conv1/kernel': 1, 'pool': {}}
    """
    flat = {}
    for name, value in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f'expected names without "/" as keys, got {name!r}')
        if isinstance(value, Mapping):
            below = flatten(value)
            flat |= {f"{name}/{path}": leaf for path, leaf in below.items()}
            if not below:
                flat[name] = {}
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [field.name for field in dataclasses.fields(value)]
            raise ValueError(
                f"expected arrays or dictionaries of arrays at {name!r}, got a "
                f"{type(value).__name__}: put its arrays that train, out of {fields}, "
                "in a dictionary"
            )
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary with leaves at the given paths; the inverse of `flatten`.

    Raises:
        ValueError: a path that is both a leaf and a group.

    Example:
        >>> unflatten({"conv1/bias": 0, "conv1/kernel": 1, "pool": {}})
        {'conv1': {'bias': 0, 'kernel': 1}, 'pool': {}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *groups, name = path.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise ValueError(
                    f"expected {group!r} in {path!r} as a group, got a leaf"
                )
        if _is_empty(leaf):
            node.setdefault(name, {})
        elif isinstance(node.get(name), dict):
            raise ValueError(f"expected {path!r} as a leaf, got a group")
        else:
            node[name] = leaf
    return tree


def match(
    rules: Rules, tree: Mapping[str, Any], *, all_used: bool = True
) -> dict[str, Any]:
    """The tree with each leaf replaced by the value of the first rule that matches it.

    Args:
        rules: (pattern, value) pairs; the module's docstring says how they match.
        tree: a nested dictionary; empty dictionaries stay unchanged.
        all_used: whether a rule that decides for no path is refused.

    Raises:
        ValueError: a path that no rule matches, or a rule that decides for no path.

    Example:
        >>> params = {"conv1": {"bias": 0, "kernel": 1}, "conv10": {"bias": 2}}
        >>> match([("conv1", "frozen"), ("**", "trained")], params)["conv10"]
        {'bias': 'trained'}
    """
    leaves = flatten(tree)
    decided = _decide(rules, leaves, all_used=all_used)
    return unflatten(
        {path: {} if _is_empty(leaves[path]) else value for path, value in decided}
    )


def _decide(
    rules: Rules, leaves: Mapping[str, Any], *, all_used: bool = True
) -> list[tuple[str, Any]]:
    """Each path with the value of its rule; True for an empty layer without a rule."""
    patterns = [(_compile(pattern), value) for pattern, value in rules]
    used, decided, unmatched = set(), [], []
    for path, leaf in leaves.items():
        for i, (regex, value) in enumerate(patterns):
            if regex.fullmatch(path):
                used.add(i)
                decided.append((path, value))
                break
        else:
            if _is_empty(leaf):
                decided.append((path, True))
            else:
                unmatched.append(path)
    if unmatched:
        raise ValueError(
            f"expected a rule for every parameter, got none for {unmatched}: the "
            f"patterns are {[pattern for pattern, _ in rules]}"
        )
    unused = [pattern for i, (pattern, _) in enumerate(rules) if i not in used]
    if unused and all_used:
        raise ValueError(
            f"expected every rule to apply to a parameter, got {unused} that do not: "
            "they match no parameter, or an earlier rule matches first; the parameters "
            f"are {[*leaves]}"
        )
    return decided


def _is_empty(leaf: Any) -> bool:
    return isinstance(leaf, Mapping) and not leaf


def partition(params: Params, rules: Rules) -> tuple[Params, Params]:
    """Split parameters into those that train and those that are frozen.

    Only the first part is differentiated, so a frozen parameter has no gradient, no
    optimizer state and no weight decay, and cannot change.

    Args:
        params: a nested dictionary.
        rules: (pattern, bool) pairs; True trains.

    Returns:
        `(trainable, frozen)`, nested dictionaries that `merge` joins again.

    Raises:
        ValueError: see `match`.

    Example:
        >>> partition({"a": {"w": 1}, "b": {"w": 2}}, [("a", False), ("**", True)])
        ({'b': {'w': 2}}, {'a': {'w': 1}})
    """
    flat = flatten(params)
    trains = dict(_decide(rules, flat))
    trainable = {path: leaf for path, leaf in flat.items() if trains[path]}
    frozen = {path: leaf for path, leaf in flat.items() if not trains[path]}
    return unflatten(trainable), unflatten(frozen)


def merge(trainable: Params, frozen: Params) -> Params:
    """Join the two parts that `partition` returned.

    Raises:
        ValueError: a path that is in both parts.

    Example:
        >>> merge({"b": {"w": 2}}, {"a": {"w": 1}})
        {'a': {'w': 1}, 'b': {'w': 2}}
    """
    one, other = flatten(trainable), flatten(frozen)
    if both := sorted(one.keys() & other.keys()):
        raise ValueError(f"expected each parameter in one part, got {both} in both")
    return unflatten(dict(sorted({**one, **other}.items())))


class Graft(NamedTuple):
    """The report of `graft`: paths that were copied, paths that kept their values."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]


def graft(
    target: Params, source: Params, layers: Iterable[str]
) -> tuple[Params, Graft]:
    """Copy whole layers of another network (Yosinski et al. 2014, section 2).

    It works on parameters and on running statistics.

    Args:
        target: the tree whose layers are replaced.
        source: the tree they are copied from.
        layers: names of top-level groups.

    Returns:
        The new tree, and the report of what was copied and what was kept.

    Raises:
        ValueError: a layer that one tree lacks, or whose paths or shapes differ; all
            mismatches are listed.

    Example:
        >>> graft({"a": {"w": 1}, "b": {"w": 2}}, {"a": {"w": 9}}, ["a"])[0]
        {'a': {'w': 9}, 'b': {'w': 2}}
    """
    layers = tuple(layers)
    ours = _leaves({name: target[name] for name in layers if name in target})
    theirs = _leaves({name: source[name] for name in layers if name in source})
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
        raise ValueError("expected layers that match, got " + "; ".join(wrong))
    kept = tuple(path for path in _leaves(target) if path not in theirs)
    grafted = {**target, **{layer: source[layer] for layer in layers}}
    return grafted, Graft(tuple(theirs), kept)


def _leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves by path, without layers that have no parameters."""
    return {path: leaf for path, leaf in flatten(tree).items() if not _is_empty(leaf)}


def _compile(pattern: str) -> re.Pattern[str]:
    parts = []
    for component in pattern.split("/"):
        if component == "**":
            parts.append("(?:[^/]+/)*")
        else:
            within = "[^/]*".join(re.escape(text) for text in component.split("*"))
            parts.append(within + "/")
    # Every component ends in "/" above. The last "/" is removed: the pattern matches a
    # whole path, or the leading components of a longer path.
    body = "".join(parts)
    if pattern.split("/")[-1] == "**":
        return re.compile(body + "[^/]+")
    return re.compile(body[:-1] + "(?:/.*)?")
