"""What XLA is told, and where being deterministic is dear."""

import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import shoal
from shoal import compiling
from shoal.traced import scatters


def test_only_a_gpu_may_be_let_off():
    told = {backend: compiling.compiler_options(backend) for backend in ("cpu", "gpu", "tpu")}
    assert told == {**compiling.COMPILER_OPTIONS, "tpu": {}}
    with compiling.deterministic(False):
        assert compiling.compiler_options("gpu") == {}
        assert compiling.compiler_options("cpu") == told["cpu"]
        assert not compiling.is_deterministic()
    assert compiling.is_deterministic()


def test_who_asks_for_no_optimisation_gets_none():
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        assert compiling.LEVEL not in compiling.compiler_options("cpu")
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    assert compiling.LEVEL in compiling.compiler_options("cpu")


def test_a_program_for_many_calls(compile_counter):
    double = compiling.compiled(lambda x, power: 2 * x**power)
    with compile_counter:
        bound = double.bound(np.ones(3, np.float32), 2)
        for size in (1.0, 3.0):
            np.testing.assert_array_equal(bound(np.full(3, size, np.float32), 2), 2 * size**2)
    assert compile_counter.count == 1


def test_other_options_make_another_program(compile_counter, monkeypatch):
    """An option that a session changes must not be answered by a program compiled with others."""
    double = compiling.compiled(lambda x: 2 * x)
    x = np.ones(3, np.float32)
    double(x)
    monkeypatch.setitem(compiling.COMPILER_OPTIONS, "cpu", {})
    with compile_counter:
        double(x)
        double(x)
    assert compile_counter.count == 1


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(compiling, "cores", lambda: 2)


def test_what_was_compiled_ahead_is_not_compiled_again(compile_counter, two_cores):
    double = compiling.compiled(lambda x, power: 2 * x**power)
    x, other = jnp.ones(3), jnp.zeros(3)
    with compiling.background(), compile_counter:
        double.ahead(x, 3)
        np.testing.assert_array_equal(double(x, 3), 2.0)
        double(other, 3)
        assert compile_counter.count == 1
        double(x, 2)  # what is not an array is compiled in
    assert compile_counter.count == 2


def test_what_was_compiled_ahead_is_kept_though_nobody_called_it(compile_counter, two_cores):
    """As when a run is stopped before it samples, and another one follows."""
    double, x = compiling.compiled(lambda x: 2 * x), jnp.ones(3)
    with compiling.background():
        double.ahead(x)
        (begun,) = compiling._background.get().begun.values()
        begun.future.result()
    with compile_counter:
        np.testing.assert_array_equal(double(x), 2.0)
    assert compile_counter.count == 0


@pytest.mark.parametrize("devices", [1, 4])
def test_a_program_takes_what_it_has_returned(devices, compile_counter):
    """Shardings that say the same are said in several ways: XLA says of a single device that nothing is split."""
    mesh = Mesh(np.array(jax.devices()[:devices]).reshape(1, devices), ("data", "chains"))
    split = NamedSharding(mesh, PartitionSpec("chains", None))
    double = compiling.compiled(lambda x: jax.lax.with_sharding_constraint(2 * x, split))
    x = jax.device_put(np.ones((4, 3), np.float32), split)
    with compile_counter:
        for same in (PartitionSpec(("data", "chains")), PartitionSpec("chains", "data")):
            np.testing.assert_array_equal(double(double(x)), 4.0)
            x = jax.device_put(x, NamedSharding(mesh, same))
        assert compile_counter.count == 1
        double(jax.device_put(x, NamedSharding(mesh, PartitionSpec())))
    assert compile_counter.count == {1: 1, 4: 2}[devices]


def test_nothing_is_compiled_ahead_without_another_core(compile_counter, monkeypatch):
    monkeypatch.setattr(compiling, "cores", lambda: 1)
    double = compiling.compiled(lambda x: 2 * x)
    x = jnp.ones(3)
    with compile_counter:
        double.ahead(x)
        with compiling.background():
            double.ahead(x)
    assert compile_counter.count == 0


