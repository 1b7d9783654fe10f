import numpy as np
import pytest

from jaxfer.data import (
    Images,
    at_most_per_class,
    base_and_novel,
    class_lists,
    few_examples,
    from_arrays,
    glyphs,
    glyphs_split,
    load,
    official_split,
    random_class_split,
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


def _numbered(n):
    return from_arrays(np.zeros((n, 1, 1)), np.arange(n))


def test_a_random_split_by_class_has_the_shares_of_a_seed():
    data = _numbered(50)
    parts = {
        seed: {
            part: random_class_split(data, part, shares=(0.5, 0.1, 0.4), seed=seed)
            for part in PARTS
        }
        for seed in (None, 0, 1)
    }
    for own in parts.values():
        names = {part: own[part].class_names for part in PARTS}
        assert [len(names[part]) for part in PARTS] == [25, 5, 30, 20]
        assert {*names["train"], *names["val"]} == {*names["trainval"]}
        assert {*names["trainval"], *names["test"]} == {*data.class_names}
    assert len({own["test"].class_names for own in parts.values()}) == 3
    # Without a seed and shares, the split is that of earlier versions.
    expected = ("5", "9", "15", "19")
    assert random_class_split(_numbered(20), "test").class_names == expected
    none = random_class_split(data, "trainval", shares=(0.8, 0.0, 0.2))
    assert none.num_classes == 40
    with pytest.raises(ValueError, match="above 0 for split 'val', got .0.8, 0.0, 0.2"):
        random_class_split(data, "val", shares=(0.8, 0.0, 0.2))
    for shares, message in (
        ((0.5, 0.1, 0.1), "whose sum is 1, got"),
        ((0.0, 0.5, 0.5), "to train .above 0., validate"),
        ((0.5, 0.5), "three class shares"),
        ((1.5, -0.25, -0.25), "three class shares"),
    ):
        with pytest.raises(ValueError, match=message):
            random_class_split(data, "test", shares=shares)
    with pytest.raises(ValueError, match="at least 3 classes in arrays, .* got 2"):
        random_class_split(_numbered(2), "test")


def test_class_lists_part_the_classes(tmp_path, capsys):
    data = _numbered(6)
    for part, names in {"train": "4 x 0", "val": "1", "test": "y z 3"}.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(names.split()))
    rule = class_lists(tmp_path)
    parts = {part: rule(data, part) for part in PARTS}
    assert {part: own.class_names for part, own in parts.items()} == {
        "train": ("0", "4"),
        "val": ("1",),
        "trainval": ("0", "1", "4"),
        "test": ("3",),
    }
    # What is ignored is said once, whatever is asked for.
    what = "expected classes of arrays, such as '0', '1'"
    assert capsys.readouterr().out.splitlines() == [
        f"ignored 1 of 3 names in train.txt, such as 'x': {what}",
        f"ignored 2 of 3 names in test.txt, such as 'y': {what}",
    ]
    with pytest.raises(ValueError, match="one of .*, got split 'x' of arrays"):
        rule(data, "x")
    (tmp_path / "val.txt").write_text("4\n")
    with pytest.raises(
        ValueError, match=r"different classes in .*, got \['4'\] in two"
    ):
        class_lists(tmp_path)(data, "test")
    (tmp_path / "val.txt").unlink()
    with pytest.raises(
        ValueError,
        match="for val of .* 'trainval' needs, got",
    ):
        class_lists(tmp_path)(data, "trainval")
    (tmp_path / "train.txt").write_text("none\n")
    with pytest.raises(ValueError, match="got 1 other name in train.txt, .*'none'"):
        class_lists(tmp_path)(data, "train")
    (tmp_path / "train.txt").unlink()
    with pytest.raises(ValueError, match=r"such as train.txt .*, got \['test.txt'\]"):
        class_lists(tmp_path)


def test_one_list_of_train_and_val_is_divided_by_a_seed(tmp_path):
    data = _numbered(9)
    (tmp_path / "trainval_classes.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (tmp_path / "test_classes.txt").write_text("6\n8\n")
    found = []
    for seed in (None, 0, 1, 2):
        rule = class_lists(tmp_path, seed=seed)
        names = {part: rule(data, part).class_names for part in PARTS}
        assert len(names["val"]) == 2 and names["test"] == ("6", "8")
        assert sorted(names["train"] + names["val"]) == [*names["trainval"]]
        found.append(names["val"])
    assert found[0] == found[1] and len({*found}) > 1
    (tmp_path / "train.txt").write_text("0\n")
    with pytest.raises(ValueError, match="no seed for the lists of .*, got 0"):
        class_lists(tmp_path, seed=0)


def test_the_lists_of_reed_divide_the_classes_of_cub(real_data):
    """100, 50 and 50 classes; the lists called xlsa17 are of another benchmark."""
    cub = real_data / "cub"
    lines = (cub / "CUB_200_2011/classes.txt").read_text().splitlines()
    names = [line.split()[1] for line in lines]
    images = np.zeros((200, 1, 1, 1), np.uint8)
    data = Images("cub", images, np.arange(200, dtype=np.int32), tuple(names))
    rule = class_lists(cub / "splits" / "reed_stackgan")
    parts = {part: {*rule(data, part).class_names} for part in PARTS}
    assert [len(parts[part]) for part in PARTS] == [100, 50, 150, 50]
    assert len(parts["train"] | parts["val"] | parts["test"]) == 200
    assert parts["trainval"] == parts["train"] | parts["val"]
    other = {*(cub / "splits/xlsa17/testclasses.txt").read_text().split()}
    assert len(parts["test"] & other) == 18


@pytest.mark.slow
def test_cifar_fs_is_cifar_100_by_its_class_lists(real_data):
    pytest.importorskip("tensorflow_datasets")
    rule = class_lists(real_data / "cifar100_splits" / "cifar-fs")
    parts = load("cifar100", ["train", "test"], real_data / "tfds", rule=rule)
    assert [part.num_classes for part in parts.values()] == [64, 20]
    assert [len(part.labels) for part in parts.values()] == [38400, 12000]
    assert "people/man" in parts["test"].class_names


def test_at_most_k_images_of_a_class_are_chosen_by_its_name():
    data = _few()
    images = np.arange(26, dtype=np.uint8).reshape(26, 1, 1, 1)
    data = Images(data.name, images, data.labels, data.class_names)

    def chosen(data, most):
        few = at_most_per_class(data, most)
        assert (np.diff(few.images[:].ravel()) > 0).all()
        return {
            name: {*few.images[:].ravel()[few.labels == i].tolist()}
            for i, name in enumerate(few.class_names)
        }

    three, six = chosen(data, 3), chosen(data, 6)
    assert [len(six[name]) for name in "abcd"] == [5, 6, 5, 6]
    assert [len(three[name]) for name in "abcd"] == [3] * 4
    for name in "abcd":
        own = {*np.flatnonzero(data.labels == "abcd".index(name)).tolist()}
        assert three[name] < six[name] <= own
    # Without the other classes, and under another number, it is the same.
    alone = data.take_classes(["d", "b"], name="alone")
    assert chosen(alone, 3) == {name: three[name] for name in "db"}
    # These are not the first images.
    assert any(three[name] != {*sorted(six[name])[:3]} for name in "abcd")
    with pytest.raises(ValueError, match="at least 1 image per class, got 0"):
        at_most_per_class(data, 0)
