"""Transfer and few-shot learning in JAX.

The building blocks are here by name; the rooms they live in (`jaxfer.nets`,
`jaxfer.data`, `jaxfer.steps`, ...) hold the rest. Each loads on first use, so that what
only reads data never imports JAX.
"""

import lazy_loader

# The names stand in __init__.pyi, once, for readers, type checkers and Python alike.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
