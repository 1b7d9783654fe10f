"""Requests to stop: SIGINT (Ctrl-C) and SIGTERM."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Take SIGINT and SIGTERM as requests to stop, in place of their usual effect.

    The second signal has its usual effect. Outside the main thread, where Python lets
    nobody handle signals, nothing changes.

    Yields:
        A function that returns whether a stop was requested.

    Example:
        >>> with stop_requests() as stop_requested:
        ...     stop_requested()
        False
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(signum: int, frame: Any) -> None:
        asked.set()
        for s, handler in before.items():
            signal.signal(s, handler)

    for s in before:
        signal.signal(s, ask)
    try:
        yield asked.is_set
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
