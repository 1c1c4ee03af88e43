"""Programs that run as another process left them: equal names are equal programs, and what cannot be named has none."""

import functools
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("filelock")
pytest.importorskip("platformdirs")

import shoal
from shoal import compiling, drawing, kernels, ready
from shoal.compile_cache import VARIABLE, kept_programs, place
from shoal.compiling import Compiled, forget_programs
from shoal.mesh import Placement
from shoal.placing import targets_of
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import _advance, begin, enter, sweeps_as_array
from shoal.samplers import HMC

BY_HAND = HMC(step_size=0.3, num_steps=5)
LARGE = {"_advance", "ensemble_at"}
ASKED = {"num_chains": 4, "num_samples": 20, "num_warmup": 0, "sampler": BY_HAND, "progress_bar": False}


@pytest.fixture(autouse=True)
def settled_code(monkeypatch):
    """As where nobody has touched Shoal's files just now."""
    monkeypatch.setattr(ready, "_IMPORTED", math.inf)
    own = ready._code_version
    own.cache_clear()
    yield
    own.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return place().folder / "ready"


@pytest.fixture
def traced(monkeypatch):
    """The names of the functions that are traced meanwhile."""
    names, trace = [], Compiled._traced

    def listen(self, *of):
        names.append(self.__name__)
        return trace(self, *of)

    monkeypatch.setattr(Compiled, "_traced", listen)
    return names


def model(scale=1.0, dim=3, constrained=shoal.real):
    return shoal.Model(params={"x": constrained(dim)}, log_density=lambda p: -0.5 * jnp.sum((p["x"] / scale) ** 2))


def same(one, other):
    assert one.draws["x"].tobytes() == other.draws["x"].tobytes()
    assert one.draws["x"].size


def again(asked=model, **more):
    """As another process would sample it."""
    forget_programs()
    return shoal.sample(asked(), **{**ASKED, **more})


def test_a_run_traces_nothing_that_another_process_has_compiled(folder, traced, monkeypatch):
    first = shoal.sample(model(), **ASKED)
    assert set(traced) > LARGE
    assert len(list(folder.iterdir())) > len(LARGE)
    traced.clear()
    second = again()
    assert not LARGE & set(traced)
    same(first, second)
    monkeypatch.setenv(VARIABLE, "off")
    same(first, again())
    assert traced


@pytest.mark.parametrize("sampler", ["auto", "meads"])
def test_so_does_every_sampler(folder, traced, sampler):
    asked = {"sampler": sampler, "num_chains": 32, "num_samples": 30, "num_warmup": 60}
    first = again(**asked)
    traced.clear()
    same(first, again(**asked))
    assert not LARGE & set(traced)


def test_another_process_takes_them(folder):
    script = (
        "import jax, jax.numpy as jnp, math, shoal\n"
        "from shoal import ready, compiling\n"
        "ready._IMPORTED = math.inf\n"
        "traced, trace = [], compiling.Compiled._traced\n"
        "compiling.Compiled._traced = lambda self, *of: (traced.append(self.__name__), trace(self, *of))[1]\n"
        "m = shoal.Model(params={'x': shoal.real(3)}, log_density=lambda p: -0.5 * jnp.sum(p['x'] ** 2))\n"
        "r = shoal.sample(m, num_chains=4, num_samples=20, sampler=shoal.HMC(step_size=0.3, num_steps=5),"
        " progress_bar=False)\n"
        "print(traced.count('_advance'), r.draws['x'].tobytes().hex())"
    )
    said = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in "12"]
    (count, first), (none, second) = (one.stdout.split() for one in said)
    assert int(count) > 0 == int(none)
    assert first == second


def test_another_density_of_the_same_form_is_another_program(folder, traced):
    first = shoal.sample(model(), **ASKED)
    traced.clear()
    second = again(lambda: model(scale=100.0))
    assert "_advance" in traced
    assert not np.array_equal(first.draws["x"], second.draws["x"])


