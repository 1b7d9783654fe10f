"""Which classes train, validate and test, as rules.

Splits are by class: no class of one part is in another, and model selection sees the
validation part only.
"""

from dataclasses import replace

from jaxfer.data.images import Images, rotations
from jaxfer.data.view import View

# Snell's "vinyals" split holds out five whole alphabets of the first 1200 characters.
_OMNIGLOT_VAL = (
    "Armenian",
    "Bengali",
    "Early_Aramaic",
    "Hebrew",
    "Mkhedruli_(Georgian)",
)
_OMNIGLOT_TRAINVAL = 1200
SPLITS = ("train", "val", "trainval", "test")


def omniglot_split(data: Images, split: str) -> Images:
    """A part of Omniglot by the "vinyals" rule, with rotations as classes.

    The first 1200 of the 1623 characters (background alphabets, then the evaluation
    alphabets, each in alphabetical order) are trainval, the rest test; validation is
    five whole alphabets of trainval. With rotations: 4112 + 688 = 4800 and 1692
    classes (Vinyals et al. 2016 as Snell et al. 2017 released it).

    Args:
        data: all of Omniglot (see `omniglot`), classes in the order above.
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: another split's name, or another number of characters.
    """
    _check_split(split, data.name)
    names = data.class_names
    if len(names) != 1623:
        raise ValueError(f"found {len(names)} characters in {data.name}, needed 1623")
    trainval, test = names[:_OMNIGLOT_TRAINVAL], names[_OMNIGLOT_TRAINVAL:]
    val = [c for c in trainval if c.split("/")[0] in _OMNIGLOT_VAL]
    train = [c for c in trainval if c.split("/")[0] not in _OMNIGLOT_VAL]
    parts = {"train": train, "val": val, "trainval": trainval, "test": test}
    part = rotations(data.take_classes(parts[split], name=f"{data.name} {split}"))
    # The released code transposes last, and what it calls rot090 hangs on that.
    return replace(part, images=View.of(part.images).transpose())


def glyphs_split(data: Images, split: str) -> Images:
    """A part of glyphs by alphabet: of every ten, seven train, one validates, two test.

    Both families are in every part; characters are met upright only.

    Args:
        data: glyphs, classes "alphabet/character".
        split: 'train', 'val', 'trainval' or 'test'.

    Raises:
        ValueError: another split's name, or fewer than 20 alphabets.
    """
    _check_split(split, data.name)
    alphabets = list(dict.fromkeys(c.split("/")[0] for c in data.class_names))
    if len(alphabets) < 20:
        raise ValueError(
            f"found {len(alphabets)} alphabets in {data.name}, needed at least 20 for "
            "both families to be in every part"
        )
    # Families alternate, so pairs of alphabets are dealt out.
    part = {a: _GLYPHS_PARTS[i // 2 % 10] for i, a in enumerate(alphabets)}
    wanted = ("train", "val") if split == "trainval" else (split,)
    chosen = [c for c in data.class_names if part[c.split("/")[0]] in wanted]
    return data.take_classes(chosen, name=f"{data.name} {split}")


_GLYPHS_PARTS = ("train",) * 7 + ("val",) + ("test",) * 2


def _check_split(split: str, where: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"found split {split!r} of {where}, needed one of {SPLITS}")
