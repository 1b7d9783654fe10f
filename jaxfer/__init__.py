"""Transfer and few-shot learning in JAX.

The main building blocks can be imported from here by name; the modules that define
them (`jaxfer.nets`, `jaxfer.data`, `jaxfer.steps`, ...) hold the rest. Each module
loads on first use, so that code that only reads data never imports JAX.
"""

import lazy_loader

# The names are listed once, in __init__.pyi, for type checkers and for Python.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
