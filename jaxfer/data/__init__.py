"""Data: sources, splits, the array cache, and the pipelines that feed episodes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