def test_a_name_without_the_density_would_give_draws_of_another(folder, traced, monkeypatch):
    """What the test before would miss if it could not fail."""
    monkeypatch.setattr(ready.Densities, "digest", lambda self, target: "any")
    first = shoal.sample(model(), **ASKED)
    traced.clear()
    same(first, again(lambda: model(scale=100.0)))
    assert "_advance" not in traced


# ------------------------------------------------------------------------------------------------------------- names


def named(made=None, kernel=None, chains=4, options=None, dtype=np.float32, tuning=None, function=None):
    """The name of a program of sampling."""
    made = model() if made is None else made
    placement = Placement.of(chains, 4, jax.devices()[:2])
    target, _ = targets_of(made, dtype, False, placement)
    kernel = kernels.HMC() if kernel is None else kernel
    program, start = Program(target, kernel), np.zeros((chains, made.dim), dtype)
    tuning = kernel.tuning(made.dim, dtype) if tuning is None else tuning
    run = enter(program, begin(program, placement, root_key(0), start, tuning), placement, 10)
    arguments = program, run, sweeps_as_array(1), placement.layout, 10
    with compiling.background():
        return ready.name_of(function or _advance.__wrapped__, options or {}, arguments)


def with_constant(values):
    return shoal.Model(params={"x": shoal.real(3)}, log_density=lambda p: -0.5 * jnp.sum(values * jnp.sum(p["x"] ** 2)))


def of_data(density, quantity=None):
    """A model that has two arrays of data and reads some."""
    data = {name: np.full(3, value, np.float32) for name, value in (("a", 5.0), ("b", -5.0))}
    return shoal.Model(
        params={"x": shoal.real(3)},
        log_density=lambda p, d: -0.5 * jnp.sum((p["x"] - d[density]) ** 2),
        deterministic=None if quantity is None else lambda p, d: {"y": p["x"] - d[quantity]},
        data=data,
    )


def test_a_model_that_reads_other_data_has_draws_of_its_own(folder):
    shoal.sample(of_data("a"), **ASKED)
    assert again(lambda: of_data("b"), num_samples=400).draws["x"].mean() < -4.0


def test_equal_programs_have_equal_names():
    assert named() == named() is not None
    long = np.ones(50_000, np.float32)
    assert named(with_constant(long)) == named(with_constant(long.copy())) is not None


def test_whatever_differs_is_in_the_name(monkeypatch):
    long = np.ones(50_000, np.float32)
    other = long.copy()
    other[31_234] = np.nextafter(np.float32(1.0), np.float32(2.0))
    names = {
        "plain": named(),
        "scale": named(model(scale=1.0 + 1e-6)),
        "one of the data": named(of_data("a")),
        "the other": named(of_data("b")),
        "one of the data, in a quantity": named(of_data("a", "a")),
        "the other, in a quantity": named(of_data("a", "b")),
        "support": named(model(constrained=shoal.positive)),
        "dim": named(model(dim=4)),
        "long": named(with_constant(long)),
        "one bit of a long one": named(with_constant(other)),
        "kernel": named(kernel=kernels.JitteredHMC()),
        "its setting": named(kernel=kernels.JitteredHMC(max_steps=7)),
        "chains": named(chains=8),
        "options": named(options={"xla_backend_optimization_level": 2}),
    }
    with jax.default_matmul_precision("float32"):
        names["precision of products"] = named()
    with jax.numpy_dtype_promotion("strict"):
        names["promotion"] = named()
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_other")
        names["flags"] = named()
    with monkeypatch.context() as patch:
        patch.setattr(ready, "_code_version", lambda: "another version of Shoal")
        names["code"] = named()
    assert None not in names.values()
    assert len(set(names.values())) == len(names)


class OfTheUser(kernels.HMC):
    """A kernel whose code is not Shoal's."""


