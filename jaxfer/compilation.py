"""`jax.jit` with the compiler options that this backend needs.

On CPU, XLA hands some operations to a library (YNNPACK) in which convolutions are slow
and, in some versions of jaxlib, large reductions are silently wrong (jax#39103). A
compiler option selects the operations that the library gets. The right value is found
by running the known failures under each candidate, once per process, at the first
compiled call.
"""

import contextvars
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core as extend

_OPTION = "xla_cpu_experimental_ynn_fusion_type"
# The operations the library gets, the fastest choice first: reductions only, or none.
_CANDIDATES = ("LIBRARY_FUSION_TYPE_REDUCE", "")
_COMPILED = "/jax/core/compile/backend_compile_duration"
_running = threading.local()
# The platform that the function being traced is compiled for, if it was named.
_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target")


def jit(
    function: Callable[..., Any],
    *,
    platform: str | None = None,
    outermost: bool = False,
    rarely_called: bool = False,
    **options: Any,
) -> "Jitted":
    """Compile a function as `jax.jit` does, with the options this backend needs.

    Args:
        function: the function to compile.
        platform: the platform to compile for, such as "cpu"; default: that of
            `jax.default_backend()` at the first call. Only "cpu" gets options.
        outermost: whether the function is never called within another transformation,
            which saves a check at each call.
        rarely_called: whether calls are so few that compiling takes longer than running
            them. If so, it is compiled with fewer optimisations on CPUs.
        **options: options of `jax.jit`, such as `static_argnames`.

    Returns:
        The compiled function.

    Example:
        >>> double = jit(lambda x: 2 * x)
        >>> double(jnp.ones(2)).tolist(), double.compilations
        ([2.0, 2.0], 1)
    """
    return Jitted(function, platform, outermost, rarely_called, options)


def target() -> str:
    """The platform that a function is traced for: the one named, or JAX's default.

    Example:
        >>> jit(lambda x: x * len(target()), platform="tpu").trace(1.0).jaxpr
        { lambda ; a:f32[]. let b:f32[] = mul a 3.0:f32[] in (b,) }
    """
    return _target.get(None) or jax.default_backend()


def _traced_for(platform: str | None, function: Callable[..., Any]) -> Any:
    """The function, within which `target` is the platform."""
    if platform is None:
        return function

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        token = _target.set(platform)
        try:
            return function(*args, **kwargs)
        finally:
            _target.reset(token)

    return traced


class _OfThread(threading.local):
    """A thread's compilations of a function, and the values of `count` it has used."""

    def __init__(self) -> None:
        self.compilations = 0
        self.counts: set[Any] = set()


