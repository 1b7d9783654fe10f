"""Several processes of one run: the only module with jax.distributed.

Every process runs the same program. Arrays of a mesh are shared by all of them (see
`jaxfer.sharding`); files are written by process 0.
"""

import atexit
import ctypes
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxfer.clusters import PLACES, Start, find_start, own_gpus, take_gpus
from jaxfer.echoes import first_line
from jaxfer.threads import in_thread
from jaxfer.threads import start as start_thread

T = TypeVar("T")

# Seconds that processes wait for each other; big clusters take minutes to start.
WAIT_S = 1800
# How long they wait for the start of this run: the time-out given to `initialize`.
_start_s: float = WAIT_S
# Numbers of waits and polls, which all processes make in the same order.
_waits, _polls = itertools.count(), itertools.count()
# Set once the other processes were told of a request to stop.
_told = threading.Event()
# The key that a process sets to stop the others, and the seconds between looks at it.
_STOPPED, _LOOK_S = "jaxfer/stopped", 0.5
# Seconds until process 0 and others end once one was asked to stop, or has failed.
_STOP_S, _FAIL_S = (4.0, 2.0), (20.0, 10.0)
# Set once this process ends.
_leaving = threading.Event()
# Set once this process looks for the others, and once it has found them.
_joining, _joined = threading.Event(), threading.Event()
# How JAX handles SIGTERM: a struct sigaction of the C library, at most 512 bytes.
_jax_handler: Any = None
_ACTION_BYTES = 512


class Elsewhere(ValueError):
    """An error of process 0, which reports it; the others only stop."""


def begin(places: Mapping[str, str], *, together: bool, **how: Any) -> str:
    """Join the other processes of a run, or take some of the GPUs of a host.

    Args:
        places: variables JAX_... that take precedence over those of the environment.
        together: whether all processes train one model.
        how: arguments of `initialize`.

    Returns:
        A line that says what was found; empty for one process.

    Raises:
        ValueError: variables that do not say where the process is, or a process that
            cannot join the others.

    Example:
        >>> begin({}, together=True)
        ''
    """
    if places and not together:
        raise ValueError(
            f"expected no place of the process, got {dict(places)}: the processes of a "
            "study work on their own"
        )
    environ = {**os.environ, **places}
    if places and (lost := [name for name in PLACES if name not in environ]):
        raise ValueError(
            f"expected {', '.join(PLACES)} as options or variables, got none of {lost}"
        )
    start = find_start(environ)
    if together:
        return initialize(start, **how)
    return take_gpus(start) if start else ""


