"""The names that other libraries give to the weights of a network."""

from collections.abc import Mapping
from typing import NamedTuple


class Names(NamedTuple):
    """How a library names the weights of an architecture.

    An architecture lists the libraries that it knows in a method `names()`.

    Attributes:
        library: the library, such as 'torchvision'.
        modules: the name in the library of each module, such as {'block1/conv1':
            'layer1.0.conv1'}; a parameter without a module is named itself.
        head: the name of the classifier.
        unused: beginnings of names that have no counterpart here, such as those of
            classifiers that are used in training only.
    """

    library: str
    modules: Mapping[str, str]
    head: str
    unused: tuple[str, ...] = ()
