"""Calls in other threads, which leave the main one free to handle signals."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> T:
    """The result of a function that another thread calls.

    Python handles a signal only when the main thread returns from library code; here it
    waits in short turns.

    Example:
        >>> in_thread(lambda: 3)
        3
    """
    called: Future[T] = Future()

    def call() -> None:
        try:
            called.set_result(function())
        except BaseException as e:
            called.set_exception(e)

    thread = start(call)
    while thread.is_alive():
        thread.join(0.1)
    return called.result()


def start(function: Callable[[], Any], *, after: float = 0.0) -> threading.Thread:
    """Start a thread that does not keep the process alive.

    Args:
        function: what it calls.
        after: seconds until then.

    Example:
        >>> start(lambda: print("called")).join()
        called
    """
    thread = threading.Timer(after, function)
    thread.daemon = True
    thread.start()
    return thread
