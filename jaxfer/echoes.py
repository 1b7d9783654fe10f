"""Hide the tracebacks of libraries' threads for errors that are reported elsewhere.

When a disk is full, the call that needed it fails, and so do the threads and the exit
handlers of libraries, which print tracebacks of the same error.
"""

import atexit
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def echoes_hidden() -> Iterator[None]:
    """Print one line for an error of files in another thread than the main one.

    If the context ends with an error of input or of files, exit handlers print none
    either.
    """
    ignored, others = sys.unraisablehook, threading.excepthook

    def of_callback(args: Any) -> None:
        # TensorStore ends a write that asyncio has given up, as others have failed.
        if f"{args.exc_value}" != "Event loop is closed":
            ignored(args)

    def of_thread(args: Any) -> None:
        if isinstance(args.exc_value, OSError):
            print(f"a thread of a library ended: {args.exc_value}", file=sys.stderr)
        else:
            others(args)

    sys.unraisablehook, threading.excepthook = of_callback, of_thread
    try:
        yield
    except SystemExit as e:
        if e.code == 2:
            # It runs before the handlers that were registered earlier.
            atexit.register(_hide_all)
        raise
    finally:
        sys.unraisablehook, threading.excepthook = ignored, others


def _hide_all() -> None:
    def nothing(*args: Any) -> None:
        del args

    sys.unraisablehook = threading.excepthook = nothing


def first_line(error: Exception) -> str:
    """What an error of JAX or of its libraries says first; its type if nothing.

    Example:
        >>> first_line(ValueError("one\\ntwo")), first_line(KeyError())
        ('one', 'KeyError')
    """
    return str(error).partition("\n")[0] or type(error).__name__
