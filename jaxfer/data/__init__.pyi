from .augment import Affine, random_affine
from .cache import read_cache, write_cache
from .glyphs import glyphs
from .images import Images, rotations
from .omniglot import omniglot
from .resident import Resident, draw, fetch, floats, resident, to_float
from .sources import from_arrays, load, load_all
from .splits import glyphs_split, omniglot_split
from .streamed import stream
from .view import View

__all__ = [
    "Affine",
    "Images",
    "Resident",
    "View",
    "draw",
    "fetch",
    "floats",
    "from_arrays",
    "glyphs",
    "glyphs_split",
    "load",
    "load_all",
    "omniglot",
    "omniglot_split",
    "random_affine",
    "read_cache",
    "resident",
    "rotations",
    "stream",
    "to_float",
    "write_cache",
]
