"""How programs are compiled: so that the same seed gives the same draws, and on the cores that there are."""

import contextlib
import ctypes
import gc
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache, update_wrapper
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.cores import cores
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

# Two threads that launched programs for several devices at one time could have them wait for each other: each device
# takes what comes first.
_LAUNCHES = threading.RLock()

# New objects after which Python looks for garbage while a program is traced.
OBJECTS = 50_000
_COLLECTING = threading.Lock()

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


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """Have Python look for garbage less often meanwhile: what is traced stays, and a look goes through all of it."""
    with _COLLECTING:
        before = gc.get_threshold()
        if seldom := 0 < before[0] < OBJECTS:
            gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        with _COLLECTING:
            if seldom and gc.get_threshold()[0] == OBJECTS:
                gc.set_threshold(*before)


class _Ahead(NamedTuple):
    """What is compiled on other cores: by whom, and by what it is for."""

    workers: ThreadPoolExecutor
    begun: dict[Hashable, Future[Any]]


class Compiled[**P, R]:
    """A function compiled with the `compiler_options` of the default backend."""

    def __init__(self, function: Callable[P, R], brief: bool = False) -> None:
        """Compile nothing yet.

        Args:
            function: of pytrees; what is not an array is compiled in.
            brief: whether it runs for so short that compiling counts more.
        """
        update_wrapper(self, function)
        self._function, self._brief = function, brief
        self._programs = cache(self._program)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        ahead = _ahead.get()
        begun = None if ahead is None else ahead.begun.pop(self._signature(args, kwargs), None)
        # What has not begun is not waited for; what went wrong there goes wrong in the call below.
        if begun is not None and not begun.cancel():
            with contextlib.suppress(Exception):
                begun.result()
        with _LAUNCHES, collecting_seldom():
            return self._programs(self._options())(*args, **kwargs)

    def ahead(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Begin to compile for arguments such as these on another core; a call with such arguments waits for it.

        Nothing is done where no other core is to be used (`background`).
        """
        ahead, signature = _ahead.get(), self._signature(args, kwargs)
        if ahead is not None and signature not in ahead.begun:
            # Tracing is Python's and stays in this thread, with its settings; XLA's part does not hold Python up.
            ahead.begun[signature] = ahead.workers.submit(self.lower(*args, **kwargs).compile)

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The program for arguments such as these, traced and not compiled."""
        program: Any = self._programs(self._options())
        with collecting_seldom():
            return program.lower(*args, **kwargs)

    def _program(self, options: frozenset[tuple[str, Any]]) -> Callable[P, R]:
        # equinox hands what it does not know on to jax.jit, which its types do not say.
        return eqx.filter_jit(self._function, compiler_options=dict(options))  # pyright: ignore[reportCallIssue]

    def _options(self) -> frozenset[tuple[str, Any]]:
        backend = jax.default_backend()
        brief = BRIEF.get(backend, {}) if self._brief else {}
        return frozenset({**compiler_options(backend), **brief}.items())

    def _signature(self, *arguments: Any) -> Hashable:
        """What is the same for arguments that one program serves."""
        leaves, structure = jax.tree.flatten(arguments)
        each = tuple((leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves)
        return self._function, self._brief, structure, each


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

    def adds_up(equation: Any) -> bool:
        if equation.primitive.name != "scatter-add" or equation.params["unique_indices"]:
            return False
        return bool(np.prod(equation.invars[1].aval.shape[:-1]) > 1)

    return _has(adds_up, _gradient(target, dtype))


def turns_freely(target: Target, dtype: DTypeLike) -> bool:
    """Whether the gradient of the log density has a loop whose turns nobody knows beforehand."""
    return _has(lambda equation: equation.primitive.name == "while", _gradient(target, dtype))


def _gradient(target: Target, dtype: DTypeLike) -> Any:
    return jax.make_jaxpr(target.gradient)(jnp.zeros((1, target.dim), dtype)).jaxpr


def _has(wanted: Callable[[Any], bool], jaxpr: Any) -> bool:
    """Whether an equation of it, or of what is inside, is one that is wanted."""
    inner = (sub for equation in jaxpr.eqns for sub in jax.tree.leaves(list(equation.params.values())))
    return any(wanted(equation) for equation in jaxpr.eqns) or any(
        _has(wanted, getattr(sub, "jaxpr", sub)) for sub in inner if hasattr(getattr(sub, "jaxpr", sub), "eqns")
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
