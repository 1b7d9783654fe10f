import numpy as np
import pytest

from jaxfer.data import (
    Images,
    base_and_novel,
    few_examples,
    glyphs,
    glyphs_split,
    official_split,
    split_by_drawer,
)

PARTS = ("train", "val", "trainval", "test")


@pytest.fixture(scope="module")
def parts():
    data = glyphs(alphabets=60, characters=2, drawers=1)
    return {name: glyphs_split(data, name) for name in PARTS}


def test_glyphs_are_split_by_alphabet_with_both_families_in_every_part(parts):
    alphabets = {
        name: {c.split("/")[0] for c in part.class_names}
        for name, part in parts.items()
    }
    sizes = {name: len(found) for name, found in alphabets.items()}
    assert sizes == {"train": 42, "val": 6, "trainval": 48, "test": 12}
    assert not alphabets["trainval"] & alphabets["test"]
    assert not alphabets["train"] & alphabets["val"]
    for found in alphabets.values():
        angular = {a for a in found if a.startswith("angular")}
        assert len(angular) * 2 == len(found)


def test_too_few_alphabets_and_unknown_splits_are_refused():
    few = glyphs(alphabets=4, characters=1, drawers=1)
    with pytest.raises(ValueError, match="at least 20 alphabets in glyphs, .*got 4"):
        glyphs_split(few, "train")
    with pytest.raises(ValueError, match="one of .*, got split 'tset' of glyphs"):
        glyphs_split(few, "tset")


def test_drawers_are_parted_and_every_class_is_in_every_part():
    data = glyphs(alphabets=2, characters=3, drawers=20)
    parts = {name: split_by_drawer(data, name) for name in PARTS}
    counts = {k: np.bincount(part.labels).tolist() for k, part in parts.items()}
    sizes = {"train": 12, "val": 3, "trainval": 15, "test": 5}
    assert counts == {name: [size] * 6 for name, size in sizes.items()}
    # The test part has exactly the last five drawings of each character.
    pixels = data.images.reshape(6, 20, *data.images.shape[1:])
    np.testing.assert_array_equal(
        parts["test"].in_memory().images, pixels[:, 15:].reshape(30, 28, 28, 1)
    )
    np.testing.assert_array_equal(
        parts["val"].in_memory().images, pixels[:, 12:15].reshape(18, 28, 28, 1)
    )
    with pytest.raises(ValueError, match="one of .*, got split 'x' of glyphs"):
        split_by_drawer(data, "x")


def test_cifar_validates_on_the_last_fifty_of_each_class(rng):
    sizes = (500, 100)
    labels = [rng.permutation(np.repeat(range(100), size)) for size in sizes]
    labels = np.concatenate(labels)
    images = np.arange(60_000, dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2, 1)
    names = tuple(f"above/{c}" for c in range(100))
    data = Images("x", images, labels.astype(np.int32), names, num_train=50_000)
    rows = {
        name: part.in_memory().images.reshape(-1, 4).view(np.uint32).ravel()
        for name in PARTS
        for part in [official_split(data, name)]
    }
    np.testing.assert_array_equal(rows["trainval"], np.arange(50_000))
    np.testing.assert_array_equal(rows["test"], np.arange(50_000, 60_000))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rows["train"], rows["val"]])), np.arange(50_000)
    )
    for c in (0, 57):
        of_class = np.flatnonzero(labels[:50_000] == c)
        np.testing.assert_array_equal(
            rows["val"][labels[rows["val"]] == c], of_class[-50:]
        )


def test_novel_classes_are_the_others_in_an_order_of_the_seed():
    names = [f"class{i}" for i in range(10)]
    base, novel = base_and_novel(names, 7)
    assert (*base, *novel) == tuple(names) and len(base) == 7
    drawn = {base_and_novel(names, 7, seed) for seed in range(5)}
    assert len(drawn) == 5
    for base, novel in drawn:
        assert sorted((*base, *novel)) == names and len(novel) == 3
    # NumPy's legacy generator never changes.
    assert base_and_novel(names, 7, 0)[1] == ("class4", "class5", "class2")
    for bad in (0, 10):
        with pytest.raises(
            ValueError, match=f"1 to 9 base classes out of 10 .*, got {bad}"
        ):
            base_and_novel(names, bad)


def _few():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4, dtype=np.int32), [5, 9, 5, 7]))
    return Images("few", np.zeros((26, 1, 1, 1), np.uint8), labels, tuple("abcd"))


def test_few_examples_are_nested_and_of_their_class():
    data = _few()
    five, counts = few_examples(data, ["d", "a"], 5, 1)
    assert five.dtype == counts.dtype == np.int32 and counts.tolist() == [5, 5]
    assert (data.labels[five] == [[3], [0]]).all() and len(np.unique(five)) == 10
    two, counts = few_examples(data, ["d", "a"], 2, 1)
    np.testing.assert_array_equal(two, five[:, :2])
    assert counts.tolist() == [2, 2]
    # The sample of a class does not depend on the other classes.
    np.testing.assert_array_equal(few_examples(data, ["a"], 5, 1)[0], five[1:])
    assert (few_examples(data, ["d", "a"], 5, 2)[0] != five).any()
    with pytest.raises(
        ValueError, match="at least n = 6 examples of class 'a' of few, got 5"
    ):
        few_examples(data, ["b", "a"], 6, 1)
    with pytest.raises(ValueError, match=r"expected classes of few, got \['x'\]"):
        few_examples(data, ["x"], 1, 1)


def test_classes_with_fewer_examples_have_all_of_theirs_first():
    data = _few()
    rows, counts = few_examples(data, ["b", "a", "d"], 8, 1, allow_fewer=True)
    assert rows.shape == (3, 8) and counts.tolist() == [8, 5, 7]
    for mine, count, c in zip(rows, counts, (1, 0, 3), strict=True):
        real = mine[:count]
        assert len({*real}) == count and (data.labels[mine] == c).all()
        # The rest is padding, which repeats the first row.
        assert (mine[count:] == mine[0]).all()
    # Real examples are the same as without small classes.
    few, _ = few_examples(data, ["b", "a", "d"], 5, 1)
    np.testing.assert_array_equal(rows[:, :5], few)
    empty = Images("few", data.images, data.labels, tuple("abcde"))
    with pytest.raises(
        ValueError, match="at least n = 1 examples of class 'e' of few, got 0"
    ):
        few_examples(empty, ["e"], 3, 1, allow_fewer=True)