def test_what_is_not_certain_has_no_name(monkeypatch):
    assert named() is not None
    assert named(kernel=OfTheUser()) is None
    assert named(function=lambda *args: args) is None
    assert named(function=functools.wraps(_advance.__wrapped__)(lambda *args: args)) is None
    calls = lambda p: jax.pure_callback(lambda x: np.float32(-(x**2).sum()), jax.ShapeDtypeStruct((), "f4"), p["x"])
    density = jax.custom_jvp(lambda x: calls({"x": x}))
    density.defjvp(lambda x, t: (density(x[0]), -2.0 * (x[0] * t[0]).sum()))
    asks_python = shoal.Model(params={"x": shoal.real(3)}, log_density=lambda p: density(p["x"]))
    target = asks_python.target(np.float32)
    with pytest.raises(ready.Unnamed):
        ready.Densities().digest(target)
    monkeypatch.setattr(ready, "_IMPORTED", 0.0)  # every file has changed since
    ready._code_version.cache_clear()
    assert named() is None


def test_a_rule_for_many_chains_has_no_name():
    @jax.custom_batching.custom_vmap
    def square(x):
        return x**2

    @square.def_vmap
    def rule(size, batched, x):
        return x**2 + size, True

    density = jax.custom_jvp(square)
    density.defjvp(lambda x, t: (density(x[0]), 2.0 * x[0] * t[0]))
    made = shoal.Model(params={"x": shoal.real()}, log_density=lambda p: -0.5 * density(p["x"]))
    assert named(made) is None
    in_gradient = jax.custom_vjp(lambda x: x**2)
    in_gradient.defvjp(lambda x: (x**2, x), lambda x, t: (2.0 * t * square(x),))
    assert named(shoal.Model(params={"x": shoal.real()}, log_density=lambda p: -0.5 * in_gradient(p["x"]))) is None


def test_parameters_on_several_devices_have_no_name():
    placement = Placement.of(8, 4, jax.devices()[:4], parts=2)
    with pytest.raises(ready.Unnamed):
        ready.described(placement.place(np.zeros((8, 64), np.float32), split=True))


def test_rows_on_several_devices_have_no_name():
    made = shoal.examples.load("breast_cancer")
    placement = Placement.of(8, 4, jax.devices()[:4], shards=2)
    target, _ = targets_of(made, np.float32, False, placement)
    with pytest.raises(ready.Unnamed):
        ready.Densities().digest(target)


# -------------------------------------------------------------------------------------------- a density that changes


class Changing:
    """A log density that reads what a user changes: a variable, or an array that is written to."""

    def __init__(self, kind=float):
        self.centre = np.zeros(3, np.float32) if kind is np.ndarray else 0.0
        self.model = shoal.Model(
            params={"x": shoal.real(3)}, log_density=lambda p: -0.5 * jnp.sum((p["x"] - self.centre) ** 2)
        )

    def sample(self, centre, **more):
        if isinstance(self.centre, np.ndarray):
            self.centre[:] = centre
        else:
            self.centre = centre
        return shoal.sample(self.model, **{**ASKED, "num_samples": 400, **more})


@pytest.mark.parametrize("kind", [float, np.ndarray])
@pytest.mark.parametrize("first", [0.0, 5.0])
def test_a_density_that_has_changed_has_other_programs(folder, first, kind):
    """Those of another process are what the density was there, and is here."""
    changing, later = Changing(kind), 5.0 - first
    changing.sample(first)
    changing.sample(later, num_chains=8)  # programs of another form
    forget_programs()
    assert abs(Changing(kind).sample(first, num_chains=8).draws["x"].mean() - first) < 0.5
    assert abs(changing.sample(later, num_chains=8).draws["x"].mean() - later) < 0.5


def test_what_jax_remembers_of_a_density_is_not_kept(folder, monkeypatch):
    """It may have traced it for the same tiles before, when it was another."""
    changing, tiles = Changing(), {"tile": 4, "mesh": {"chains": 1}}
    monkeypatch.setenv(VARIABLE, "off")
    changing.sample(5.0, num_chains=8, **tiles)
    monkeypatch.setenv(VARIABLE, str(folder.parents[1]))
    changing.sample(0.0, num_chains=16, **tiles)
    assert files(folder)
    forget_programs()
    assert abs(changing.sample(0.0, num_chains=16, **tiles).draws["x"].mean()) < 0.5


