import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import compilation

ONE = jnp.eye(3)


def _square_norms(rows):
    return jax.vmap(lambda row: ((ONE @ row) ** 2).sum())(rows)


def _broadcast_sum(column):
    return jnp.broadcast_to(column, (2, 1024, 1024)).sum()


@pytest.mark.parametrize("n", [32_769, 40_000])
def test_square_norms_of_many_rows_are_right(n):
    """With plain `jax.jit`, jaxlib 0.10.2 gets the last n - 32768 wrong (jax#39103)."""
    rows = np.random.default_rng(0).normal(1, 1, (n, 3)).astype(np.float32)
    expected = (rows.astype(np.float64) ** 2).sum(axis=1)
    ours = compilation.jit(_square_norms)(rows)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_sum_of_a_broadcast_array_is_right():
    """With plain `jax.jit`, jaxlib 0.10.2 is off by up to 6%, at random."""
    call = compilation.jit(_broadcast_sum)
    column = jnp.ones((1024, 1))
    assert {float(call(column)) for _ in range(30)} == {2.0**21}


@pytest.mark.parametrize("shape", [(32_769, 3), (32_769, 64), (300_001, 3)])
@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_large_sums_and_means_are_right(rng, shape, axis):
    x = rng.normal(1, 1, shape).astype(np.float32)
    both = compilation.jit(lambda x: (x.sum(axis), (x * x).mean(axis)))
    wide = x.astype(np.float64)
    expected = wide.sum(axis), (wide * wide).mean(axis)
    for ours, theirs in zip(both(x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_options_are_those_under_which_known_failures_are_right():
    options = compilation.compiler_options("cpu")
    assert compilation.reductions_are_right(options)
    (option,) = options
    assert compilation.is_known(options)
    assert not compilation.is_known({option: "no such value"})
    assert not compilation.is_known({"xla_cpu_no_such_option": "1"})
    # The fastest one that is right: convolutions are never the library's.
    fastest = {option: "LIBRARY_FUSION_TYPE_REDUCE"}
    assert (options == fastest) == compilation.reductions_are_right(fastest)


@pytest.fixture
def fresh_probe():
    compilation._cpu_options.cache_clear()
    yield
    compilation._cpu_options.cache_clear()


@pytest.mark.parametrize("right", [True, False])
def test_an_unknown_option_or_one_that_cures_nothing_is_not_used(
    monkeypatch, fresh_probe, right
):
    name = "is_known" if right else "reductions_are_right"
    monkeypatch.setattr(compilation, name, lambda options: False)
    assert compilation.compiler_options("cpu") == {}
    assert compilation.jit(jnp.sum)(jnp.ones(3)) == 3


def test_the_probe_runs_once_and_not_before_the_first_call(monkeypatch, fresh_probe):
    probed = []

    def right(options):
        probed.append(options)
        return True

    monkeypatch.setattr(compilation, "reductions_are_right", right)
    calls = [compilation.jit(lambda x, i=i: x + i) for i in range(3)]
    assert probed == []
    assert [float(call(1.0)) for call in calls] == [1.0, 2.0, 3.0]
    assert len(probed) == 1


def test_accelerators_get_no_options(monkeypatch):
    assert compilation.compiler_options("gpu") == {}
    seen = []
    real = jax.jit

    def watched(function, **options):
        seen.append(options.get("compiler_options"))
        return real(function, **options)

    monkeypatch.setattr(jax, "jit", watched)
    for platform in ("tpu", "cpu"):
        compilation.jit(lambda x: x + 1, platform=platform)(1.0)
        assert seen.pop() == compilation.compiler_options(platform)


def test_within_a_compiled_function_it_is_part_of_that():
    """JAX refuses compiler options of an inner `jit`."""
    inner = compilation.jit(lambda x: (x**2).sum())
    x = jnp.arange(3.0)
    assert jax.jit(lambda x: inner(x) + 1)(x) == 6
    assert compilation.jit(lambda x: inner(x) + 1)(x) == 6
    # With a constant argument too.
    assert jax.jit(lambda y: inner(np.arange(3.0)) + y)(1.0) == 6
    np.testing.assert_array_equal(jax.grad(inner)(x), 2 * x)
    np.testing.assert_array_equal(jax.jit(jax.grad(inner))(x), 2 * x)
    np.testing.assert_array_equal(jax.vmap(inner)(jnp.eye(2)), 1)
    _, scanned = jax.lax.scan(lambda c, x: (c, inner(x)), 0.0, jnp.eye(2))
    np.testing.assert_array_equal(scanned, 1)
    assert inner.compilations == 0


def test_options_and_attributes_of_jit_are_kept():
    @compilation.jit
    def documented(x):
        """What it does."""
        return x

    assert documented.__doc__ == "What it does." and documented(2) == 2
    powers = compilation.jit(lambda x, n: x**n, static_argnames="n")
    assert powers(2.0, n=3) == 8
    x = jnp.ones(8)
    compilation.jit(lambda x: x + 1, donate_argnums=0)(x)
    assert x.is_deleted()
    assert "add" in compilation.jit(lambda x: x + 1).lower(1.0).as_text()
    assert compilation.jit(lambda x: x + 1).lower(1.0).compile()(1.0) == 2
    with pytest.raises(AttributeError):
        documented.no_such_attribute  # noqa: B018


def test_every_program_is_counted_once():
    call = compilation.jit(lambda x, n=1: x * n, static_argnames="n")
    for size in (3, 4):
        for _ in range(2):
            call(jnp.ones(size))
            jnp.ones(size) @ jnp.ones(size)
    assert call.compilations == 2
    call(jnp.ones(3), n=2)
    assert call.compilations == 3
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    for _ in range(2):
        call(jax.device_put(jnp.ones(4), sharding))
    assert call.compilations == 4


def test_a_call_within_another_call_counts_for_its_own_function():
    inner = compilation.jit(lambda x: x + 1)

    def host(x):
        return np.asarray(inner(np.asarray(x)))

    result = jax.ShapeDtypeStruct((), jnp.float32)
    outer = compilation.jit(lambda x: jax.pure_callback(host, result, x) * 2)
    assert outer(jnp.float32(1)) == 4
    assert (outer.compilations, inner.compilations) == (1, 1)


def test_importing_jaxfer_compiles_nothing():
    code = (
        "import jax, sys\n"
        "def fail(event, duration, **about):\n"
        "    assert 'backend_compile' not in event, about\n"
        "jax.monitoring.register_event_duration_secs_listener(fail)\n"
        "import jaxfer.steps, jaxfer.compilation, jaxfer.nets\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_threads_that_call_first_compile_once():
    compiled = compilation.jit(lambda x: jnp.linalg.inv(x @ x + jnp.eye(30)).sum())
    start, values = threading.Barrier(4), []

    def call():
        start.wait()
        values.append(float(compiled(jnp.ones((30, 30)))))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiled.compilations == 1 and len(set(values)) == 1