def test_a_failure_ahead_is_that_of_the_call(two_cores, monkeypatch):
    double = compiling.compiled(lambda x: 2 * x)
    x = jnp.ones(3)
    monkeypatch.setitem(compiling.COMPILER_OPTIONS, "cpu", {"xla_no_such_option": True})
    with compiling.background():
        double.ahead(x)
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
            double(x)


def test_leaving_drops_what_has_not_begun(two_cores):
    begun = threading.Event()
    try:
        with compiling.background():
            workers = compiling._background.get().workers
            workers.submit(begun.wait)
            queued = workers.submit(lambda: None)
        assert queued.cancelled()
    finally:
        begun.set()


def test_what_waits_for_others_is_compiled_by_the_call(two_cores, monkeypatch):
    begun = threading.Event()
    double, x = compiling.compiled(lambda x: 2 * x), jnp.ones(3)
    try:
        with compiling.background():
            compiling._background.get().workers.submit(begun.wait)
            double.ahead(x)
            monkeypatch.setattr(double, "_traced", lambda *of: pytest.fail("traced again"))
            np.testing.assert_array_equal(double(x), 2.0)  # though the worker never gets to it
    finally:
        begun.set()


GROUP = np.arange(12) % 3


def log_density(indexed: bool):
    def density(params):
        level = params["level"]
        return -0.5 * jnp.square((level[GROUP] if indexed else level.repeat(4)) - 1.0).sum()

    return density


def test_a_single_term_is_no_sum():
    model = shoal.Model(
        params={"level": shoal.real(3)}, log_density=lambda p: -0.5 * (p["level"].at[1].add(2.0) ** 2).sum()
    )
    assert not scatters(model.target(np.float32), np.float32)


@pytest.mark.parametrize("indexed", [True, False])
def test_models_that_index_their_parameters_are_told_of_the_price(indexed, monkeypatch, recwarn):
    model = shoal.Model(params={"level": shoal.real(3)}, log_density=log_density(indexed))
    target = model.target(np.float32)
    assert scatters(target, np.float32) == indexed
    compiling.warn_of_slow_sums(target, np.float32, 4096)
    assert not recwarn.list  # on a CPU it costs nothing
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    compiling.warn_of_slow_sums(target, np.float32, 128)
    with compiling.deterministic(False):
        compiling.warn_of_slow_sums(target, np.float32, 4096)
    assert not recwarn.list
    compiling.warn_of_slow_sums(target, np.float32, 4096)
    assert len(recwarn.list) == int(indexed)


def test_scatter_inside_a_loop_is_seen():
    def density(params):
        step = lambda total, rows: (total - 0.5 * ((params["level"][rows] - 1.0) ** 2).sum(), None)
        return jax.lax.scan(step, 0.0, jnp.asarray(GROUP).reshape(2, 6))[0]

    target = shoal.Model(params={"level": shoal.real(3)}, log_density=density).target(np.float32)
    assert scatters(target, np.float32)


def test_garbage_is_looked_for_as_before_afterwards(monkeypatch):
    """Also where the user looks less often, or never, or has changed it meanwhile."""
    usual = gc.get_threshold()
    try:
        for before in ((700, 10, 10), (compiling.OBJECTS + 1, 5, 5), (0, 10, 10)):
            gc.set_threshold(*before)
            with compiling.collecting_seldom():
                assert gc.get_threshold() == (max(before[0], compiling.OBJECTS) if before[0] else 0, *before[1:])
            assert gc.get_threshold() == before
        gc.set_threshold(700, 10, 10)
        with compiling.collecting_seldom():
            gc.set_threshold(1000, 10, 10)
        assert gc.get_threshold() == (1000, 10, 10)
    finally:
        gc.set_threshold(*usual)


def test_the_operation_that_made_a_nan_is_told():
    """As JAX tells it of its own programs, where it is asked to."""
    root = compiling.compiled(lambda x: jnp.sqrt(x) + 1.0)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="sqrt"):
        root(-jnp.ones(()))
    assert np.isnan(root(-jnp.ones(())))


def test_doubles_are_what_jax_makes_of_them():
    """Arrays of NumPy and of JAX that are of one dtype there may not be of one here."""
    negative = compiling.compiled(lambda x: -x)
    with jax.enable_x64(True):
        long = jnp.ones(3, jnp.float64)
    assert negative(np.ones(3)).dtype == np.float32
    assert negative(long).dtype == np.float64
