import pytest

from jaxfer.data import glyphs, glyphs_split

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
    with pytest.raises(
        ValueError, match="found 4 alphabets in glyphs, needed at least"
    ):
        glyphs_split(few, "train")
    with pytest.raises(ValueError, match="split 'tset' of glyphs, needed one of"):
        glyphs_split(few, "tset")
