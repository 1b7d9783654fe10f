from .augment import Affine, Crop, random_affine, random_crop
from .cache import read_cache, write_cache
from .cifar import cifar100
from .glyphs import glyphs
from .halves import Halves, halve, random_halves, read_halves
from .images import Images, rotations, shrunk
from .omniglot import omniglot
from .order import shuffled
from .resident import Resident, draw, fetch, floats, resident, to_float
from .sources import from_arrays, load, load_all
from .splits import (
    base_and_novel,
    cifar100_examples,
    drawer_examples,
    few_examples,
    glyphs_split,
    omniglot_split,
)
from .streamed import stream
from .view import View

__all__ = [
    "Affine",
    "Crop",
    "Halves",
    "Images",
    "Resident",
    "View",
    "base_and_novel",
    "cifar100",
    "cifar100_examples",
    "draw",
    "drawer_examples",
    "fetch",
    "few_examples",
    "floats",
    "from_arrays",
    "glyphs",
    "glyphs_split",
    "halve",
    "load",
    "load_all",
    "omniglot",
    "omniglot_split",
    "random_affine",
    "random_crop",
    "random_halves",
    "read_cache",
    "read_halves",
    "resident",
    "rotations",
    "shrunk",
    "shuffled",
    "stream",
    "to_float",
    "write_cache",
]
