from .arrays import from_arrays
from .attributes import ClassAttributes, load_attributes, scaled_attributes
from .augment import (
    Affine,
    Crop,
    Jitter,
    augmented,
    centre_crop,
    draw_crop,
    random_affine,
    random_crop,
)
from .bank import Bank, load_bank, save_bank
from .cache import read_cache, write_cache
from .cifar import cifar100
from .class_splits import (
    background_split,
    class_lists,
    glyphs_split,
    omniglot_split,
    random_class_split,
    split_by_parts,
)
from .feed import Source, in_blocks, place
from .folders import image_folder, loose_images, undivided_images
from .glyphs import glyphs
from .halves import Halves, halve, random_halves, read_halves
from .images import Images, greyscale, read_images, rotations, shrunk
from .lists import read_excluded
from .loading import load, load_all
from .omniglot import omniglot
from .order import shuffled
from .photos import Photos, tfds_photos
from .resident import Resident, draw, fetch, floats, resident, to_float
from .sampling import Sampler, draw_batch
from .splits import (
    at_most_per_class,
    base_and_novel,
    few_examples,
    official_split,
    split_by_drawer,
)
from .streamed import Drawn, read_ahead, stream
from .view import View

__all__ = [
    "Affine",
    "Bank",
    "ClassAttributes",
    "Crop",
    "Drawn",
    "Halves",
    "Images",
    "Jitter",
    "Photos",
    "Resident",
    "Sampler",
    "Source",
    "View",
    "at_most_per_class",
    "augmented",
    "background_split",
    "base_and_novel",
    "centre_crop",
    "cifar100",
    "class_lists",
    "draw",
    "draw_batch",
    "draw_crop",
    "fetch",
    "few_examples",
    "floats",
    "from_arrays",
    "glyphs",
    "glyphs_split",
    "greyscale",
    "halve",
    "image_folder",
    "in_blocks",
    "load",
    "load_all",
    "load_attributes",
    "load_bank",
    "loose_images",
    "official_split",
    "omniglot",
    "omniglot_split",
    "place",
    "random_affine",
    "random_class_split",
    "random_crop",
    "random_halves",
    "read_ahead",
    "read_cache",
    "read_excluded",
    "read_halves",
    "read_images",
    "resident",
    "rotations",
    "save_bank",
    "scaled_attributes",
    "shrunk",
    "shuffled",
    "split_by_drawer",
    "split_by_parts",
    "stream",
    "tfds_photos",
    "to_float",
    "undivided_images",
    "write_cache",
]
