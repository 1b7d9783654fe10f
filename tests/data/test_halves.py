import hashlib

import pytest

from jaxfer.data import glyphs, halve, random_halves, read_halves

THOUSAND = [str(i) for i in range(1000)]
NAMES = ["fish/ray", "people/boy", "trees/oak", "vehicles_1/bus"]


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        (0, "c1aede24b4a89504"),
        (1, "f723a1d01816553c"),
        (2, "65f4ac5023d5e039"),
        (3, "cbb887cb505a7e27"),
    ],
)
def test_random_halves_of_1000_are_the_published_ones(split, digest):
    """The seed is a list, which gives another stream than the number (pitfall 14)."""
    a, b = random_halves(THOUSAND, split)
    assert hashlib.sha256(",".join(a).encode()).hexdigest()[:16] == digest
    assert sorted(map(int, a + b)) == list(range(1000))
    assert len(a) == 500


@pytest.mark.parametrize("split", range(4))
def test_the_released_lists_are_read_and_are_those(real_data, split):
    listed = read_halves(THOUSAND, real_data / "yosinski" / "splits" / f"half{split}")
    assert listed == random_halves(THOUSAND, split)


def test_the_released_natural_and_man_made_lists_part_551_and_449(real_data):
    prefix = real_data / "yosinski" / "splits" / "halfnatman"
    halves = halve(THOUSAND, str(prefix))
    assert sorted(map(len, halves)) == [449, 551]
    (natural,) = [half for half in halves if len(half) == 449]
    digest = hashlib.sha256(",".join(natural).encode()).hexdigest()
    assert digest[:16] == "97587063f81c9dd9"


def test_cifar_is_parted_by_what_it_shows(real_data):
    lines = (real_data / "cifar100_splits" / "labels.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    names = [f"{coarse}/{fine}" for _, fine, _, coarse in rows]
    made, natural = halve(names, "made")
    assert (len(made), len(natural)) == (30, 70)
    assert "vehicles_2/rocket" in made and "trees/oak_tree" in natural
    animals, others = halve(names, "animals")
    assert (len(animals), len(others)) == (50, 50)
    assert "people/girl" in animals and set(made) < set(others)
    assert sorted(animals + others) == sorted(names)


def test_glyphs_are_parted_by_family():
    names = glyphs(alphabets=4, characters=2, drawers=1).class_names
    a, b = halve(names, "family")
    assert {c[:7] for c in a} == {"angular"} and {c[:6] for c in b} == {"curved"}


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("0\n1\n", "1\n2\n3\n", r"overlap: 1 classes are in both.*people/boy"),
        ("0\n", "2\n3\n", r"miss 1 classes, such as \['people/boy'\]"),
        ("0\n1\n7\n", "2\n3\n", r"numbers below 4 in the lists .*x, got 7"),
        ("0\n1\n", "owl\nfish/cod\n", r"got 2 other names in xB.txt, .*'fish/cod'"),
        ("0\n0\n1\n", "2\n3\n", "a class is named twice in a list of"),
    ],
    ids=["overlap", "missing", "number", "names", "twice"],
)
def test_lists_that_do_not_part_the_classes_are_refused(tmp_path, a, b, message):
    (tmp_path / "xA.txt").write_text(a)
    (tmp_path / "xB.txt").write_text(b)
    with pytest.raises(ValueError, match=message):
        read_halves(NAMES, tmp_path / "x")


def test_lists_take_names_numbers_and_comments(tmp_path):
    (tmp_path / "xA.txt").write_text("# mine\n\n3 what follows\nfish/ray\n")
    (tmp_path / "xB.txt").write_text("1\n2\n")
    assert read_halves(NAMES, tmp_path / "x").a == ("fish/ray", "vehicles_1/bus")


def test_names_of_other_classes_are_ignored_and_counted(tmp_path, capsys):
    (tmp_path / "xA.txt").write_text("0\nfish/cod\n1\n")
    (tmp_path / "xB.txt").write_text("2\n3\nowl\nbat\n")
    assert read_halves(NAMES, tmp_path / "x") == (tuple(NAMES[:2]), tuple(NAMES[2:]))
    assert capsys.readouterr().out == (
        "ignored 1 of 3 names in xA.txt, such as 'fish/cod': expected classes, such as "
        "'fish/ray'\n"
        "ignored 2 of 4 names in xB.txt, such as 'owl': expected classes, such as "
        "'fish/ray'\n"
    )


def test_the_released_lists_name_the_classes_of_a_part_of_imagenet(real_data, capsys):
    """The numbers in them are those of all 1000 classes."""
    prefix = real_data / "yosinski" / "splits" / "half0"
    wnids = ["n01440764", "n01443537", "n01491361", "n01494475"]
    assert read_halves(wnids, prefix) == (tuple(wnids[:2]), tuple(wnids[2:]))
    assert "ignored 498 of 500 names in half0A.txt" in capsys.readouterr().out


def test_rules_that_do_not_part_the_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got 0 of 2 .* rule for glyphs"):
        halve(NAMES[:2], "family")
    with pytest.raises(ValueError, match=r"'random', .*there is no .*familyA.txt"):
        halve(NAMES, str(tmp_path / "family"))
    with pytest.raises(ValueError, match="2 classes .*, got 1 classes and split 0"):
        random_halves(NAMES[:1], 0)
