"""Lists of names: what is read, and what is said of names that stand for nothing."""

import json

import pytest

from jaxfer.data.lists import look_up, look_up_classes, read_lines, read_names


def test_a_list_has_one_name_per_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeff# Birds\nwren\n\n  great tit \n", "utf-8")
    assert read_names(path) == ["wren", "great tit"]
    assert read_lines(path) == ["# Birds", "wren", "great tit"]
    path.write_text("# Birds\n")
    with pytest.raises(ValueError, match=r"one name per line in .*list.txt, got none"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"list.txt cannot be read as a list of names"):
        read_names(path)
    with pytest.raises(ValueError, match="nowhere cannot be read"):
        read_names(tmp_path / "nowhere")


def test_json_lists_have_names_or_their_parts(tmp_path):
    path = tmp_path / "list.json"
    for content, expected in (
        ([["fish", "ray"], ["fish", "trout"]], ["fish/ray", "fish/trout"]),
        (["ray", 7], ["ray", "7"]),
        ({"class_names": ["ray"], "class_roots": []}, ["ray"]),
    ):
        path.write_text(json.dumps(content))
        assert read_names(path) == expected
    for bad, message in (("[", "cannot be read as a JSON"), ('{"a": 1}', "other JSON")):
        path.write_text(bad)
        with pytest.raises(ValueError, match=message):
            read_names(path)


def test_what_is_not_there_is_counted_and_named(capsys):
    names = [f"file{i}" for i in range(2000)]
    found = look_up(
        names,
        lambda name: name if name >= "file3" else None,
        what="images of birds",
        where="train.txt",
    )
    missing = [name for name in names if name < "file3"]
    assert found == [name for name in names if name not in missing]
    assert capsys.readouterr().out == (
        f"ignored {len(missing):,} of 2,000 names in train.txt, such as 'file0': "
        "expected images of birds\n"
    )
    look_up(["a"], {"a": 1}.get, what="images", where="list")
    assert not capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"expected images; got 2 other .* in train.txt, .*'b', 'c'\]"
    ):
        look_up(["b", "c"], {"a": 1}.get, what="images", where="train.txt")


def test_classes_are_named_with_numbers_before_or_words_after(capsys):
    names = ("001.Wren", "great tit", "tit", "n01")
    lines = ["1 001.Wren", "great tit", "0 3 n01", "n01\tsomething, else", "owl"]
    assert look_up_classes(lines, names, data="birds", where="list.txt") == [
        "001.Wren",
        "great tit",
        "n01",
    ]
    assert capsys.readouterr().out == (
        "ignored 1 of 5 names in list.txt, such as 'owl': expected classes of birds, "
        "such as '001.Wren', 'great tit'\n"
    )
    # A longer name is another class.
    with pytest.raises(ValueError, match="got 1 other name in .* .'tit mouse'"):
        look_up_classes(["tit mouse"], names, data="birds", where="list.txt")


def test_the_class_lists_of_cifar_fs_are_read(real_data):
    folder = real_data / "cifar100_splits" / "cifar-fs"
    lists = {x: read_names(folder / f"{x}.json") for x in ("train", "val", "test")}
    assert [len(found) for found in lists.values()] == [64, 16, 20]
    assert lists["val"][0] == "aquatic_mammals/beaver"
