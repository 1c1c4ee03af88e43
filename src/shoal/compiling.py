"""How programs are compiled: so that the same seed gives the same draws, and on the cores that there are."""

import contextlib
import ctypes
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache, update_wrapper
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.compile_cache import SUFFIX, kept_in
from shoal.cores import cores
from shoal.executables import Executable, Rest, keep, split, taken
from shoal.fingerprint import fingerprint, settings
from shoal.target import Target

# What XLA is told, by backend. On a CPU it merges equal expressions early in a program for several devices and late in
# one for a single device; products and sums then fuse, and round, otherwise. Leaving the pass out was measured to cost
# nothing. On a GPU it adds up scattered terms in any order, and computes products by whichever of several programs was
# fastest on trial; being deterministic was measured (one H100) to cost a quarter to a half at 128 chains of
# `breast_cancer` and nothing at 4,096.
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_disable_hlo_passes": "cse"},
    "gpu": {"xla_gpu_deterministic_ops": True},
}
# What it is told besides of programs that run for moments: LLVM's second level takes half to four fifths of the time of
# its third, and makes programs that were measured to be 0 to 15% slower.
BRIEF: dict[str, dict[str, Any]] = {"cpu": {"xla_backend_optimization_level": 2}}
# From so many chains on, sums of scattered terms in a fixed order are what takes the time.
MANY_CHAINS = 1024

# Of a function, in a process.
MOST_PROGRAMS = 256

# Two threads that launched programs for several devices at one time could have them wait for each other: each device
# takes what comes first.
_LAUNCHES = threading.RLock()

_deterministic: ContextVar[bool] = ContextVar("deterministic", default=True)
_ahead: ContextVar["_Ahead | None"] = ContextVar("ahead", default=None)


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Whether programs that are compiled meanwhile give the same draws for the same seed on a GPU, too."""
    token = _deterministic.set(wanted)
    try:
        yield
    finally:
        _deterministic.reset(token)


def is_deterministic() -> bool:
    """Whether programs compiled now do."""
    return _deterministic.get()


def compiler_options(backend: str) -> dict[str, Any]:
    """What XLA is told on a backend."""
    return {} if backend == "gpu" and not is_deterministic() else COMPILER_OPTIONS.get(backend, {})


def launching() -> contextlib.AbstractContextManager[Any]:
    """Held while a program for several devices is launched: one thread at a time."""
    return _LAUNCHES


@contextlib.contextmanager
def background() -> Iterator[None]:
    """Let programs be compiled on other cores meanwhile (`Compiled.ahead`), if there are any."""
    if cores() == 1:
        yield
        return
    ahead = _Ahead(ThreadPoolExecutor(cores() - 1, thread_name_prefix="shoal-compile"), {})
    token = _ahead.set(ahead)
    try:
        yield
    finally:
        _ahead.reset(token)
        ahead.workers.shutdown(wait=False, cancel_futures=True)


class _Ahead(NamedTuple):
    """What is compiled on other cores: by whom, and by what it is for."""

    workers: ThreadPoolExecutor
    begun: dict[Hashable, Future[Any]]


class Compiled[**P, R]:
    """A function compiled with the `compiler_options` of the default backend.

    Its programs are kept for other processes while `kept_programs` is entered; those that were kept are taken without
    tracing, which would take most of the time of a start with compiled programs.
    """

    def __init__(self, function: Callable[P, R], brief: bool = False) -> None:
        """Compile nothing yet.

        Args:
            function: of pytrees; what is not an array is compiled in.
            brief: whether it runs for so short that compiling counts more.
        """
        update_wrapper(self, function)
        self._function, self._brief = function, brief
        # By what it is compiled for; the last is there to tell programs apart.
        self._programs = lru_cache(MOST_PROGRAMS)(lambda options, rest, _: _Program(function, dict(options), rest))
        # By signature; None of those that this process has compiled.
        self._known: dict[Hashable, Executable | None] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        leaves, rest = split((args, kwargs))
        signature = self._signature(leaves, rest)
        ahead = _ahead.get()
        begun = None if ahead is None else ahead.begun.pop(signature, None)
        # What has not begun is not waited for; what went wrong there goes wrong in the call below.
        if begun is not None and not begun.cancel():
            with contextlib.suppress(Exception):
                begun.result()
        elif signature not in self._known and (make := self._kept(leaves, rest, signature)) is not None:
            with contextlib.suppress(Exception):
                make()
        with _LAUNCHES:
            taken = self._known.get(signature)
            if taken is not None and (returned := taken(leaves)) is not None:
                return returned
            return self._program(leaves, rest)(leaves)

    def ahead(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Begin to compile for arguments such as these on another core; a call with such arguments waits for it.

        Nothing is done where no other core is to be used (`background`).
        """
        ahead = _ahead.get()
        if ahead is None:
            return
        leaves, rest = split((args, kwargs))
        signature = self._signature(leaves, rest)
        if signature in self._known:
            return
        make = self._kept(leaves, rest, signature)
        if make is None:
            make = self._program(leaves, rest).lower(leaves).compile
        ahead.begun[signature] = ahead.workers.submit(make)

    def _kept(self, leaves: list[Any], rest: Rest, signature: Hashable) -> Callable[[], Any] | None:
        """What takes the program from those that are kept, or makes it and keeps it; None where it is not to be kept.

        Tracing is Python's and is done here, in this thread, with its settings; what is left does not hold Python up.
        """
        while len(self._known) >= MOST_PROGRAMS:
            self._known.pop(next(iter(self._known)))
        self._known[signature] = None
        folder = kept_in()
        key = None if folder is None else fingerprint(self._function, rest.joined(leaves)[0], self._options())
        if folder is None or key is None:
            return None
        path = folder / f"{key}{SUFFIX}"
        if path.exists():

            def take() -> None:
                self._known[signature] = taken(path, leaves)

            return take
        program = self._program(leaves, rest)
        lowered = program.lower(leaves, key)
        return lambda: keep(path, lowered.compile, program.returned)

    def _program(self, leaves: list[Any], rest: Rest) -> "_Program":
        return self._programs(self._options(), rest, tuple(map(_kind, leaves)))

    def _options(self) -> frozenset[tuple[str, Any]]:
        backend = jax.default_backend()
        brief = BRIEF.get(backend, {}) if self._brief else {}
        return frozenset({**compiler_options(backend), **brief}.items())

    def _signature(self, leaves: list[Any], rest: Rest) -> Hashable:
        """What is the same for arguments that one program serves."""
        return self._options(), rest, tuple((_kind(leaf), _place(leaf)) for leaf in leaves), settings()