def initialize(
    start: Start | None,
    *,
    timeout: int = WAIT_S,
    stopped: Callable[[], None] = lambda: None,
) -> str:
    """Join the other processes of a run; call it before anything uses a device.

    If they do not all start in time, it says so on stderr and ends the process with
    exit code 2, since JAX would abort it.

    Args:
        start: how the processes were started; None for one process.
        timeout: seconds to wait until all processes have started, and the default of
            `barrier`.
        stopped: called before this process ends since another one was asked to stop.

    Returns:
        A line that says which cluster was found, the number of processes and devices,
        and which device each process takes.

    Raises:
        ValueError: an address that cannot be used, or GPUs that cannot be shared.

    Example:
        >>> initialize(None)
        ''
    """
    global _start_s
    if start is None:
        return ""
    _joining.set()
    _start_s = timeout
    gpus = None if os.environ.get("JAX_PLATFORMS") == "cpu" else own_gpus(start)
    place = start.coordinator or "the coordinator"

    def give_up() -> None:
        print(
            f"error: process {start.index} of {start.count} ({start.cluster}) waited "
            f"{timeout} s at {place} for the others: start all of them, with the same "
            "address, or raise --start-timeout",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    waiting = threading.Timer(timeout, give_up)
    waiting.start()
    try:
        in_thread(
            lambda: jax.distributed.initialize(
                start.coordinator,
                start.count,
                start.index,
                local_device_ids=gpus,
                cluster_detection_method="deactivate" if start.coordinator else None,
                # Later than the other, so that the process is not aborted in silence.
                initialization_timeout=timeout + 60,
            )
        )
        _take_handler()
        _joined.set()
        watching = start_thread(lambda: _watch(stopped))
        # Before Python ends, which would crash a thread within JAX.
        atexit.register(lambda: (_leaving.set(), watching.join(5)))
    except (RuntimeError, ValueError) as e:
        raise ValueError(
            f"process {start.index} of {start.count} ({start.cluster}) cannot join the "
            f"others at {place}: {first_line(e)}"
        ) from e
    finally:
        waiting.cancel()
    device, *_ = jax.local_devices()
    mine = f"{socket.gethostname()}: {len(jax.local_devices())} x {device.device_kind}"
    if gpus and device.platform == "gpu":
        mine += f", GPU {' '.join(map(str, gpus))} of those it sees"
    taken, devices = share(mine), jax.device_count()
    each = "; ".join(f"{i} on {where}" for i, where in enumerate(taken))
    return (
        f"{start.cluster}: {start.count} process{'es' if start.count > 1 else ''}, "
        f"{devices} device{'s' if devices > 1 else ''} ({each})"
    )


def _take_handler() -> None:
    """Keep JAX's handler of SIGTERM for `tell_all`, and put that of Python back."""
    global _jax_handler
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        return
    _jax_handler = ctypes.create_string_buffer(_ACTION_BYTES)
    ctypes.CDLL(None).sigaction(signal.SIGTERM, None, _jax_handler)
    signal.signal(signal.SIGTERM, handler)


@contextmanager
def tell_all() -> Iterator[None]:
    """Within this context, SIGTERM is a request that `stop_now` tells all processes."""
    if _jax_handler is None:
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    ctypes.CDLL(None).sigaction(signal.SIGTERM, _jax_handler, None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def leave(code: int, *, stop: bool = False) -> None:
    """End this process soon, even if JAX waits for the others; not if it is alone.

    They may not know that this one ends. Process 0, which JAX needs, ends last.

    Args:
        code: the exit code.
        stop: whether the others stop as well, as by SIGTERM, and this one ends here;
            otherwise it may still end by itself.
    """
    if not _joining.is_set():
        return
    _leaving.set()
    if stop:
        if _joined.is_set():
            # Those of the other processes and of a launcher come too late.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with suppress(jax.errors.JaxRuntimeError):
                _client().key_value_set(_STOPPED, "", allow_overwrite=True)
            time.sleep(_STOP_S[index() > 0])
        # Not by the end of Python, which threads that wait would crash.
        _exit(code)
    if _joined.is_set():
        start_thread(lambda: _exit(code), after=_FAIL_S[index() > 0])


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _watch(stopped: Callable[[], None]) -> None:
    """Stop this process once another one that was asked to stop has told it."""
    client = _client()
    while True:
        if _leaving.wait(_LOOK_S):
            return
        try:
            client.key_value_try_get(_STOPPED)
            break
        except jax.errors.JaxRuntimeError as e:
            if "NOT_FOUND" not in str(e):
                return
    os.kill(os.getpid(), signal.SIGTERM)
    # The main thread may wait for the other process in a collective, without end.
    if not _leaving.wait(_STOP_S[index() > 0]):
        stopped()
        _exit(130)


def index() -> int:
    """The number of this process, 0 if it is alone.

    Example:
        >>> index()
        0
    """
    return jax.process_index() if jax.distributed.is_initialized() else 0


def count() -> int:
    """The number of processes of the run.

    Example:
        >>> count()
        1
    """
    return jax.process_count() if jax.distributed.is_initialized() else 1


def barrier(name: str, *, timeout: float | None = None) -> None:
    """Wait until all processes are at the same place.

    Args:
        name: what they wait for, for the message.
        timeout: seconds to wait; default: those given to `initialize`.

    Raises:
        ValueError: processes that did not come; the message has their numbers.

    Example:
        >>> barrier("an example")
    """
    if count() == 1:
        return
    timeout = _start_s if timeout is None else timeout
    client, place = _client(), f"jaxfer/barrier/{next(_waits)}"
    client.key_value_set(f"{place}/{index()}", "")
    try:
        in_thread(lambda: client.wait_at_barrier(place, int(1000 * timeout)))
    except jax.errors.JaxRuntimeError as e:
        came = {
            int(key.rpartition("/")[2]) for key, _ in client.key_value_dir_get(place)
        }
        lost = sorted({*range(count())} - came)
        raise ValueError(
            f"expected all {count()} processes at {name} within {timeout:g} s, "
            + (f"got nothing from {lost}" if lost else f"got: {first_line(e)[:200]}")
        ) from e


def on_first(function: Callable[[], T]) -> T:
    """The result of a function that only process 0 calls, such as one that writes.

    Args:
        function: it returns what JSON can hold. The other processes wait for it for
            half an hour.

    Raises:
        ValueError: an error of the function; the other processes raise `Elsewhere`.

    Example:
        >>> on_first(lambda: 3)
        3
    """
    if count() == 1:
        return function()
    client, place = _client(), f"jaxfer/first/{next(_waits)}"
    if index():
        ok, found = json.loads(_value_of(place, 0, WAIT_S))
        if not ok:
            raise Elsewhere(found)
        return found
    try:
        found = function()
    except BaseException as e:
        client.key_value_set(place, json.dumps([False, str(e)]))
        raise
    client.key_value_set(place, json.dumps([True, found]))
    return found


def share(value: Any) -> list[Any]:
    """The values of all processes, in the order of their numbers.

    Args:
        value: what JSON can hold.

    Example:
        >>> share("one")
        ['one']
    """
    if count() == 1:
        return [value]
    place = f"jaxfer/share/{next(_waits)}"
    _client().key_value_set(f"{place}/{index()}", json.dumps(value))
    values = [_value_of(f"{place}/{i}", i, _start_s) for i in range(count())]
    return [json.loads(value) for value in values]


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, one after another; each has the same number.

    Example:
        >>> gather_rows(np.arange(3)).tolist()
        [0, 1, 2]
    """
    return rows if count() == 1 else multihost_utils.process_allgather(rows, tiled=True)


def stop_now(requested: bool) -> bool:
    """Whether all processes stop here, since one of them was asked to.

    With several processes, every process calls it at every step within `tell_all`: JAX
    handles SIGTERM there, and all of them learn of it.

    Args:
        requested: whether this process was asked to stop.

    Example:
        >>> stop_now(True)
        True
    """
    if count() == 1:
        return requested
    if requested and not _told.is_set():
        # Another signal, such as SIGINT: tell the others as SIGTERM does.
        _told.set()
        os.kill(os.getpid(), signal.SIGTERM)
    return multihost_utils.reached_preemption_sync_point(next(_polls))


def _client() -> Any:
    """The client of the coordination service, which JAX offers under no other name."""
    from jax._src import distributed

    return distributed.global_state.client


def _value_of(key: str, process: int, timeout: float) -> str:
    """The value of a key, once a process has set it."""
    get = _client().blocking_key_value_get
    try:
        return in_thread(lambda: get(key, int(1000 * timeout)))
    except jax.errors.JaxRuntimeError as e:
        raise ValueError(
            f"expected process {process} to go on within {timeout:g} s: {first_line(e)}"
        ) from e
