"""A cache for the values of a function that several threads may call."""

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def memoised(size: int) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Cache the last values of a function, each computed once for all threads.

    `functools.lru_cache` alone may call the function twice for threads that ask at the
    same time. Objects that depend on the value, such as compiled programs, would then
    be made twice too.

    Args:
        size: the maximum number of values; the least recently used one is dropped.

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
