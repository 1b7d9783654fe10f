"""Requests to stop: SIGINT (Ctrl-C) and SIGTERM.

Training finishes its running calls and saves (`stop_requests`); what comes before and
after it stops at once (`interruptible`).
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from jaxfer import distributed

# The event of the main thread, which alone may handle signals; all threads share it.
_active: threading.Event | None = None


class AllStopped(KeyboardInterrupt):
    """All processes of a run stopped at the same step, with the state saved."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt`, as SIGINT does.

    On other threads than the main one, this does nothing.

    Example:
        >>> try:
        ...     with interruptible():
        ...         signal.raise_signal(signal.SIGTERM)
        ... except KeyboardInterrupt as e:
        ...     print(e)
        stopped by SIGTERM
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt("stopped by SIGTERM")

    def again(ignored: Any) -> None:
        # Python ignores what a signal raises while an object is deleted.
        if isinstance(ignored.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            hook(ignored)

    handlers = {signal.SIGINT: signal.default_int_handler}
    handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGALRM), stop)
    before = {s: signal.signal(s, handler) for s, handler in handlers.items()}
    hook, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in before.items():
            signal.signal(s, handler)


def exit_after(main: Callable[[], int]) -> NoReturn:
    """Run a command line and exit with its code; Ctrl-C then has no effect any more.

    Python would print a traceback, although all is done and saved.

    Args:
        main: the command line; it may also raise `SystemExit`.
    """
    try:
        code = main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Handle SIGINT and SIGTERM as requests to stop, in place of their usual effect.

    The second signal has its usual effect. A nested context, on the same thread or on
    another, yields the same object. With several processes, JAX handles SIGTERM (see
    `distributed.tell_all`), and this only SIGINT.

    Yields:
        An event that is set once a stop is requested; a program may set it too.

    Example:
        >>> with stop_requests() as stop_requested:
        ...     stop_requested.is_set()
        False
    """
    global _active
    if _active is not None:
        yield _active
        return
    requests = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    alone = distributed.count() == 1
    handled = (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,)
    before = {s: signal.getsignal(s) for s in handled}

    def ask(signum: int, frame: Any) -> None:
        requests.set()
        for s, handler in before.items():
            signal.signal(s, handler)

    _active = requests
    for s in before:
        signal.signal(s, ask)
    try:
        with distributed.tell_all():
            yield requests
    finally:
        _active = None
        for s, handler in before.items():
            signal.signal(s, handler)