class Jitted:
    """A compiled function that counts its compilations, made by `jit`.

    It has the other attributes of a function that `jax.jit` compiled, such as `lower`
    and `trace`. When it is called within another compiled function, it becomes part of
    that function and uses its options.

    Attributes:
        compilations: number of programs that were compiled, or read from JAX's
            persistent cache, for calls so far: one for each combination of shapes,
            types, shardings and static arguments.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        platform: str | None,
        outermost: bool,
        rarely_called: bool,
        options: Mapping[str, Any],
    ) -> None:
        """Store the arguments; nothing is compiled before the first call."""
        functools.update_wrapper(self, function)
        self.compilations = 0
        self._function = _traced_for(platform, function)
        self._platform = platform
        self._outermost = outermost
        self._rarely_called = rarely_called
        self._options = options
        self._compiling = threading.RLock()
        self._thread = _OfThread()

    @property
    def thread_compilations(self) -> int:
        """The number of compilations for calls from the current thread."""
        return self._thread.compilations

    @functools.cached_property
    def _outer(self) -> Any:
        """The function with this backend's options."""
        platform = self._platform or jax.default_backend()
        compiler = compiler_options(platform)
        if self._rarely_called and platform == "cpu":
            compiler |= {"xla_backend_optimization_level": 1}
        return jax.jit(self._function, compiler_options=compiler, **self._options)

    @functools.cached_property
    def _inner(self) -> Any:
        """The function without options, which JAX takes at the outermost level only."""
        return jax.jit(self._function, **self._options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the compiled function."""
        if not self._outermost and _is_traced((args, kwargs)):
            return self._inner(*args, **kwargs)
        known = self._thread.counts
        if (count := kwargs.get("count")) in known:
            return self._call(args, kwargs)
        # Without the lock, two threads that make a first call at once compile twice.
        with self._compiling:
            found = self._call(args, kwargs)
        known.add(count)
        return found

    def _call(self, args: Any, kwargs: Any) -> Any:
        before = getattr(_running, "function", None)
        _running.function = self
        try:
            return self._outer(*args, **kwargs)
        finally:
            _running.function = before

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the function that `jax.jit` made, such as `lower`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._outer, name)


def _is_traced(arguments: Any) -> bool:
    # jax.extend offers this function to other libraries under this name.
    under_jit: Any = getattr(extend, "unsafe_am_i_under_a_jit_DO_NOT_USE")  # noqa: B009
    leaves = jax.tree.leaves(arguments)
    return under_jit() or any(isinstance(x, jax.core.Tracer) for x in leaves)


def compiler_options(platform: str) -> dict[str, str | int]:
    """Return the compiler options for a platform; {} for accelerators.

    Example:
        >>> compiler_options("tpu")
        {}
    """
    return dict(_cpu_options()) if platform == "cpu" else {}


@functools.cache
def _cpu_options() -> Mapping[str, str]:
    for value in _CANDIDATES:
        options = {_OPTION: value}
        if is_known(options) and reductions_are_right(options):
            return options
    return {}


def is_known(options: Mapping[str, str]) -> bool:
    """Return whether this jaxlib's CPU compiler accepts the given options."""
    try:
        _run(lambda x: x + 1, options, np.float32(0))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def reductions_are_right(options: Mapping[str, str] | None) -> bool:
    """Return whether the CPU computes the sums that jaxlib 0.10.2 gets wrong.

    Two failures are known: the square norms of more than 32768 rows of a matrix product
    (jax#39103), and the sum of an array that was broadcast along its last axis
    (tensorflow#126812), which is wrong at random.

    Args:
        options: the compiler options to use; None for XLA's defaults.
    """
    # Integers that float32 represents exactly; all rows differ.
    rows = np.zeros((40_000, 3), np.float32)
    rows[:, 0] = np.arange(len(rows)) % 4096
    rows[:, 1] = np.arange(len(rows)) // 4096
    norms = _run(_square_norms, options, rows)
    if not np.array_equal(norms, (rows.astype(np.float64) ** 2).sum(1)):
        return False
    column = np.ones((1024, 1), np.float32)
    return all(_run(_broadcast_sum, options, column) == 2**21 for _ in range(5))


def _square_norms(rows: jax.Array) -> jax.Array:
    one = jnp.eye(rows.shape[1])
    return jax.vmap(lambda row: ((one @ row) ** 2).sum())(rows)


def _broadcast_sum(column: jax.Array) -> jax.Array:
    return jnp.broadcast_to(column, (2, 1024, 1024)).sum()


def _run(
    function: Callable[[Any], jax.Array],
    options: Mapping[str, str] | None,
    x: np.ndarray | np.float32,
) -> np.ndarray:
    """Return the function's value on the first CPU device."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        compiled = jax.jit(
            function, compiler_options=None if options is None else dict(options)
        )
        return np.asarray(compiled(x))


def _count(event: str, duration_secs: float, **kwargs: Any) -> None:
    function = getattr(_running, "function", None)
    if event == _COMPILED and function is not None:
        function.compilations += 1
        function._thread.compilations += 1


jax.monitoring.register_event_duration_secs_listener(_count)
