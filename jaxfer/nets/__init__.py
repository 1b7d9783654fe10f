"""Networks, each a frozen dataclass with `build() -> Net`; only this package uses flax.

A network has no classifier: it maps images to embeddings, and a head classifies them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