def test_programs_of_a_density_that_changes_meanwhile_are_not_kept(folder, monkeypatch):
    changing, compile_phase = Changing(), drawing.compile_phase

    def changed(*of):
        changing.centre = 1.0
        return compile_phase(*of)

    with monkeypatch.context() as patch:
        patch.setattr(drawing, "compile_phase", changed)
        changing.sample(0.0)
    assert not folder.exists() or not files(folder)
    forget_programs()
    changing.sample(0.0)
    assert files(folder)


# ---------------------------------------------------------------------------------------------------------- the folder


def files(folder):
    return sorted(folder.iterdir())


@pytest.mark.parametrize("harm", ["cut off", "flipped", "empty", "of another form"])
def test_what_is_damaged_is_compiled_again(folder, traced, harm):
    first = shoal.sample(model(), **ASKED)
    whole = {file: file.read_bytes() for file in files(folder)}
    for file, kept in whole.items():
        middle = len(kept) // 2
        flipped = kept[:middle] + bytes([kept[middle] ^ 1]) + kept[middle + 1 :]
        file.write_bytes({"cut off": kept[:middle], "flipped": flipped, "empty": b""}.get(harm, b"\0" * 64))
    traced.clear()
    same(first, again())
    assert set(traced) >= LARGE
    traced.clear()
    same(first, again())
    assert not LARGE & set(traced)  # they were kept again


def test_what_is_lost_is_kept_again(folder, traced):
    """Though JAX's cache may have it."""
    first = shoal.sample(model(), **ASKED)
    for file in files(folder):
        file.unlink()
    again()
    traced.clear()
    same(first, again())
    assert not LARGE & set(traced)


def test_what_a_killed_process_had_begun_is_deleted(folder):
    folder.mkdir(parents=True)
    old, new = (folder / f"{name}{ready.UNFINISHED}" for name in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"begun")
    os.utime(old, (0.0, 0.0))
    shoal.sample(model(), **ASKED)
    assert new.exists()
    assert not old.exists()


def test_a_folder_that_others_may_write_to_is_not_trusted(folder, traced):
    shoal.sample(model(), **ASKED)
    folder.chmod(0o777)
    traced.clear()
    again()
    assert set(traced) >= LARGE


def test_the_folder_does_not_grow_without_bounds(folder, monkeypatch):
    shoal.sample(model(), **ASKED)
    largest = max(file.stat().st_size for file in files(folder))
    monkeypatch.setattr(ready, "MOST_BYTES", 2 * largest)
    again(lambda: model(dim=5))
    assert 0 < sum(file.stat().st_size for file in files(folder)) <= 2 * largest
    monkeypatch.setattr(ready, "MOST_BYTES", 0)
    same(again(), again())


def test_a_folder_that_cannot_be_written_to_stops_nothing(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(ready.tempfile, "mkstemp", full)
    same(shoal.sample(model(), **ASKED), again())
    assert not folder.exists() or not files(folder)


def test_what_is_not_kept_is_not_named(monkeypatch):
    monkeypatch.setattr(ready.Densities, "digest", lambda self, target: pytest.fail("named"))
    shoal.sample(model(), **ASKED)  # the tests keep no programs


def test_a_program_runs_without_being_compiled_where_jax_says_so():
    double = compiling.compiled(lambda x, n: n * x)
    with jax.disable_jit():
        assert double(jnp.ones(()), 3) == 3.0
    assert jax.vmap(lambda x: double(x, 3))(jnp.ones(2)).sum() == 6.0
    assert [double(jnp.asarray(3), n).dtype for n in (1, 1.0)] == [jnp.int32, jnp.float32]


def test_programs_are_few_in_a_process(monkeypatch):
    monkeypatch.setattr(compiling, "MOST_PROGRAMS", 3)
    double = compiling.compiled(lambda x: 2.0 * x)
    forget_programs()
    for size in range(1, 6):
        np.testing.assert_array_equal(double(jnp.ones(size)), 2.0)
    assert len(compiling._PROGRAMS) == 3


def test_kept_programs_are_the_users_alone(folder):
    with kept_programs():
        shoal.sample(model(), **ASKED)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in files(folder))
