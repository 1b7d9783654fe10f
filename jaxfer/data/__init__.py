"""Data: sources, splits, the array cache, and the pipelines that feed episodes."""

from jaxfer.data.cache import read_cache, write_cache
from jaxfer.data.glyphs import glyphs
from jaxfer.data.images import Images, rotations
from jaxfer.data.omniglot import omniglot
from jaxfer.data.resident import Resident, draw, fetch, resident, to_float
from jaxfer.data.sources import from_arrays, load, load_all
from jaxfer.data.splits import glyphs_split, omniglot_split

__all__ = [
    "Images",
    "Resident",
    "draw",
    "fetch",
    "from_arrays",
    "glyphs",
    "glyphs_split",
    "load",
    "load_all",
    "omniglot",
    "omniglot_split",
    "read_cache",
    "resident",
    "rotations",
    "to_float",
    "write_cache",
]
