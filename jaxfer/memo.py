"""Values made once: a cache of a function that several threads may call."""

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def memoised(size: int) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Keep the last values of a function, each made once whichever thread asks first.

    `functools.lru_cache` alone may call the function twice for threads that ask at the
    same time. What is made of both values, such as compiled programs, would then be
    made twice too.

    Args:
        size: values kept at most; the one not used for the longest time leaves first.

    Returns:
        The decorator; the decorated function has `cache_clear`.

    Example:
        >>> @memoised(2)
        ... def squared(x):
        ...     print("computed")
        ...     return x * x
        >>> squared(3), squared(3)
        computed
        (9, 9)
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        lock, kept = threading.RLock(), functools.lru_cache(size)(function)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with lock:
                return kept(*args, **kwargs)  # type: ignore[arg-type]

        setattr(call, "cache_clear", kept.cache_clear)  # noqa: B010
        return call

    return decorate
