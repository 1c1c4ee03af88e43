"""Programs that another process takes without tracing: the same ones where all is the same, and others otherwise."""

import functools
import pickle
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("filelock")
pytest.importorskip("platformdirs")

import shoal
from shoal import compiling, executables, fingerprint
from shoal.adaptation import Fixed
from shoal.compile_cache import MOST_BYTES_TRACED, SUFFIX, VARIABLE, kept_programs, place
from shoal.compiling import COMPILER_OPTIONS, compiled
from shoal.dynamics.integrators import TWO_LEAPFROGS
from shoal.kernels import HMC, NUTS, JitteredHMC
from shoal.mesh import Placement
from shoal.models.model import Model
from shoal.program import KeepDraws, Program

TRACED = "/jax/core/compile/jaxpr_trace_duration"


def model(scale=2.0, size=3, table=None, **kwargs):
    """Made anew at every call, as another process would."""
    table = np.arange(size, dtype=np.float32) if table is None else table

    def log_density(params, data):
        return -0.5 * jnp.sum(((params["x"] - table - data["y"]) / scale) ** 2)

    data = {"y": np.float32(kwargs.pop("y", 0.5))}
    return Model(params={"x": shoal.real(size)}, log_density=log_density, data=data, **kwargs)


def with_rule(factor):
    """A log density whose derivative is a rule of the user's."""

    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (factor * x * g,))
    return Model(params={"x": shoal.real(3)}, log_density=lambda p: -jnp.sum(square(p["x"])))


def key(model=None, kernel=None, keep=None, chains=64, options=(), dtype=np.float32):
    model = globals()["model"]() if model is None else model
    program = Program(model.target(dtype), HMC() if kernel is None else kernel, Fixed(), {}, keep or KeepDraws())
    arguments = (program, jnp.zeros((), dtype), Placement.of(chains).layout)
    return fingerprint.fingerprint(run._advance, arguments, options)


def test_what_is_made_again_has_the_same_hash():
    assert key() == key() is not None
    assert key(with_rule(2.0)) == key(with_rule(2.0)) is not None
    assert key(model(y=0.5)) == key(model(y=7.0))  # the values of data are arguments


LONG = np.zeros(5000, np.float32)
CHANGED = LONG.copy()
CHANGED[2500] = 1e-30

OTHERS = {
    "a constant in a closure": lambda: key(model(scale=float(np.nextafter(np.float32(2.0), 3)))),
    "a table in a closure": lambda: key(model(table=np.array([0.0, 1.0, 2.0000002], np.float32))),
    "a parameter more": lambda: key(model(size=4)),
    "data of another shape": lambda: key(model(y=np.zeros(3))),
    "another kernel": lambda: key(kernel=NUTS()),
    "a setting of the kernel": lambda: key(kernel=JitteredHMC(TWO_LEAPFROGS, max_steps=7)),
    "what is kept": lambda: key(keep=KeepDraws(("x",))),
    "more chains on more devices": lambda: key(chains=128),
    "an option of XLA": lambda: key(options=COMPILER_OPTIONS["cpu"].items()),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_different_has_another_hash(what):
    assert OTHERS[what]() not in (key(), None)


def test_the_middle_of_a_long_table_counts():
    """Where it is printed, it is cut short."""
    made = [key(model(size=5000, table=table)) for table in (LONG, CHANGED)]
    assert made[0] != made[1]
    assert None not in made


def test_a_rule_for_a_derivative_counts():
    """It is not in the jaxpr of the log density."""
    assert key(with_rule(2.0)) != key(with_rule(3.0))


def test_settings_of_jax_and_precision_count():
    before = key()
    with jax.default_prng_impl("rbg"):
        assert key() not in (before, None)
    with jax.enable_x64(True):
        assert key(dtype=np.float64) not in (before, None)


@pytest.fixture
def elsewhere():
    """The surroundings are those of a process; a test that changes them has them asked for again."""
    fingerprint._surroundings.cache_clear()
    yield
    fingerprint._surroundings.cache_clear()


@pytest.mark.parametrize("what", ["source", "version", "flags"])
def test_surroundings_count(what, monkeypatch, elsewhere):
    before = key()
    fingerprint._surroundings.cache_clear()
    if what == "source":
        read = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "isokinetic.py"))
    elif what == "version":
        monkeypatch.setattr(fingerprint, "version", lambda name: "99")
    else:
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert key() not in (before, None)


def called_back(params):
    value = jax.pure_callback(lambda x: np.float32(0.0), jax.ShapeDtypeStruct((), np.float32), params["x"].sum())
    return -0.5 * jnp.sum(params["x"] ** 2) + jax.lax.stop_gradient(value)


def printed(params):
    jax.debug.print("{}", params["x"][0])
    return -0.5 * jnp.sum(params["x"] ** 2)


class Foreign(HMC):
    """A kernel of another package."""


