"""Attributes of classes: their files, scales and refusals."""

import json

import numpy as np
import pytest

from jaxfer.data import ClassAttributes, load_attributes, scaled_attributes

BIRDS = ("1.kite", "2.wren", "3.owl")


def attributes(values, names=BIRDS):
    values = np.asarray(values, np.float32)
    return ClassAttributes(values, names, tuple("abcdef"[: values.shape[1]]))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "birds.csv"
    path.write_text("class,small,red\nkite,0,1\nwren,1,0.5\n")
    return path


def test_a_table_of_attributes_is_read_in_the_order_of_the_classes(table, tmp_path):
    found = load_attributes("table", table, ["wren", "kite"])
    assert found.names == ("small", "red")
    np.testing.assert_array_equal(found.values, [[1, 0.5], [0, 1]])
    other = tmp_path / "birds.tsv"
    other.write_text(table.read_text().replace(",", "\t"))
    again = load_attributes("table", other, ["wren", "kite"])
    np.testing.assert_array_equal(again.values, found.values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,small\n", "one line per class in .*birds.csv, got 1 line"),
        ("class,small\nkite,1,2\n", "a class and 1 number in line 2 .* got 3 cells"),
        ("class,small\nkite,big\n", "expected numbers in line 2 of .*birds.csv"),
        ("class,small\nkite,nan\n", "finite attributes, got nan for 'small' of .*kite"),
        ("class,small\nkite,1\nkite,2\n", "got two of 'kite'"),
        ("class,small\nowl,1\n", "got none for 1 class of 1, such as .'kite'"),
    ],
)
def test_damaged_tables_are_refused(table, text, message):
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_attributes("table", table, ["kite"])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (("table", None), "expected a path for attributes of the source 'table'"),
        (("table", "nowhere.csv"), "nowhere.csv cannot be read as a table"),
        (
            ("superclasses", "birds.csv"),
            "expected no path for attributes of .* birds.csv",
        ),
        (("superclasses", None), r"names such as 'fish/ray', .* got \['kite'\]"),
        (("colours", "birds.csv"), "expected a source of .*, got 'colours'"),
    ],
)
def test_other_sources_are_refused(unchecked, how, message):
    with pytest.raises(ValueError, match=message):
        load_attributes(*how, ["kite"])


def test_superclasses_are_attributes():
    found = load_attributes("superclasses", None, ["fish/ray", "tree/oak", "fish/cod"])
    assert found.names == ("fish", "tree")
    np.testing.assert_array_equal(found.values, [[1, 0], [0, 1], [1, 0]])


def wordnet(path, **graphs):
    """A graph of WordNet, with the parents of each synset."""
    found = {
        part: [
            {"wn_id": name, "words": f"{name}, other", "parents_ids": parents}
            for name, parents in graph.items()
        ]
        for part, graph in graphs.items()
    }
    path.write_text(json.dumps({"split_subgraphs": found}))
    return path


def test_ancestors_of_a_graph_are_attributes(tmp_path):
    # The root tells no two classes apart. The parents of "bat" are in two parts.
    path = wordnet(
        tmp_path / "graph.json",
        TRAIN={"thing": [], "bird": ["thing"], "wren": ["bird"], "bat": ["flier"]},
        TEST={"flier": ["thing"], "bat": ["thing", "mammal"], "mammal": ["thing"]},
    )
    found = load_attributes("wordnet", path, ["wren", "bat"])
    assert found.names == ("bird", "flier", "mammal")
    np.testing.assert_array_equal(found.values, [[1, 0, 0], [0, 1, 1]])
    with pytest.raises(ValueError, match=r"classes that are synsets .* got \['owl'\]"):
        load_attributes("wordnet", path, ["owl"])
    path.write_text('{"graphs": []}')
    with pytest.raises(ValueError, match="expected a graph of WordNet .*KeyError"):
        load_attributes("wordnet", path, ["owl"])


def test_scales_by_training_classes(unchecked):
    every = attributes([[3, 4, 1], [0, 2, 1], [0, 0, 5]])
    unit = scaled_attributes(every, "unit", ["kite"])
    np.testing.assert_allclose(np.linalg.norm(unit.values, axis=1), 1, rtol=1e-6)
    standard = scaled_attributes(every, "standard", ["kite", "2.wren"])
    # The third attribute does not vary over the training classes.
    expected = [[1, 1, 0], [-1, -1, 0], [-1, -3, 0]]
    np.testing.assert_allclose(standard.values, expected, rtol=1e-6)
    same = scaled_attributes(every, "raw", [])
    np.testing.assert_array_equal(same.values, every.values)
    with pytest.raises(ValueError, match="expected a scale of .*, got 'log'"):
        scaled_attributes(every, "log", ["kite"])
    blank = scaled_attributes(attributes(np.zeros((3, 2))), "unit", ["kite"])
    assert not blank.values.any()


def test_numbers_are_part_of_names_that_they_tell_apart(tmp_path):
    every = attributes(np.eye(3), ("3 wheeler", "4 wheeler", "boat"))
    np.testing.assert_array_equal(every.of(["3 wheeler"]).values, [[1, 0, 0]])
    with pytest.raises(ValueError, match="got none for 1 class of 1, such as .'wheel"):
        every.of(["wheeler"])
    # An empty cell in the corner, and an empty line, as other programs write them.
    path = tmp_path / "birds.tsv"
    path.write_text("\tsmall\n\nkite\t0\nwren\t1\n")
    found = load_attributes("table", path, ["kite", "wren"])
    np.testing.assert_array_equal(found.values, [[0], [1]])
    path.write_text("\tsmall\n\nkite\tbig\n")
    with pytest.raises(ValueError, match="expected numbers in line 3 of"):
        load_attributes("table", path)
    constant = ClassAttributes(np.full((3, 1), 0.1), BIRDS, ("a",))
    assert not scaled_attributes(constant, "standard", BIRDS).values.any()


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="of 3 classes and 2 names, got shape"):
        ClassAttributes(np.zeros((3, 1), np.float32), BIRDS, ("a", "b"))
    assert repr(attributes(np.eye(3))) == "ClassAttributes(3 classes, 3 attributes)"


def test_the_attributes_of_cub(real_data):
    folder = real_data / "cub" / "CUB_200_2011"
    found = load_attributes("cub", folder, ["002.Laysan_Albatross", "Crested_Auklet"])
    assert found.values.shape == (2, 312)
    assert found.names[0] == "has_bill_shape::curved_(up_or_down)"
    # The first numbers of lines 2 and 5 of the file, in percent.
    lines = (folder / "attributes/class_attribute_labels_continuous.txt").read_text()
    first = [float(lines.splitlines()[i].split()[0]) / 100 for i in (1, 4)]
    np.testing.assert_allclose(found.values[:, 0], first, rtol=1e-6)


def test_damaged_attributes_of_cub_are_refused(tmp_path):
    (tmp_path / "attributes").mkdir()
    numbers = tmp_path / "attributes" / "class_attribute_labels_continuous.txt"
    (tmp_path / "classes.txt").write_text("1 001.kite\n2 002.wren\n")
    (tmp_path / "attributes.txt").write_text("1 small\n2 red\n")
    numbers.write_text("50 0\n25 100\n")
    found = load_attributes("cub", tmp_path, ["wren", "kite"])
    np.testing.assert_array_equal(found.values, [[0.25, 1], [0.5, 0]])
    for text in ("50 0\n", "50 0\n25\n"):
        numbers.write_text(text)
        with pytest.raises(ValueError, match="expected 2 lines of 2 numbers in .*"):
            load_attributes("cub", tmp_path, ["wren"])
