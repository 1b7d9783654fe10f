from .augment import (
    Affine,
    Crop,
    centre_crop,
    draw_crop,
    random_affine,
    random_crop,
)
from .cache import read_cache, write_cache
from .cifar import cifar100
from .folders import folder_of_classes, image_folder
from .glyphs import glyphs
from .halves import Halves, halve, random_halves, read_halves
from .images import Images, rotations, shrunk
from .omniglot import omniglot
from .order import shuffled
from .photos import Photos, read_excluded, tfds_photos
from .resident import Resident, draw, fetch, floats, resident, to_float
from .sources import from_arrays, load, load_all
from .splits import (
    base_and_novel,
    drawer_examples,
    drawn_classes,
    few_examples,
    given_examples,
    glyphs_split,
    omniglot_split,
)
from .streamed import Drawn, read_ahead, stream
from .view import View

__all__ = [
    "Affine",
    "Crop",
    "Drawn",
    "Halves",
    "Images",
    "Photos",
    "Resident",
    "View",
    "base_and_novel",
    "centre_crop",
    "cifar100",
    "draw",
    "draw_crop",
    "drawer_examples",
    "drawn_classes",
    "fetch",
    "few_examples",
    "floats",
    "folder_of_classes",
    "from_arrays",
    "given_examples",
    "glyphs",
    "glyphs_split",
    "halve",
    "image_folder",
    "load",
    "load_all",
    "omniglot",
    "omniglot_split",
    "random_affine",
    "random_crop",
    "random_halves",
    "read_ahead",
    "read_cache",
    "read_excluded",
    "read_halves",
    "resident",
    "rotations",
    "shrunk",
    "shuffled",
    "stream",
    "tfds_photos",
    "to_float",
    "write_cache",
]