UNKNOWN = {
    "Python that the device calls": lambda: key(Model(params={"x": shoal.real(3)}, log_density=called_back)),
    "Python that prints": lambda: key(Model(params={"x": shoal.real(3)}, log_density=printed)),
    "a kernel of another package": lambda: key(kernel=Foreign()),
    "a function without a name": lambda: key(keep=lambda transition, target: {}),
    "a function with a memory": lambda: key(keep=functools.partial(lambda n, *_: {}, 3)),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_cannot_be_told_has_no_hash(what):
    assert UNKNOWN[what]() is None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return place().folder


@pytest.fixture
def traces():
    """The names of the functions that are traced meanwhile."""
    found = []
    listen = lambda event, seconds, fun_name="", **_: found.append(fun_name) if event == TRACED else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def another_process():
    """What this process remembers is forgotten."""

    def forget():
        jax.clear_caches()
        for function in Functions:
            function._known.clear()
            function._programs.cache_clear()

    return forget


from shoal import run  # noqa: E402

Functions = (*run._PROGRAMS.values(), run._fresh, run._frozen, run._ensemble_at)


def sampled(**asked):
    asked = {"num_chains": 16, "num_samples": 20, "sampler": shoal.HMC(step_size=0.3, num_steps=5), **asked}
    return shoal.sample(model(), progress_bar=False, **asked)


def kept(folder):
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_a_run_takes_what_another_traced_and_makes_the_same_draws(folder, traces, another_process):
    first = sampled()
    there = [path.read_bytes() for path in kept(folder)]
    assert any("_advance" in name for name in traces)
    traces.clear()
    another_process()
    second = sampled()
    assert not [name for name in traces if "_advance" in name or "_ensemble_at" in name]
    assert [path.read_bytes() for path in kept(folder)] == there
    assert first.draws["x"].tobytes() == second.draws["x"].tobytes()
    assert first.sample_stats["lp"].tobytes() == second.sample_stats["lp"].tobytes()


def test_a_run_in_other_precision_takes_its_own(folder, another_process):
    first = sampled(precision="float64")
    another_process()
    sampled()
    another_process()
    assert sampled(precision="float64").draws["x"].tobytes() == first.draws["x"].tobytes()


def spoilt(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def empty(content):
    return b""


def unrelated(content):
    """Whole, but of nothing that can be loaded."""
    data = zlib.compress(pickle.dumps((b"nothing", ())))
    return executables.hashlib.sha256(data).digest() + data


@pytest.fixture
def small(folder):
    """A small program, as another process would have it."""
    arguments = Fixed(), {}, jnp.arange(3.0), None, Placement.of(4).layout.mesh

    def program():
        with kept_programs():
            return compiled(run._fresh._function)(*arguments)

    return program


@pytest.mark.parametrize("damage", [spoilt, empty, unrelated])
def test_what_is_damaged_is_made_again(folder, damage, small, another_process):
    first = small()
    (path,) = kept(folder)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    another_process()
    assert jax.tree.structure(small()) == jax.tree.structure(first)
    assert not path.exists() or path.read_bytes() != damaged


def test_what_does_not_run_is_made_again(folder, small, another_process, monkeypatch):
    """XLA loads programs of which a part is missing."""
    first = small()
    assert len(kept(folder)) == 1
    another_process()
    monkeypatch.setattr(executables.Executable, "__call__", broken(executables.Executable.__call__))
    assert jax.tree.structure(small()) == jax.tree.structure(first)
    assert not kept(folder)


def broken(call):
    """The same with a program that fails."""

    def called(self, leaves):
        def fails(leaves):
            raise jax.errors.JaxRuntimeError("NOT_FOUND: Function wrapped_broadcast not found")

        self._compiled = fails
        return call(self, leaves)

    return called


def test_what_came_from_the_cache_of_jax_is_not_written(folder, another_process, monkeypatch):
    """XLA writes a program that it has read, but what it writes does not run."""
    sampled()
    for path in kept(folder):
        path.unlink()
    another_process()
    written, keep = [], compiling.keep

    def watched(path, compile_it, rest):
        keep(path, compile_it, rest)
        written.append((executables._from_cache.hits, path.exists()))

    monkeypatch.setattr(compiling, "keep", watched)
    sampled()
    from_cache = [there for hits, there in written if hits]
    assert len(from_cache) >= 3
    assert not any(from_cache)


def test_what_was_used_longest_ago_goes(folder, monkeypatch):
    with kept_programs():
        pass
    for age, name in enumerate("abc"):
        path = folder / f"{name}{SUFFIX}"
        path.write_bytes(b"x" * 100)
        executables.os.utime(path, (1e9 - age, 1e9 - age))
    with kept_programs():
        assert len(kept(folder)) == 3
    assert MOST_BYTES_TRACED > 300
    monkeypatch.setattr("shoal.compile_cache.MOST_BYTES_TRACED", 250)
    with kept_programs():
        assert [path.name[0] for path in kept(folder)] == ["a", "b"]


def test_where_nothing_is_kept_nothing_is_told(monkeypatch):
    monkeypatch.setattr(compiling, "fingerprint", lambda *_: pytest.fail("asked for"))
    with kept_programs():
        assert compiled(lambda x: x + 1)(jnp.ones(())) == 2.0