def _kind(leaf: Any) -> Hashable:
    kind = jax.typeof(leaf)
    return kind.shape, kind.dtype, getattr(kind, "weak_type", False)


def _place(leaf: Any) -> Hashable:
    """Where an array is. Shardings that a program from a file returns are not equal to others of the same place."""
    sharding = getattr(leaf, "sharding", None)
    return None if sharding is None else (frozenset(sharding.device_set), getattr(sharding, "spec", None))


class _Program:
    """A function of the arrays among its arguments, for one structure of them.

    Attributes:
        returned: what it returns but for the arrays, once it has been traced.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], rest: Rest) -> None:
        self.returned: Rest
        self._name, self._options = function.__name__, options
        self._jitted: Any = None

        def of_arrays(leaves: list[Any]) -> list[Any]:
            args, kwargs = rest.joined(leaves)
            arrays, self.returned = split(function(*args, **kwargs))
            return arrays

        self._of_arrays = of_arrays

    def __call__(self, leaves: list[Any]) -> Any:
        arrays = self._once()(leaves)
        return self.returned.joined(arrays)

    def lower(self, leaves: list[Any], key: str = "") -> jax.stages.Lowered:
        """Trace it.

        Args:
            leaves: arguments such as it is for.
            key: by which the program is to be kept. It becomes a part of the name, so that JAX's cache has no other:
                what comes from there cannot be written again.
        """
        return self._once(key).lower(leaves)

    def _once(self, key: str = "") -> Any:
        if self._jitted is None:
            self._of_arrays.__name__ = f"{self._name}_{key[:16]}" if key else self._name
            self._jitted = jax.jit(self._of_arrays, compiler_options=self._options)
        return self._jitted


def compiled[**P, R](function: Callable[P, R]) -> Compiled[P, R]:
    """`function` as a compiled one."""
    return Compiled(function)


def compiled_briefly[**P, R](function: Callable[P, R]) -> Compiled[P, R]:
    """`function` as a compiled one that runs for moments."""
    return Compiled(function, brief=True)


def give_back() -> None:
    """Give the system back what is free, as after compiling: on Linux the allocator keeps it, tens of megabytes."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems have other allocators
        ctypes.CDLL(None).malloc_trim(0)


def scatters(target: Target, dtype: DTypeLike) -> bool:
    """Whether the gradient of the log density adds up several terms by index, as that of `level[group]` does."""
    position = jnp.zeros((1, target.dim), dtype)
    return _has_scatter(jax.make_jaxpr(target.gradient)(position).jaxpr)


def _has_scatter(jaxpr: Any) -> bool:
    def adds_up(equation: Any) -> bool:
        if equation.primitive.name != "scatter-add" or equation.params["unique_indices"]:
            return False
        return bool(np.prod(equation.invars[1].aval.shape[:-1]) > 1)

    inner = (sub for equation in jaxpr.eqns for sub in jax.tree.leaves(list(equation.params.values())))
    return any(adds_up(equation) for equation in jaxpr.eqns) or any(
        _has_scatter(getattr(sub, "jaxpr", sub)) for sub in inner if hasattr(getattr(sub, "jaxpr", sub), "eqns")
    )


def warn_of_slow_sums(target: Target, dtype: DTypeLike, num_chains: int) -> None:
    """Say so where determinism is dear: sums of scattered terms for many chains on a GPU."""
    dear = jax.default_backend() == "gpu" and is_deterministic() and num_chains >= MANY_CHAINS
    if dear and scatters(target, dtype):
        warnings.warn(
            "The gradient of this model adds up terms by index (as that of level[group] does), and doing so in a fixed "
            f"order can be slow on a GPU with {num_chains:,} chains: 11 times, in one measurement with 4,096. "
            "deterministic=False adds them up in any order; the same seed then gives other draws from the same "
            "posterior.",
            stacklevel=3,
        )
