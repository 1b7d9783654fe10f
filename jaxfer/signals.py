"""Requests to stop: SIGINT (Ctrl-C) and SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequests:
    """A flag that says whether a stop was requested, by a signal or by the program."""

    def __init__(self) -> None:
        """Start without a request."""
        self._asked = threading.Event()

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Request a stop of everything that checks this object."""
        self._asked.set()


# Set by the main thread, which alone may handle signals; other threads read it too.
_active: StopRequests | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Handle SIGINT and SIGTERM as requests to stop, in place of their usual effect.

    The second signal has its usual effect. A nested context, on the same thread or on
    another, yields the same object.

    Yields:
        A function that returns whether a stop was requested.

    Example:
        >>> with stop_requests() as stop_requested:
        ...     stop_requested()
        False
    """
    global _active
    if _active is not None:
        yield _active
        return
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(signum: int, frame: Any) -> None:
        requests.ask()
        for s, handler in before.items():
            signal.signal(s, handler)

    _active = requests
    for s in before:
        signal.signal(s, ask)
    try:
        yield requests
    finally:
        _active = None
        for s, handler in before.items():
            signal.signal(s, handler)
