import numpy as np
import pytest

from jaxfer.trees import flatten, graft, match, merge, partition, unflatten
from jaxfer.types import Head

PARAMS = {
    "conv1": {"bn": {"bias": 0, "scale": 1}, "kernel": 2},
    "conv10": {"bn": {"bias": 3, "scale": 4}, "kernel": 5},
    "head": {"bias": 6},
}


def test_flatten_and_unflatten_are_inverse():
    flat = flatten(PARAMS)
    assert list(flat)[:3] == ["conv1/bn/bias", "conv1/bn/scale", "conv1/kernel"]
    assert unflatten(flat) == PARAMS


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("conv1", ["conv1/bn/bias", "conv1/bn/scale", "conv1/kernel"]),
        ("conv1/kernel", ["conv1/kernel"]),
        ("conv*/kernel", ["conv1/kernel", "conv10/kernel"]),
        ("*/bias", ["head/bias"]),
        ("**/bias", ["conv1/bn/bias", "conv10/bn/bias", "head/bias"]),
        ("conv10/**/bias", ["conv10/bn/bias"]),
        ("conv10/**", ["conv10/bn/bias", "conv10/bn/scale", "conv10/kernel"]),
        ("**/bn", [f"conv{i}/bn/{x}" for i in (1, 10) for x in ("bias", "scale")]),
        ("**", list(flatten(PARAMS))),
    ],
)
def test_patterns_match_whole_components(pattern, matched):
    rules = [(pattern, True)] if pattern == "**" else [(pattern, True), ("**", False)]
    values = flatten(match(rules, PARAMS))
    assert [path for path, value in values.items() if value] == matched


def test_the_first_rule_that_matches_decides():
    rules = [("conv1/kernel", "a"), ("conv1", "b"), ("**", "c")]
    values = flatten(match(rules, PARAMS))
    assert values["conv1/kernel"] == "a"
    assert values["conv1/bn/bias"] == "b"
    assert values["conv10/kernel"] == "c"


def test_an_unmatched_parameter_is_refused_by_name():
    with pytest.raises(ValueError, match=r"got none for \['head/bias'\].*conv\*"):
        match([("conv*", True)], PARAMS)


@pytest.mark.parametrize(
    "rules",
    [
        [("conv2", True), ("**", False)],
        [("conv1", True), ("conv1/kernel", False), ("**", False)],
    ],
    ids=["matches nothing", "comes too late"],
)
def test_a_rule_of_no_use_is_refused_by_name(rules):
    useless = next(p for p, _ in rules if p in ("conv2", "conv1/kernel"))
    with pytest.raises(ValueError, match=rf"got \['{useless}'\] that do not"):
        match(rules, PARAMS)


def test_partition_and_merge_are_inverse():
    trainable, frozen = partition(PARAMS, [("conv1", False), ("**", True)])
    assert list(frozen) == ["conv1"]
    assert list(trainable) == ["conv10", "head"]
    assert merge(trainable, frozen) == PARAMS


EMPTY = {
    "conv": {"w": 1},
    "pool": {},
    "block": {"noise": {}, "w": 2, "deep": {"x": {}}},
}


def test_empty_layers_keep_their_place():
    assert flatten(EMPTY)["pool"] == {} and flatten(EMPTY)["block/noise"] == {}
    assert unflatten(flatten(EMPTY)) == EMPTY
    assert unflatten({"a": {}, "a/w": 1}) == unflatten({"a/w": 1, "a": {}})
    assert match([("conv", "x"), ("**", "y")], EMPTY) == {
        "conv": {"w": "x"},
        "pool": {},
        "block": {"noise": {}, "w": "y", "deep": {"x": {}}},
    }
    # Rules that name only what has parameters are enough, and pool may be named.
    assert match([("*/w", 0)], EMPTY)["pool"] == {}
    for frozen in (["pool"], ["conv", "pool"], ["block"], []):
        rules = [*((name, False) for name in frozen), ("**", True)]
        halves = partition(EMPTY, rules)
        assert merge(*halves) == EMPTY
        assert set(halves[1]) == set(frozen)


def test_grafts_do_not_report_layers_without_leaves():
    tree, report = graft(EMPTY, {"pool": {}, "conv": {"w": 5}}, ["pool", "conv"])
    assert tree["pool"] == {} and report == (("conv/w",), ("block/w",))


def test_what_is_no_tree_of_arrays_is_refused(unchecked):
    head = Head(np.ones((1, 2)), np.zeros(1), 1.0, np.zeros(1), 1)
    message = (
        "arrays or dictionaries of arrays at 'head', got a Head:.*'weight', 'bias'"
    )
    for call in (flatten, lambda tree: partition(tree, [("**", True)])):
        with pytest.raises(ValueError, match=message):
            call({"net": {"w": 1}, "head": head})
    for key in ("a/b", "", 3):
        with pytest.raises(ValueError, match='names without "/" as keys, got'):
            flatten({"net": {key: 1}})
    for flat in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}):
        with pytest.raises(ValueError, match="expected 'a'.*got a (leaf|group)"):
            unflatten(flat)


def test_a_parameter_in_both_halves_is_refused():
    with pytest.raises(ValueError, match=r"got \['a/w'\] in both"):
        merge({"a": {"w": 1}}, {"a": {"w": 2}})


def test_graft_copies_whole_layers_and_reports():
    target = {"a": {"w": np.zeros(2)}, "b": {"w": np.zeros(3)}}
    source = {"a": {"w": np.ones(2)}, "b": {"w": np.ones(3)}}
    tree, report = graft(target, source, ["a"])
    np.testing.assert_array_equal(tree["a"]["w"], 1)
    np.testing.assert_array_equal(tree["b"]["w"], 0)
    assert (report.taken, report.kept) == (("a/w",), ("b/w",))
    np.testing.assert_array_equal(target["a"]["w"], 0)


def test_graft_keeps_layers_without_statistics():
    tree, report = graft({"a": {}, "b": {"mean": 1}}, {"a": {}, "b": {"mean": 2}}, "ab")
    assert tree == {"a": {}, "b": {"mean": 2}}
    assert report.taken == ("b/mean",)


def test_graft_lists_every_mismatch():
    target = {"a": {"w": np.zeros(2), "u": np.zeros(1)}, "b": {"w": np.zeros(3)}}
    source = {"a": {"w": np.ones(4), "v": np.ones(1)}, "c": {"w": np.ones(3)}}
    with pytest.raises(ValueError) as e:
        graft(target, source, ["a", "b"])
    for part in (
        "b: not a layer of the source, which has ['a', 'c']",
        "a/u: in the target, not in the source",
        "a/v: in the source, not in the target",
        "a/w: (4,) in the source, (2,) in the target",
    ):
        assert part in str(e.value)
